"""Mistakes on the command line: one message that names thing, place and fix."""

from pathlib import Path

import pytest
import torch
from tool_runs import ADE, ADE_DEMO, COCO, COCO_DEMO, CONFIGS, bash, python, refusal

# the tool, its arguments, and what the message must name
MISTAKES: dict[str, tuple[str, list[str], list[str]]] = {
    "no COCO": (
        "train.py",
        ["{configs}/" + COCO],
        [
            "data/coco/annotations/instances_train2017.json",
            "data/coco/annotations/instances_val2017.json",
            "data/coco/train2017",
            "data/coco/val2017",
            "--data-root",
            "make demo",
        ],
    ),
    "no ADE20K": (
        "train.py",
        ["{configs}/" + ADE],
        [
            "data/ade/ADEChallengeData2016/images/training",
            "data/ade/ADEChallengeData2016/annotations/validation",
            "--data-root",
            "make demo",
        ],
    ),
    "nothing to test on": (
        "test.py",
        ["{configs}/" + COCO_DEMO, "{checkpoint}"],
        ["data/demo/coco", "make_demo_data.py"],
    ),
    "no config": ("train.py", ["nowhere.py"], ["nowhere.py", "configs/"]),
    "no config to test": ("test.py", ["nowhere.py", "{checkpoint}"], ["nowhere.py", "configs/"]),
    "a config with a slip": ("train.py", ["{broken}"], ["{broken}", "SyntaxError"]),
    "an unknown model": (
        "train.py",
        ["{configs}/" + COCO_DEMO, "--data-root", "{coco}", "--cfg-options", "model.type=NoSuch"],
        ["NoSuch"],
    ),
    "no weights for COCO": (
        "train.py",
        ["{configs}/" + COCO, "--data-root", "{coco}"],
        ["checkpoints/agent_pvt_t.pth", "docs/weights.md", "--from-scratch"],
    ),
    "no weights for ADE20K": (
        "train.py",
        ["{configs}/" + ADE, "--data-root", "{ade}"],
        ["checkpoints/agent_pvt_t.pth", "docs/weights.md", "--from-scratch"],
    ),
    "no checkpoint to test": (
        "test.py",
        ["{configs}/" + COCO_DEMO, "nowhere.pth", "--data-root", "{coco}"],
        ["nowhere.pth"],
    ),
    "a damaged checkpoint": (
        "test.py",
        ["{configs}/" + ADE_DEMO, "{broken}", "--data-root", "{ade}"],
        ["{broken}"],
    ),
    "no checkpoint to resume": (
        "train.py",
        ["{configs}/" + COCO_DEMO, "--data-root", "{coco}", "--resume", "nowhere.pth"],
        ["--resume", "nowhere.pth"],
    ),
    "predictions into a text file": (
        "test.py",
        ["{configs}/" + ADE_DEMO, "{checkpoint}", "--data-root", "{ade}", "--out", "out.txt"],
        ["--out", "out.txt", ".pkl"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message_and_exit_code_1(mistake: str, data: Path, tmp_path: Path) -> None:
    checkpoint, broken = tmp_path / "checkpoint.pth", tmp_path / "broken.py"
    torch.save({"state_dict": {}}, checkpoint)
    broken.write_text("model = dict(\n")
    places = {"configs": CONFIGS, "coco": data / "coco", "ade": data / "ade"}
    places |= {"checkpoint": checkpoint, "broken": broken}
    tool, arguments, wanted = MISTAKES[mistake]
    empty = tmp_path / "empty"
    empty.mkdir()
    said = refusal(python(tool, *(each.format(**places) for each in arguments), cwd=empty))
    for words in wanted:
        assert words.format(**places) in said


@pytest.mark.parametrize("count", ["0", "two", "-1", "1.5", ""])
@pytest.mark.parametrize("tool", ["dist_train.sh", "dist_test.sh"])
def test_a_bad_number_of_processes_is_refused(tool: str, count: str, tmp_path: Path) -> None:
    checkpoint = ["nowhere.pth"] if tool == "dist_test.sh" else []
    done = bash(tool, str(CONFIGS / ADE_DEMO), *checkpoint, count, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"GPUS must be a positive number, got '{count}'" in done.stderr


@pytest.mark.parametrize("tool", ["dist_train.sh", "dist_test.sh"])
def test_too_few_arguments_show_how_it_is_called(tool: str, tmp_path: Path) -> None:
    done = bash(tool, str(CONFIGS / ADE_DEMO), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"bash tools/{tool} CONFIG" in done.stderr
