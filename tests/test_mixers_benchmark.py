"""The comparison of mixers: what cannot run has its reason, runs go on, scores are shown right."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import costs_page
import cv2
import forms
import growth
import make_demo_data
import mixers
import numpy as np
import pytest
import study
import study_page
from helpers import SMALL

from agent_attention.backbones import pvt
from mmengine_agent.errors import UserError


def run(tool: Any, monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> None:
    monkeypatch.setattr(sys, "argv", [tool.__file__, *map(str, arguments)])
    tool.main()


# --- the plain forms


def test_mixers_are_compared_with_their_plain_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(pvt.ARCHS, "tiny", SMALL)
    flags = ("--mixers", "norm,aft_local", "--places", "stage3,model", "--rounds", "1")
    run(forms, monkeypatch, *flags, "--size", "64", "96", "--max-gib", 1e-4, "--out", tmp_path)
    records = json.loads((tmp_path / "forms.json").read_text())["records"]
    assert [(r["mixer"], r["place"]) for r in records] == [
        *(("norm", "stage3"), ("norm", "model")),
        *(("aft_local", "stage3"), ("aft_local", "model")),
    ]
    for record in records[:3]:
        assert all(record[figure][form] > 0 for figure in forms.FIGURES for form in record["saved"])
    assert records[3]["reason"] in capsys.readouterr().out


# --- the table


def test_mixers_are_compared_in_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(pvt.ARCHS, "tiny", {**SMALL, "num_heads": (1, 1, 1, 1)})
    flags = ("--place", "pvt", "--mixers", "norm,stripes", "--rounds", "1")
    sizes = ("--sizes", "96x64", "64x64", "--device", "cpu", "--threads", "1")
    run(mixers, monkeypatch, *flags, *sizes, "--out", tmp_path)
    assert (tmp_path / "mixers.png").read_bytes().startswith(b"\x89PNG")
    records = json.loads((tmp_path / "mixers.json").read_text())["records"]
    assert len(records) == 2 * 2 * 2  # modes, sizes, mixers
    for record in records:
        if record["mixer"] == "stripes":
            assert "even number of heads" in record["skipped"] and "median" not in record
        else:
            assert len(record["times"]) == 1 and record["peak_memory"] > 0
            assert (record["saved_bytes"] is None) == (record["mode"] == "inference")
    by = {(r["mixer"], r["mode"], r["size"][0]): r for r in records}
    macs = [by["norm", "inference", side]["multiply_adds"] for side in (64, 96)]
    assert macs[0] < macs[1] < 2 * macs[0]
    assert "stripes take an even number of heads" in capsys.readouterr().out


def record(side: int, seconds: float, memory: int, macs: int) -> dict[str, Any]:
    return {
        **{"size": [side, side], "median": seconds, "peak_memory": memory},
        "multiply_adds": macs,
    }


@pytest.mark.parametrize(
    ("known", "macs", "note"),
    [
        ([], 1, ""),
        ([record(100, 1, 10, 5)], 20, ""),  # 4 times the work
        ([record(100, 1, 10, 5)], 80, "would take about 16 s"),
        ([record(100, 3, 10, 5)], 5, "would take about 12 s"),  # at least as the pixels
        ([record(100, 1, 2 << 30, 5)], 20, "would take about 8 GiB"),
        ([record(50, 1, 1 << 26, 1), record(100, 1, 1 << 30, 5)], 20, "would take about 16 GiB"),
    ],
)
def test_what_would_be_too_much_is_left_out(
    known: list[dict[str, Any]], macs: int, note: str
) -> None:
    limits = growth.Limits(max_memory=5 << 30, max_seconds=10)
    found = {"size": [200, 200], "multiply_adds": macs}
    assert mixers.too_much(known, found, limits, least=10) == note
    assert known or mixers.too_much([], found, limits, least=11) == "would take at least 11 s"


@pytest.mark.parametrize("text", ["512", "16x512", "512x512x3", "512xlarge", "x512"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no HxW with sides from 32"):
        mixers.size(text)


# --- the study


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study's folder with its scenes; tests are at one resolution."""
    make_demo_data.generate(tmp_path / "data/scenes-4-2-64", train=4, val=2, size=64)
    monkeypatch.setattr(study, "FACTORS", (1.0,))
    return tmp_path


