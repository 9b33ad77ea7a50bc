"""Trainings of two processes through the scripts of tools/: what they compute, how they end."""

import argparse
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import fork_server
import pytest
import torch
from mmengine.config import Config
from processes import ROOT, bash, train, write_config
from tiny_runs import make_data

from mmengine_agent.checkpoints import load_local
from mmengine_agent.errors import UserError
from mmengine_agent.resume.newest import POINTER
from mmengine_agent.run.lock import lock_work_dir
from mmengine_agent.run.processes import export_slurm_rank, fit_to_cpu
from mmengine_agent.run.setup import build_runner
from mmengine_agent.run.train import prepare

SHORT = {"train_cfg.max_iters": 6, "train_cfg.val_interval": 6}
SAVED_OFTEN = {"default_hooks.checkpoint.interval": 2}
# the same for one process of two images as for two processes of one
PLAIN: dict[str, Any] = {
    "model.backbone.drop_path_rate": 0.0,
    "model.decode_head.dropout_ratio": 0.0,
    "optim_wrapper.optimizer": {"type": "SGD", "lr": 0.05, "_delete_": True},
    "train_dataloader.dataset.pipeline": [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations", "reduce_zero_label": True},
        {"type": "Resize", "scale": (64, 64), "keep_ratio": False},
        {"type": "PackSegInputs"},
    ],
}
SRUN = """#!{python}
import argparse, os, signal, subprocess, sys, time
parser = argparse.ArgumentParser(prog="srun")
needed = ("partition", "job-name", "gres", "cpus-per-task", "ntasks-per-node", "ntasks")
for name in (*needed, "kill-on-bad-exit", "comment"):
    parser.add_argument("--" + name, required=name != "comment")
parser.add_argument("command", nargs=argparse.REMAINDER)
args = parser.parse_args()
print("srun", vars(args), flush=True)
tasks = []
for number in range(int(args.ntasks)):
    own = dict(SLURM_PROCID=str(number), SLURM_LOCALID=str(number), SLURM_NTASKS=args.ntasks)
    tasks.append(subprocess.Popen(args.command, env=dict(os.environ, **own)))
while any(task.poll() is None for task in tasks):
    if any(task.poll() for task in tasks):  # as Slurm does: SIGTERM, and SIGKILL after 30 s
        for task in tasks:
            task.poll() is None and task.terminate()
    time.sleep(0.2)
sys.exit(max(task.returncode if task.returncode >= 0 else 128 - task.returncode for task in tasks))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("processes") / "data")


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes begin with the third-party imports done; in one test they do not."""
    for name, value in fork_server.interpreter().items():
        monkeypatch.setenv(name, value)


def passed(done: Any) -> Any:
    assert done.code == 0, done.err[-3000:]
    return done


# ---- what they compute


def test_two_processes_of_which_one_dies_end_where_one_process_does(
    data: Path, tmp_path: Path
) -> None:
    batch = {"train_dataloader.batch_size": 2}
    settings = {**SHORT, **SAVED_OFTEN, **PLAIN}
    alone = write_config("segmentation", data, tmp_path / "alone", [], **settings, **batch)
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests/faults")))
    command = [ROOT / "tools/train.py", alone, "--work-dir", alone.parent / "run"]
    done = fork_server.run(command, env={**os.environ, "PYTHONPATH": paths}, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]

    batch = {"train_dataloader.batch_size": 1}
    faults = [(4, 1, "kill")]
    both = write_config("segmentation", data, tmp_path / "both", faults, **settings, **batch)
    done = passed(train(both, 2, MAX_RESTARTS="1"))
    assert (both.parent / "fault.4").exists()
    assert f"--resume: {both.parent / 'run/iter_2.pth'}" in done.err

    one, two = (load_local(str(path.parent / "run/iter_6.pth")) for path in (alone, both))
    assert one["state_dict"].keys() == two["state_dict"].keys()
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_two_machines_train_one_model_also_where_one_process_dies(
    data: Path, tmp_path: Path
) -> None:
    faults = [(4, 1, "kill")]
    config = write_config("segmentation", data, tmp_path, faults, **SHORT, **SAVED_OFTEN)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    ends: dict[str, Any] = {}

    def machine(number: str) -> None:
        place = {"NNODES": "2", "NODE_RANK": number, "MASTER_ADDR": "127.0.0.1", "PORT": port}
        ends[number] = train(config, 1, MAX_RESTARTS="1", **place)

    both = [threading.Thread(target=machine, args=(number,)) for number in "01"]
    for each in both:
        each.start()
    for each in both:
        each.join()
    said = passed(ends["0"]).err + passed(ends["1"]).err
    saved = load_local(str(tmp_path / "run/iter_6.pth"))
    assert len(saved["run_state"]["processes"]) == 2
    assert said.count("--resume: ") == 1
    assert (tmp_path / "fault.4").exists()


