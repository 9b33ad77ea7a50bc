"""The console command: its list, its names, its configs, and how wrong command lines end."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from command_lines import Line, call, generate, make_files
from mmengine.fileio import load
from tool_runs import ROOT

from agent_toolkit.commands import overview
from mmengine_agent.command_names import COMMANDS, as_called
from mmengine_agent.config_names import known_configs, locate_config
from mmengine_agent.errors import UserError


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """The command in a process that has the standard library alone."""
    command = [sys.executable, "-S", "-m", "agent_toolkit.commands", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_help_needs_the_standard_library_alone() -> None:
    done = run("--help")
    assert (done.returncode, done.stdout, done.stderr) == (0, overview() + "\n", "")


def test_configs_are_listed_without_torch() -> None:
    done = run("configs", "DEMO", "swin")
    assert done.stdout.split() == ["agent_swin_maskrcnn_demo", "agent_swin_upernet_demo"]
    assert run("configs", "no-such").returncode == 1


def test_a_list_that_is_cut_short_by_a_pipe_is_no_error() -> None:
    line = f"{sys.executable} -S -m agent_toolkit.commands configs --paths | head -1"
    done = subprocess.run(line, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.count("\n") == 1 and done.stderr == ""


def test_what_a_command_needs_is_named() -> None:
    done = run("train", "x")
    assert (done.returncode, done.stdout) == (1, "")
    assert "agent-attention train needs" in done.stderr and "pip install" in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_a_module_with_a_main(name: str) -> None:
    assert callable(import_module(f"agent_toolkit.commands.{name}").main)
    script = COMMANDS[name][1]
    assert script is None or (ROOT / f"tools/{script}.py").is_file()


def test_help_names_the_program_that_was_called(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "python tools/prepare_data.py check, python tools/demo.py and tools/train.py"
    assert as_called(text) == text
    monkeypatch.setattr(sys, "argv", ["agent-attention data"])
    ours = "agent-attention data check, python tools/demo.py and agent-attention train"
    assert as_called(text) == ours
    found = call(Line(("data", "check", "--help"), ()))
    assert found.code == 0 and "usage: agent-attention data check" in found.out


def test_names_are_of_one_config_each_and_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [path for path in (ROOT / "configs").rglob("*.py") if "_base_" not in path.parts]
    assert sorted(known_configs().values()) == sorted(files)
    monkeypatch.chdir(tmp_path)
    for name in ("agent_pvt_maskrcnn_demo", "configs/demo/agent_pvt_maskrcnn_demo.py"):
        assert locate_config(name) == ROOT / "configs/demo/agent_pvt_maskrcnn_demo.py"
    (tmp_path / "agent_pvt_maskrcnn_demo").write_text("")  # a file of the user's goes first
    assert locate_config("agent_pvt_maskrcnn_demo") == Path("agent_pvt_maskrcnn_demo")


@pytest.mark.parametrize(
    "name", ["agent_pvt_maskrcn_demo", "mine/agent_pvt_maskrcnn_demo", "/configs/x.py", "", "."]
)
def test_a_wrong_name_is_refused_with_the_nearest(name: str) -> None:
    with pytest.raises(UserError, match="there is no config") as error:
        locate_config(name)
    assert ("did you mean agent_pvt_maskrcnn_demo?" in str(error.value)) == ("mask" in name)


@pytest.mark.parametrize("line", [*generate(16, seed=7)], ids=lambda line: " ".join(line.words))
def test_a_wrong_command_line_ends_with_one_message_and_writes_nothing(
    line: Line, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_files(tmp_path, data)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    found = call(line)
    assert not found.faults(), found
    assert sorted(tmp_path.iterdir()) == before


def test_metafiles_name_weights_where_there_is_an_address() -> None:
    """mim calls the file what stands behind the last slash; no server gets a fragment."""
    metafiles = load(ROOT / "model-index.yml")["Import"]
    models = [model for path in metafiles for model in load(ROOT / path)["Models"]]
    for model in models:
        address = model["Metadata"]["Published Weights"]
        named = f"{address}#/{model['Name']}.pth"
        assert model.get("Weights") == (named if "://" in address else None)
    assert {model["Name"] for model in models} <= known_configs().keys()
