"""The study of resolution and agents: agents are changed as named, pictures joined, runs kept."""

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import demo_scenes
import make_demo_data
import numpy as np
import pytest
import resolution
import resolution_agents
import resolution_page
import torch
from helpers import small_backbone

WIDE, SQUARE = (512, 1536), (1024, 1024)


def run(tool: Any, monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> None:
    monkeypatch.setattr(sys, "argv", [tool.__file__, *map(str, arguments)])
    tool.main()


def test_settings_come_to_the_grids_that_they_are_named_for() -> None:
    grids = resolution_agents.grids_at
    published = ((12, 12), (16, 16), (28, 28), (28, 28))
    assert grids("rule", (512, 512)) == grids("published", (512, 512)) == published
    assert grids("rule", (256, 256)) == grids("half", (256, 256))
    assert grids("uncapped", SQUARE) == ((24, 24), (32, 32), (56, 56), (56, 56))
    assert grids("aspect", WIDE)[0] == (7, 21)
    names = resolution_agents.names_by_grids(WIDE)
    assert names[published] == ["published", "rule", "uncapped"]


@torch.no_grad()
def test_a_model_takes_other_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (
        small_backbone("pvt", agent_shapes=shapes).eval()
        for shapes in (((3, 3), (4, 4), (7, 7), (7, 7)), "rule")
    )
    other.load_state_dict(one.state_dict())
    image = torch.randn(1, 3, 288, 320)
    before = one(image)
    resolution_agents.set_agents(one, "rule")
    for found, wanted, old in zip(one(image), other(image), before, strict=True):
        assert torch.allclose(found, wanted, atol=1e-6)
        assert not torch.allclose(found, old, atol=1e-4)


@pytest.mark.parametrize("name", ["2x2", "1x3"])
def test_pictures_are_joined_row_by_row(tmp_path: Path, name: str) -> None:
    place = resolution_agents.PLACES[name]
    for kind, suffix in (("images", "jpg"), ("annotations", "png")):
        (tmp_path / kind / "validation").mkdir(parents=True)
        for number in range(7):
            picture = np.full((8, 8), number, np.uint8)
            cv2.imwrite(str(tmp_path / kind / "validation" / f"{number}.{suffix}"), picture)
    resolution.join_pictures(tmp_path, place)
    each = place.rows * place.columns
    joined = sorted((tmp_path / "annotations" / name).iterdir())
    assert len(joined) == 7 // each == len(list((tmp_path / "images" / name).iterdir()))
    labels = np.asarray(cv2.imread(str(joined[0]), -1))
    assert labels.shape == (8 * place.rows, 8 * place.columns)
    assert labels[::8, ::8].ravel().tolist() == list(range(each))


def test_scenes_have_the_layout_that_was_asked_for(tmp_path: Path) -> None:
    layout = demo_scenes.Layout((0.1, 0.2), (1, 1), 20)
    found = []
    for index in range(2, 5):
        picture, _, shapes = demo_scenes.make_scene(128, (0, 0, index), layout)
        assert picture.shape == (128, 128, 3)
        found += [max(shape["bbox"][2:]) for shape in shapes]
    assert len(found) > 3 * demo_scenes.DEMO.things / 2 and max(found) <= 0.2 * 128 + 2
    flags = ("--train", "1", "--val", "1", "--size", "64")
    assert make_demo_data.main([str(tmp_path / "out"), *flags, "--things", "9"]) == 0
    assert json.loads((tmp_path / "out/demo.json").read_text())["things"] == 9
    assert make_demo_data.main([str(tmp_path / "out"), *flags]) == 1  # that is another set


def test_a_run_is_trained_tested_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in set(resolution_agents.PLACES) - {"1x", "2x2"}:
        monkeypatch.delitem(resolution_agents.PLACES, name)
    layout = demo_scenes.Layout((0.2, 0.5), (1, 1), 5)
    make_demo_data.generate(tmp_path / "data/scenes-4-4-64-5", 4, 4, 64, layout=layout)
    shapes = ("--extent", 0.2, 0.5, "--things", 5)
    sizes = ("--size", 64, "--train-images", 4, "--test-images", 4)
    flags = (
        "--out",
        tmp_path,
        "--budget",
        2,
        "--batch",
        1,
        "--seeds",
        0,
        "--bfloat16",
        *sizes,
        *shapes,
    )
    run(resolution, monkeypatch, *flags, "--only", "scenes-base-seed0")
    (path,) = tmp_path.glob("*.json")
    result = json.loads(path.read_text())
    assert path.stem == "scenes-base-seed0-2x1at64-bfloat16" and result["agents"] == "base"
    assert result["extent"] == [0.2, 0.5]
    scores = result["scores"]
    assert [scores[name]["sizes"] for name in ("1x", "2x2")] == [[[64, 64, 4]], [[128, 128, 1]]]
    for each in scores.values():
        assert each["iou"].keys() == resolution_agents.SETTINGS.keys()
        assert each["iou"]["base"] == each["iou"]["rule"]  # the same grids, of so small pictures
        assert len(each["iou"]["base"]) == len(each["pixels"]) == 8
    capsys.readouterr()
    run(resolution, monkeypatch, *flags, "--list")
    left = capsys.readouterr().out.split()
    assert "scenes-base-seed0" not in left and "scenes-bounded-seed0" in left


def test_costs_are_measured_once_for_equal_grids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in set(resolution_agents.PLACES) - {"1x"}:
        monkeypatch.delitem(resolution_agents.PLACES, name)
    run(resolution, monkeypatch, "--out", tmp_path, "--size", 64, "--costs")
    records = json.loads((tmp_path / "costs.json").read_text())["records"]
    by = {name: record for record in records for name in record["agents"]}
    assert by.keys() == resolution_agents.SETTINGS.keys() and len(records) == 4
    assert by["base"] is by["rule"]
    order = [by[name]["multiply_adds"] for name in ("bounded", "base", "half", "published")]
    assert order == sorted(order) and all(record["peak_memory"] > 0 for record in records)


def result(agents: str, seed: int, base: float, rule: float) -> dict[str, Any]:
    iou = {
        name: [0.5, 0.5, 0.5, rule if name == "rule" else base]
        for name in resolution_agents.SETTINGS
    }
    scores = {"1x": {"pixels": [4, 3, 2, 1], "iou": iou, "sizes": [[64, 64, 4]]}}
    return {
        **{"data": "scenes", "agents": agents, "seed": seed, "scores": scores, "budget": 2},
        **{"batch": 2, "size": 512, "rate": 5e-4, "bfloat16": True, "extent": [0.03, 0.12]},
        **{"gpu": None, "cpu": "CPU", "threads": 1, "torch": "2"},
    }


def test_the_page_has_differences_within_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, new = tmp_path / "page.md", tmp_path / "new"
    marks = (f"<!-- {name}: begin -->old<!-- {name}: end -->" for name in ("costs", "study"))
    page.write_text("\n".join(marks))
    new.mkdir()
    runs = [result("base", 0, 0.1, 0.3), result("base", 1, 0.3, 0.5), result("rule", 0, 0.2, 0.2)]
    for number, each in enumerate(runs):
        (new / f"{number}-seed.json").write_text(json.dumps(each))
    record = {"size": [64, 64], "agents": ["base", "rule"], "grids": [[3, 3], [4, 4]]}
    record |= {"median": 0.5, "peak_memory": 1 << 20, "multiply_adds": 10**9}
    head = {"gpu": None, "cpu": "CPU", "threads": 2, "dtype": "float32", "torch": "2", "date": ""}
    costs = json.dumps({**head, "device": "cpu", "records": [record]})
    (new / "costs.json").write_text(costs)
    kept = tmp_path / "kept"
    for more in (("--study", new), ()):  # new ones are kept
        run(resolution_page, monkeypatch, *more, "--kept", kept, "--page", page)
        text = page.read_text()
        assert "| 1x | 0.425 ± 0.035 | 0.425 |" in text  # base, rule: mIoU
        assert "| base | 1x | 0 | 0 | 0 | **+5.0 ± 0.0** | 0 | 0 | 0 |" in text
        assert "| base | 1x | 0 | 0 | 0 | **+6.7 ± 0.0** | 0 | 0 | 0 |" in text  # small classes
        assert "| 64x64 | base, rule | 3x3 4x4 | 1.0 | 500.0 | 1.0 |" in text and "old" not in text
    for picture in resolution_page.PICTURES.values():
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