def test_what_is_started_again_goes_on_with_its_own_checkpoint_alone(tmp_path: Path) -> None:
    other, own, pointer = (tmp_path / name for name in ("epoch_9.pth", "epoch_1.pth", POINTER))
    for path in (other, own):
        torch.save({}, path)
    pointer.write_text(str(other))  # of a run before

    def start(resume: str | None, restarted: bool) -> tuple[bool, str | None]:
        args = argparse.Namespace(no_checks=True, find_lr=None, resume=resume)
        return prepare(Config({"work_dir": str(tmp_path)}), args, restarted)

    assert start(None, restarted=False) == (False, None)
    assert start(None, restarted=True) == (False, None)  # it died before its first checkpoint
    pointer.write_text(str(own))
    assert start(None, restarted=True) == (True, str(own))
    assert start(str(other), restarted=False) == (True, str(other))
    assert start(str(other), restarted=True) == (True, str(other))
    pointer.write_text(str(own))
    assert start(str(other), restarted=True) == (True, str(own))


# ---- how they end


def test_the_process_that_fails_reports_and_no_other_does(data: Path, tmp_path: Path) -> None:
    config = write_config("segmentation", data, tmp_path, [(3, 1, "raise")])
    done = train(config, 2)
    assert done.code == 1
    assert done.ended - float((tmp_path / "fault.3").read_text()) < 60
    errors = re.findall(r"^error in .*", done.err, re.M)
    assert errors == ["error in process 1 of 2: Traceback (most recent call last):"]
    root = done.err.partition("Root Cause")[2]
    assert "rank      : 1" in root and "ArithmeticError: a fault of process 1" in root


