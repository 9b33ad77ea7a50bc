"""The published ImageNet files: pages and table agree, verify_zoo holds them to their scores."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import verify_zoo
from golden_cases import published_keys
from published_files import PUBLISHED

from mmengine_agent.published import IMAGENET_FILES

ROOT = Path(__file__).parents[1]


def verify(monkeypatch: pytest.MonkeyPatch, folder: Path, *flags: str) -> None:
    weights = ["--weights", str(folder), "--work-dir", str(folder / "work")]
    monkeypatch.setattr("sys.argv", ["verify_zoo.py", *weights, *flags])
    verify_zoo.main()


def test_the_page_has_the_files_of_the_table() -> None:
    page = (ROOT / "docs/weights.md").read_text()
    row = r"\| `checkpoints/(\w+)\.pth` \| (\S+), (\d+) px, top-1 ([\d.]+) \| `(\S+)` \|"
    listed = {
        name: (model, int(size), float(top1), address)
        for name, model, size, top1, address in re.findall(row, page)
    }
    assert listed == {
        name: (file.model, file.img_size, file.top1, file.address)
        for name, file in IMAGENET_FILES.items()
    }


def test_each_file_has_its_list_of_keys() -> None:
    older = {f"agent_{name}" for name in PUBLISHED}
    names = {name.replace("pvtv2", "pvt_v2") for name in IMAGENET_FILES}
    assert older <= names <= older | {*published_keys()}


def test_scores_are_held_against_the_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"agent_deit_b": 82.05, "agent_cswin_b_384": 84.0}

    def classify(command: list[Any], **options: Any) -> Any:
        tool, weights, *flags = command[1:]
        assert tool == ROOT / "tools/classify.py"
        given = dict(zip(flags[::2], flags[1::2], strict=True))
        assert given["--imagenet"] == tmp_path / "val"
        given["--json"].write_text(json.dumps({"top1": found[weights.stem], "images": 5}))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(verify_zoo.subprocess, "run", classify)
    (tmp_path / "val").mkdir()
    for name in found:
        (tmp_path / f"{name}.pth").touch()
    imagenet = ("--imagenet", str(tmp_path / "val"))
    verify(monkeypatch, tmp_path, *imagenet, "--only", "deit_b")
    assert "top-1     82.05  reported  82.00  +0.05" in capsys.readouterr().out
    with pytest.raises(verify_zoo.UserError, match=r"1\.80 points off"):
        verify(monkeypatch, tmp_path, *imagenet)
    assert capsys.readouterr().out.count("not evaluated: no") == len(IMAGENET_FILES) - 2
    with pytest.raises(verify_zoo.UserError, match=r"docs/weights\.md"):
        verify(monkeypatch, tmp_path, *imagenet, "--only", "resnet")
