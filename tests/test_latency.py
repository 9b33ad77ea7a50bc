"""The benchmark of exported models scores what a candidate says, and counts its turns."""

import argparse
from pathlib import Path
from typing import Any

import cv2
import latency
import numpy as np
import pytest
from mmengine.registry import init_default_scope
from small_exports import write_network
from tool_runs import ADE_DEMO, CONFIGS

from agent_attention.runtime import Model, Result
from mmengine_agent.data.user_data import DataFlags, point_at
from mmengine_agent.errors import UserError
from mmengine_agent.run.setup import read_config
from mmengine_agent.task import task_of

NAMES = ("grass",)


@pytest.fixture
def cfg(data: Path) -> Any:
    cfg = read_config(str(CONFIGS / ADE_DEMO))
    task_of(cfg)
    init_default_scope(cfg.default_scope)
    point_at(cfg, DataFlags(root=str(data / "ade")))
    return cfg


def truths(data: Path) -> dict[bytes, np.ndarray]:
    """Labels from 0 by the image's pixels; what is ignored counts as any class."""
    found = {}
    for path in sorted((data / "ade/images/validation").iterdir()):
        file = data / "ade/annotations/validation" / f"{path.stem}.png"
        labels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED).astype(np.int64) - 1
        found[cv2.imread(str(path)).tobytes()] = labels.clip(0)
    return found


def test_what_is_right_scores_100_and_turns_are_counted(cfg: Any, data: Path) -> None:
    known, calls = truths(data), []

    def right(image: np.ndarray) -> Result:
        calls.append(image)
        return Result(NAMES, label_map=known[image.tobytes()])

    def wrong(image: np.ndarray) -> Result:
        return Result(NAMES, label_map=(known[image.tobytes()] + 1) % 8)

    images, shape = latency.timed_images(cfg, 2)
    assert images and all(image.shape == images[0].shape for image in images)
    assert shape == images[0].shape[:2]
    ways = [
        latency.Candidate(each.__name__, "fp32", lambda each=each: each) for each in (right, wrong)
    ]
    first, second = latency.measure(ways, cfg, images, rounds=3)
    assert first["score"] == 100 and second["score"] == 0
    assert len(first["times"]) == len(second["times"]) == 3
    assert len(calls) == 1 + len(known) + len(images) + 3
    first |= {"median": 0.002}
    second |= {"median": 0.001}
    assert latency.row(second, first)[3:] == ["1.0", "0.50", "0.0", "-100.0"]


def test_int8_is_the_exported_file_written_anew(
    monkeypatch: pytest.MonkeyPatch, cfg: Any, data: Path, tmp_path: Path
) -> None:
    photos = data / "ade/images/training"
    asked: list[list[str]] = []

    def export(words: list[str]) -> argparse.Namespace:
        asked.append(words)
        write_network(Path(words[words.index("--out") + 1]))
        return argparse.Namespace(returncode=0)

    monkeypatch.setattr(latency.subprocess, "run", export)
    line = f"latency.py C W --data-root data --no-compile --calibration-images 2 --out {tmp_path}"
    for more, precisions in (("", ["fp32"]), (f" --calibration {photos}", ["fp32", "int8"])):
        monkeypatch.setattr("sys.argv", (line + more).split())
        args = latency.parse_args()
        files = latency.exported_files(cfg, args, (64, 96))
        assert [*files] == precisions
        ways = latency.candidates(cfg, args, files)
        assert ways[0].name == latency.EAGER and "ONNX Runtime" in {way.name for way in ways}
    assert len(asked) == 2 and asked[-1][-2:] == ["64", "96"]
    assert [Model(path).facts["precision"] for path in files.values()] == ["fp32", "int8"]


def test_images_for_int8_that_are_not_there_are_said_first(
    monkeypatch: pytest.MonkeyPatch, cfg: Any
) -> None:
    monkeypatch.setattr("sys.argv", ["latency.py", "C", "W", "--calibration", "nowhere"])
    monkeypatch.setattr(latency.subprocess, "run", None)
    with pytest.raises(UserError, match="--calibration nowhere"):
        latency.exported_files(cfg, latency.parse_args(), (64, 96))


def test_the_table_goes_between_the_marks_of_a_page(
    monkeypatch: pytest.MonkeyPatch, cfg: Any, data: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- latency: begin -->\nold\n<!-- latency: end -->\nafter\n")
    found = {"name": latency.EAGER, "precision": "fp32", "first": 1.0, "median": 0.002, "score": 70}
    for name, answer in (("exported_files", {}), ("candidates", []), ("measure", [found])):
        monkeypatch.setattr(latency, name, lambda *_, answer=answer: answer)
    line = ["latency.py", str(CONFIGS / ADE_DEMO), "W", "--data-root", str(data / "ade")]
    monkeypatch.setattr("sys.argv", [*line, "--page", str(page), "--out", str(tmp_path / "out")])
    latency.main()
    text = page.read_text()
    assert text.startswith("before") and text.endswith("after\n") and "old" not in text
    assert "*Measured here*" in text and "| 2.0 " in text and "| 70.0 " in text