def test_who_loses_contact_reports_only_if_no_launcher_ends_it(tmp_path: Path) -> None:
    script, place = tmp_path / "fail.py", {"WORLD_SIZE": "2", "RANK": "0"}
    script.write_text(
        "from mmengine_agent.run.exit import run_tool\n"
        "def main():\n"
        "    open('failing', 'w').close()\n"
        "    raise RuntimeError('[gloo/pair.cc:553] Connection closed by peer')\n"
        "run_tool(main)\n"
    )
    known = {**os.environ, **place, "PYTHONPATH": str(ROOT)}
    done = fork_server.run([script], tmp_path, known, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("error in process 0 of 2: Traceback")
    assert "Connection closed by peer\nIf this is about a connection" in done.stderr
    assert "env_cfg.dist_cfg.timeout" in done.stderr

    (tmp_path / "failing").unlink()
    with (tmp_path / "printed").open("w+") as printed:
        process = fork_server.start([script], tmp_path, known, stderr=printed)
        while not (tmp_path / "failing").exists():
            time.sleep(0.01)
        process.terminate()
        assert process.wait(60) == -signal.SIGTERM
    assert (tmp_path / "printed").read_text() == ""


def test_a_mistake_is_reported_once_however_many_processes_meet_it(tmp_path: Path) -> None:
    config = ROOT / "configs/demo/agent_pvt_semantic_fpn_demo.py"
    done = bash("dist_train.sh", config, 2, "--data-root", tmp_path / "nowhere")
    assert done.code == 1
    assert len(re.findall("^error.*no data: looked for", done.err, re.M)) == 1
    assert "Traceback" not in done.err.partition("Sending process")[0]


def test_sigterm_to_the_script_saves_and_says_resume_me(data: Path, tmp_path: Path) -> None:
    length = {"train_cfg.max_iters": 100000, "train_cfg.val_interval": 100000}
    config = write_config("segmentation", data, tmp_path, [], **length)
    script = [ROOT / "tools/dist_train.sh", config, "2", "--work-dir", tmp_path / "run"]
    known = {**os.environ, "PYTHON": sys.executable, "PYTHON_EXEC": sys.executable}
    known["PYTHONPATH"] = f"{ROOT}:{ROOT / 'tests/faults'}:{ROOT / 'tests'}"
    run = subprocess.Popen(
        ["bash", *map(str, script)], env=known, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert run.stdout is not None
    said = b""
    while b"Iter(train)" not in said:
        line = run.stdout.readline()
        assert line, said.decode()[-3000:]
        said += line
    run.send_signal(signal.SIGTERM)
    said += run.communicate(timeout=60)[0]
    assert run.returncode == 75, said.decode()[-3000:]
    assert b"Traceback" not in said  # of torchrun
    saved = load_local(str(tmp_path / "run/interrupted.pth"))
    assert len(saved["run_state"]["processes"]) == 2


# ---- Slurm


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """A folder with a srun and a scontrol that do on this machine what Slurm's do; for PATH."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    stubs = {"srun": SRUN.format(python=sys.executable), "scontrol": "#!/bin/sh\necho 127.0.0.1\n"}
    for name, text in stubs.items():
        path = folder / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "SLURM_NODELIST": "node[1-2]", "SLURM_JOB_ID": str(os.getpid())}


def test_slurm_trains_saves_when_it_is_preempted_and_tests(
    data: Path, tmp_path: Path, slurm: dict[str, str]
) -> None:
    config = write_config("segmentation", data, tmp_path / "job", [(3, 1, "terminate")])
    work_dir = tmp_path / "job/run"
    slurm |= {"GPUS": "2", "SRUN_ARGS": "--comment tried"}
    done = bash("slurm_train.sh", "gpu", "job", config, "--work-dir", work_dir, **slurm)
    assert done.code == 75, done.err[-3000:]
    for words in ("'partition': 'gpu'", "'gres': 'gpu:2'", "'ntasks': '2'", "'comment': 'tried'"):
        assert words in done.out
    checkpoint = work_dir / "interrupted.pth"
    assert load_local(str(checkpoint))["meta"]["iter"] == 3

    arguments = ("gpu", "job", config, checkpoint, "--work-dir", tmp_path / "tested")
    passed(bash("slurm_test.sh", *arguments, **slurm))
    assert '"mIoU"' in (tmp_path / "tested/metrics.json").read_text()


@pytest.mark.parametrize("tool", ["slurm_train.sh", "slurm_test.sh"])
def test_slurm_scripts_refuse_what_cannot_start(tool: str, slurm: dict[str, str]) -> None:
    few = bash(tool, "partition", "job")
    assert few.code == 2 and f"bash tools/{tool} PARTITION JOB_NAME CONFIG" in few.err
    none = bash(tool, *"abcd", **slurm, GPUS="many")
    assert none.code == 2 and "GPUS must be a positive number, got 'many'" in none.err
    absent = bash(tool, *"abcd", PATH="/usr/bin:/bin")
    assert absent.code == 2 and "there is no srun here" in absent.err


def test_outside_of_slurm_its_launcher_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PROCID", "NTASKS", "LOCALID"):
        monkeypatch.delenv(f"SLURM_{name}", raising=False)
    with pytest.raises(UserError, match=r"SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID not set"):
        export_slurm_rank()


# ---- other mistakes


def test_one_training_at_a_time_in_a_work_directory(tmp_path: Path) -> None:
    hold = (
        "import sys; from mmengine_agent.run.lock import lock_work_dir; lock_work_dir(sys.argv[1]);"
        "print('claimed', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as first:
        assert first.stdout is not None and first.stdout.readline() == b"claimed\n"
        with pytest.raises(UserError, match=f"another training writes there .process {first.pid}"):
            lock_work_dir(tmp_path)
        first.kill()
    lock_work_dir(tmp_path)  # whatever ended the first one


@pytest.mark.parametrize("setting", [{"strategy": {"type": "FSDPStrategy"}}, {"runner_type": "X"}])
def test_another_runner_is_refused_and_not_ignored(setting: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="FSDP and DeepSpeed are not supported"):
        build_runner(Config({"launcher": "none", **setting}))


def test_a_bad_number_of_restarts_is_refused() -> None:
    done = bash("dist_train.sh", "config.py", 2, MAX_RESTARTS="often")
    assert done.code == 2 and "MAX_RESTARTS must be a number, got 'often'" in done.err


def test_norms_of_several_cpu_processes_need_no_gpu() -> None:
    neck = {"type": "Mine", "norm_cfg": {"type": "SyncBN", "eps": 1e-3}}
    cfg = Config({"model": {"type": "mmdet.RTMDet", "neck": neck}})
    fit_to_cpu(cfg)
    assert cfg.model.neck.norm_cfg == {"type": "BN", "eps": 1e-3}
    assert cfg.model.use_syncbn is False  # its own default makes SyncBN of any norm