def begin(folder: Path, monkeypatch: pytest.MonkeyPatch, *more: Any) -> None:
    flags = ("--budget", 2, "--batch", 1, "--size", 64, "--save-every", 1, "--seeds", 0)
    images = ("--train-images", 4, "--test-images", 2)
    run(mixers, monkeypatch, "--study", folder, *flags, *images, *more)


def test_a_study_that_was_stopped_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = ("--tasks", "segmentor", "--rows", "norm", "--bfloat16")
    name = "segmentor-scenes-norm-seed0-2x1at64-bfloat16"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(study, "test", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        begin(folder, monkeypatch, *task)
    assert (folder / name / "iter_2.pth").is_file()  # trained, but not tested
    assert not list(folder.glob("*.json"))
    logged = study.losses(folder / name)

    begin(folder, monkeypatch, *task)
    assert study.losses(folder / name) == logged  # nothing was trained again
    result = json.loads((folder / f"{name}.json").read_text())
    assert 0 <= result["scores"]["1"]["mIoU"] <= 1
    assert result["mixers"] == ["norm"] * 4 and result["bfloat16"]
    assert not list(folder.rglob("*.pth"))
    assert "`norm`" in (folder / "summary.md").read_text()

    monkeypatch.setattr(study, "carry_out", None)
    begin(folder, monkeypatch, *task)  # all is done


def test_a_detector_is_studied_with_each_mixer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(folder, monkeypatch, "--tasks", "detector", "--rows", "norm,transnormer")
    for name in ("norm", "transnormer"):
        (path,) = folder.glob(f"detector-scenes-{name}-*.json")
        result = json.loads(path.read_text())
        assert result["scores"]["1"].keys() == {"coco/bbox_mAP", "coco/bbox_mAP_50"}
        logged = study.losses(path.with_suffix(""))  # each into its own folder
        assert len(logged) == 2 and result["last_loss"] == sum(logged) / 2


def test_photographs_are_linked_and_their_labels_shifted(tmp_path: Path) -> None:
    for part, count in (("train", 1), ("val", 7)):
        for folder in (part, f"{part}annot"):
            (tmp_path / folder).mkdir()
        for number in range(count):
            (tmp_path / part / f"{number}.jpg").write_bytes(b"jpg")
            labels = np.array([[0, 10, 11]], np.uint8)
            cv2.imwrite(str(tmp_path / f"{part}annot/{number}.png"), labels)
    out = tmp_path / "out"
    study.prepare_camvid(tmp_path, out, tests=3)
    found = sorted((out / "ade/annotations/validation").iterdir())
    assert [path.stem for path in found] == ["0", "2", "4"]
    assert cv2.imread(str(found[0]), -1).tolist() == [[1, 11, 0]]
    assert (out / "ade/images/validation/2.jpg").read_bytes() == b"jpg"
    with pytest.raises(UserError, match="no images in"):
        study.prepare_camvid(tmp_path / "out", tmp_path / "other", tests=3)


# --- the page


def result(mixer: str, seed: int, *scores: float, budget: int = 80) -> dict[str, Any]:
    by = {factor: {"mIoU": score} for factor, score in zip(("1", "2"), scores, strict=True)}
    return {
        **{"task": "segmentor", "data": "scenes", "mixer": mixer, "seed": seed, "scores": by},
        **{"budget": budget, "batch": 2, "size": 512, "rate": 5e-4, "bfloat16": True},
        **{"last_loss": 0.5, "gpu": None, "cpu": "CPU", "threads": 1, "torch": "2"},
    }


def test_the_page_is_made_from_kept_and_new_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, new, kept = tmp_path / "page.md", tmp_path / "new", tmp_path / "kept"
    names = ("costs", "study")
    marks = "\n".join(f"<!-- {name}: begin -->old<!-- {name}: end -->" for name in names)
    page.write_text(f"above\n{marks}\nbelow\n")
    new.mkdir()
    kept.mkdir()
    old = [result("norm", 0, 0.4, 0.3), result("norm", 1, 0.1, 0.1)]
    (kept / "mixers_study.jsonl").write_text("".join(json.dumps(r) + "\n" for r in old))
    more = [result("norm", 1, 0.6, 0.3), result("agent", 0, 0.55, 0.5)]
    more.append(result("agent", 0, 0.9, 0.9, budget=900))  # another plan: not compared
    for number, each in enumerate(more):
        (new / f"{number}-seed.json").write_text(json.dumps(each))
    head = {"gpu": None, "cpu": "CPU", "threads": 2, "dtype": "float32", "torch": "2", "date": ""}
    costs = [{"place": "vit", "mode": "training", "mixer": "norm", **record(64, 1.0, 1, 10**9)}]
    (tmp_path / "mixers.json").write_text(json.dumps({**head, "command": "it", "records": costs}))
    for _ in range(2):
        table = ("--table", tmp_path / "mixers.json")
        run(study_page, monkeypatch, "--study", new, *table, "--kept", kept, "--page", page)
        text = page.read_text()
        assert text.startswith("above\n") and text.endswith("\nbelow\n") and "old" not in text
        rows = [
            line for line in text.splitlines() if line.startswith("| `") and line.count("|") == 7
        ]
        assert rows == [
            "| `agent` | 0.550 | 0.500 | -0.050 | 0.500 | 0 |",
            "| `norm` | 0.500 ± 0.141 | 0.300 ± 0.000 | -0.200 | 0.500 ± 0.000 | 0, 1 |",
            "| `agent` | 0.900 | 0.900 | +0.000 | 0.500 | 0 |",
        ]
        assert len((kept / "mixers_study.jsonl").read_text().splitlines()) == 4
        assert "CPU, 2 thread(s), float32, torch 2" in text
    for picture in (study_page.PICTURE, costs_page.COSTS_PICTURE):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


def test_a_page_without_a_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("nothing")
    with pytest.raises(UserError, match="no place for the costs"):
        study_page.write_page(tmp_path / "page.md", {"costs": "text"})


def test_costs_have_reasons_where_there_are_no_figures() -> None:
    place = {"place": "pvt", "mode": "inference"}
    records = [
        {**place, "mixer": "agent", **record(64, 0.5, 1 << 20, 10**9)},
        {**place, "mixer": "aft_full", "size": [64, 64], "reason": "too large"},
        {**place, "mixer": "agent", **record(128, 2.0, 1 << 22, 4 * 10**9)},
    ]
    head = {"gpu": None, "cpu": "CPU", "threads": 2, "dtype": "float32", "torch": "2"}
    report = {**head, "date": "", "command": "it", "records": records}
    on_gpu = {**report, "gpu": "GPU", "dtype": "bfloat16", "records": records[:1]}
    groups = costs_page.by_machine([on_gpu, report])
    text = costs_page.costs_text(groups)
    assert groups == [[report], [on_gpu]] and text.count("**, CPU, float32") == 2
    assert text.index("CPU, 2 thread(s)") < text.index("- GPU, bfloat16") < text.index("**, GPU")
    names = [costs_page.costs_name({**each, "date": "2026-01-01"}) for each in (report, on_gpu)]
    assert names == [f"costs_2026-01-01_pvt_inference{e}.json" for e in ("", "_gpu_bfloat16")]
    assert "| `agent` | 1.0 | 500.0 | 1.0 | - | - | - |" in text
    assert "| `aft_full` | - | too large | - | - | - | - |" in text
    assert "| `agent` | 4.0 | 2000.0 | 1.00 | 4.0 | - | - | - | - |" in text


def test_of_costs_measured_twice_the_newer_count() -> None:
    place = {"place": "pvt", "mode": "inference", "mixer": "agent"}
    old, new = ({**place, **record(128, seconds, 1, 1)} for seconds in (1.0, 2.0))
    small = {**place, **record(64, 0.5, 1, 1)}
    reports = [{"date": "2026-02-01", "records": [new]}, {"date": "2026-01-01", "records": [old]}]
    reports.append({"date": "2026-03-01", "records": [small]})
    assert costs_page.newest_costs(reports) == [small, new]
