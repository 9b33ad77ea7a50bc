"""Nothing lost: resuming that is exact, signals that save."""

import faulthandler
import os
import signal
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import seed_weights, small_pvt
from mmengine.config import Config
from stop_hooks import add_hook, scramble
from tiny_runs import LAST, difference, make_data, tiny, toy, train

from mmengine_agent.errors import UserError
from mmengine_agent.hooks.resume import ExactResumeHook
from mmengine_agent.resume.newest import newest_whole
from mmengine_agent.resume.switch_on import make_resumable
from mmengine_agent.run.exit import RESUME_ME

pytest_plugins = ["run_fixtures"]
pytestmark = pytest.mark.usefixtures("signals")
TASKS = ("detection", "segmentation")


@pytest.fixture(scope="module", params=TASKS)
def reference(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """An uninterrupted run without workers, and its checkpoints in the middle and at an end."""
    task = request.param
    parent = tmp_path_factory.mktemp(task)
    data, folder = make_data(parent / "data"), parent / "run"
    cfg = tiny(task, data, folder, **{"default_hooks.checkpoint.max_keep_ckpts": -1})
    train(add_hook(cfg, "SaveInTheMiddle", after=3, into=str(parent / "middle.pth")), seed=1)
    end = folder / ("epoch_1.pth" if task == "detection" else "iter_4.pth")
    places = {"middle": parent / "middle.pth", "end": end}
    return {"task": task, "data": data, "last": folder / LAST[task], **places}


# the other pairs are in test_faults.py: recipes of both tasks with workers, a segmentor without
WORKERS = {("detection", "end"): 2, ("segmentation", "middle"): 2}


@pytest.mark.parametrize("place", ["middle", "end"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    reference: dict[str, Any], place: str, tmp_path: Path
) -> None:
    workers = WORKERS.get((reference["task"], place), 0)
    scramble()
    cfg = tiny(reference["task"], reference["data"], tmp_path, workers)
    train(cfg, resume=reference[place])  # without a seed: it is the checkpoint's
    assert difference(tmp_path / LAST[reference["task"]], reference["last"]) is None


@pytest.mark.parametrize("by_epoch", [True, False])
@pytest.mark.parametrize("after", [1, 2, 3, 6, 8, 11])
def test_resuming_after_any_iteration_is_exact(
    after: int, by_epoch: bool, toy_weights: dict[bool, Path], tmp_path: Path
) -> None:
    """Also after the last of an epoch and before a validation that is due."""
    cfg = add_hook(toy(tmp_path, by_epoch), "SendSignal", number=signal.SIGTERM, iteration=after)
    with pytest.raises(SystemExit) as caught:
        train(cfg, seed=1)
    assert caught.value.code == RESUME_ME
    assert Path((tmp_path / "last_checkpoint").read_text()) == tmp_path / "interrupted.pth"
    scramble()
    cfg = toy(tmp_path, by_epoch)
    runner = train(cfg, resume=newest_whole(cfg, pytest.fail))
    assert difference(tmp_path / toy_weights[by_epoch].name, toy_weights[by_epoch]) is None
    assert not (tmp_path / "interrupted.pth").exists()
    if not cfg.train_dataloader.num_workers:  # what was drawn before is not read again
        assert len(runner.train_dataloader.dataset.read) == 4 * (12 - after)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("by_epoch", [True, False])
def test_a_validation_that_is_broken_off_is_done_again(
    by_epoch: bool, number: int, toy_weights: dict[bool, Path], tmp_path: Path
) -> None:
    cfg = add_hook(toy(tmp_path, by_epoch), "SendSignal", number=number, validation=True)
    cfg.custom_hooks.append({"type": "EMAHook"})
    with pytest.raises(SystemExit):
        train(cfg, seed=1)
    cfg = toy(tmp_path, by_epoch)
    cfg.custom_hooks.append({"type": "EMAHook"})
    train(cfg, resume=newest_whole(cfg, pytest.fail))

    cfg = toy(tmp_path / "whole", by_epoch)
    cfg.custom_hooks.append({"type": "EMAHook"})
    train(cfg, 1)
    name = toy_weights[by_epoch].name
    assert difference(tmp_path / name, tmp_path / "whole" / name) is None


def test_a_run_from_before_optimizers_were_fused_goes_on_as_it_was(tmp_path: Path) -> None:
    assert toy(tmp_path).optim_wrapper.optimizer.fused
    plain = {"optim_wrapper.optimizer": {"type": "Adam", "lr": 0.05, "fused": None}}
    train(toy(tmp_path / "whole", **plain), 1)
    cfg = add_hook(toy(tmp_path, **plain), "SendSignal", number=signal.SIGTERM, iteration=8)
    with pytest.raises(SystemExit):
        train(cfg, seed=1)
    cfg = toy(tmp_path)
    runner = train(cfg, resume=newest_whole(cfg, pytest.fail))
    assert difference(tmp_path / "epoch_4.pth", tmp_path / "whole/epoch_4.pth") is None
    assert not runner.optim_wrapper.param_groups[0]["fused"]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_fused_steps_are_the_plain_ones(layout: torch.memory_format) -> None:
    image = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    ends = []
    for fused in (False, True):
        model = seed_weights(small_pvt()).to(memory_format=layout)  # its convolutions' weights
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused)
        sum(out.square().mean() for out in model(image.to(memory_format=layout))).backward()
        for _ in range(3):
            optimizer.step()
        ends.append(model.state_dict())
    for name, plain in ends[0].items():
        torch.testing.assert_close(ends[1][name], plain, atol=1e-6, rtol=1e-5, msg=name)


def test_gradients_of_a_step_that_is_not_complete_are_kept(tmp_path: Path) -> None:
    settings = {"optim_wrapper.accumulative_counts": 5}
    train(toy(tmp_path / "whole", **settings), 1)
    cfg = add_hook(toy(tmp_path, **settings), "SendSignal", number=signal.SIGTERM, iteration=8)
    with pytest.raises(SystemExit):
        train(cfg, seed=1)
    cfg = toy(tmp_path / "on", log_level="WARNING", **settings)
    train(cfg, resume=newest_whole(toy(tmp_path), pytest.fail))
    assert difference(tmp_path / "on/epoch_4.pth", tmp_path / "whole/epoch_4.pth") is None
    (log,) = (tmp_path / "on").glob("*/*.log")  # mmengine would say that they are lost
    assert "gradient" not in log.read_text()


def test_early_stopping_counts_on(tmp_path: Path) -> None:
    stop = {"type": "EarlyStoppingHook", "monitor": "accuracy", "rule": "less", "patience": 2}
    stop["min_delta"] = 1e9  # the second score that is not better ends the run
    lengths = []
    for folder, signals in ((tmp_path / "whole", False), (tmp_path / "parts", True)):
        cfg = toy(folder, **{"train_cfg.max_epochs": 9})
        cfg.custom_hooks.append(stop)
        if signals:
            with pytest.raises(SystemExit):
                train(add_hook(cfg, "SendSignal", number=signal.SIGTERM, iteration=8), 1)
            cfg = toy(folder, **{"train_cfg.max_epochs": 9})
            cfg.custom_hooks.append(stop)
            lengths.append(train(cfg, resume=newest_whole(cfg, pytest.fail)).epoch)
        else:
            lengths.append(train(cfg, 1).epoch)
    assert lengths[0] == lengths[1] < 9


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    torch.save({"state_dict": {"weight": torch.zeros(2)}, "optimizer": {}, "meta": {}}, other)
    with pytest.raises(UserError, match="has 0 of the model's 2 weights"):
        train(toy(tmp_path / "resumed"), resume=other)
    cfg = toy(tmp_path / "begun", load_from=str(other))
    with pytest.raises(UserError, match="has 0 of the model's 2 weights"):
        train(cfg)
    weights = {"layer.weight": torch.zeros(1, 4), "layer.bias": torch.zeros(1)}
    torch.save({"state_dict": weights, "meta": {}}, other)
    with pytest.raises(UserError, match=r"not of a run of this config .*no optimizer"):
        train(toy(tmp_path / "resumed"), resume=other)


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    cfg = add_hook(toy(tmp_path), "SendSignal", number=signal.SIGINT, iteration=2)
    add_hook(cfg, "SendSignal", number=signal.SIGINT, iteration=2)
    next(hook for hook in cfg.custom_hooks if hook["type"] == "InterruptHook")["patience"] = 0.0
    with pytest.raises(KeyboardInterrupt):
        train(cfg, 1)


def in_two_processes(folder: Path, **arguments: Any) -> list[int]:
    """Go on with, or begin, a toy run in two processes over gloo; their exit codes."""
    meeting = folder / f"meeting{len(list(folder.glob('meeting*')))}"
    folder.mkdir(exist_ok=True)
    # pytest's watch over hangs is a thread, for which a forked process would wait for ever
    faulthandler.cancel_dump_traceback_later()
    children = []
    for rank in range(2):
        children.append(os.fork())
        if not children[-1]:
            os._exit(be_one_of_two(folder, meeting, rank, **arguments))
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def be_one_of_two(folder: Path, meeting: Path, rank: int, **arguments: Any) -> int:
    signal.alarm(240)  # processes that wait for each other for ever end so
    try:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=rank, world_size=2
        )
        scramble()
        cfg = toy(folder / "run")
        cfg.launcher = "pytorch"
        cfg.model_wrapper_cfg = {"type": "MMDistributedDataParallel", "device_ids": None}
        if arguments.pop("signal_to", None) == rank:
            add_hook(cfg, "SendSignal", number=signal.SIGTERM, iteration=3)
        train(cfg, resume=newest_whole(cfg, pytest.fail), **arguments)
    except SystemExit as done:
        return int(str(done.code))
    except BaseException:
        traceback.print_exc()
        return 70
    return 0


def test_two_processes_stop_together_and_go_on_exactly(tmp_path: Path) -> None:
    assert in_two_processes(tmp_path / "whole", seed=1) == [0, 0]
    assert in_two_processes(tmp_path / "parts", seed=1, signal_to=1) == [RESUME_ME] * 2
    assert (tmp_path / "parts/run/interrupted.pth").is_file()
    assert in_two_processes(tmp_path / "parts") == [0, 0]
    name = "run/epoch_4.pth"
    assert difference(tmp_path / "parts" / name, tmp_path / "whole" / name) is None


def validate_with_own_statistics(meeting: Path, rank: int) -> int:
    """One of two processes whose BN has other statistics: 0 if it validates with the first's."""
    signal.alarm(240)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=2
    )
    model = torch.nn.BatchNorm1d(3)
    model.running_mean.fill_(rank + 1)
    runner: Any = SimpleNamespace(model=model, world_size=2)
    ExactResumeHook().before_val(runner)
    return int(model.running_mean.tolist() != [1.0] * 3)


def test_all_processes_validate_what_is_saved(tmp_path: Path) -> None:
    """Without SyncBN each has its own statistics, and a checkpoint has those of the first."""
    children = []
    for rank in range(2):
        children.append(os.fork())
        if not children[-1]:
            code = 70
            try:
                code = validate_with_own_statistics(tmp_path / "meeting", rank)
            finally:
                os._exit(code)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]


def test_a_config_is_made_resumable_once(tmp_path: Path) -> None:
    cfg = toy(tmp_path)
    before = cfg.to_dict()
    make_resumable(cfg)
    assert cfg.to_dict() == before
    assert cfg.default_hooks.checkpoint.type == "SafeCheckpointHook"
    assert cfg.train_cfg.type == "ResumableEpochLoop"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, {"type": "SafeCheckpointHook"}),
        ({"default_hooks": {"timer": None}}, {"type": "SafeCheckpointHook"}),
        ({"default_hooks": {"checkpoint": None}}, None),
        ({"default_hooks": {"checkpoint": {"type": "Mine"}}}, {"type": "Mine"}),
    ],
)
def test_a_config_with_other_checkpoint_hooks(given: Any, wanted: Any) -> None:
    cfg = Config(given)
    make_resumable(cfg)
    assert cfg.default_hooks.checkpoint == wanted
