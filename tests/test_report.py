"""The report: what a work directory holds, and the page that shows it."""

import base64
import hashlib
import json
import os
import re
import socket
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import fork_server
import make_demo_data
import numpy as np
import pytest
import torch
from html_page import Page
from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from predictions import coco_file, note, result, seg_record, seg_samples, square, write_images

from agent_toolkit.commands import report as report_tool
from mmengine_agent.predict.model import build_model
from mmengine_agent.report.charts import draw
from mmengine_agent.report.page import render
from mmengine_agent.report.record import FILE, add_record, write_record
from mmengine_agent.report.workdir import history, read_work_dir
from mmengine_agent.run.exit import run_tool
from mmengine_agent.run.setup import read_config

ROOT = Path(__file__).parents[1]
MATH = r"$\no{$"  # which matplotlib would take for a formula, and a wrong one
EVIL = "<script>alert(1)</script>"
SECTIONS = ["metrics", "curves", "classes", "precision", "confusion", "predictions"]
SECTIONS += ["config", "environment"]
TASKS = ("detection", "segmentation")


# ---- work directories ----


def write_log(work_dir: Path, run: str, lines: list[Any], resumed: bool = False) -> None:
    """The files that mmengine leaves of a run."""
    folder = work_dir / run / "vis_data"
    folder.mkdir(parents=True)
    (folder / "config.py").write_text(f"resume = {resumed}\n")
    (folder / "scalars.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (work_dir / run / f"{run}.log").write_text(
        f"INFO - \n{'-' * 60}\nSystem environment:\n    Python: 3.11 {EVIL}\n    OpenCV: 4.9\n"
        f"    PyTorch compiling details: PyTorch built with:\n  - GCC\n{'-' * 60}\n"
    )


def losses(*steps: int) -> list[dict[str, float]]:
    return [{"loss": 9 / step, "loss_cls": 4 / step, "lr": 0.1, "step": step} for step in steps]


def detection_test(work_dir: Path) -> None:
    """What a test of a detector leaves, through mmengine's own evaluator."""
    names = (EVIL, MATH, "_c")
    notes = [note(1, 0, 0, square(5, 5, 30)), note(2, 1, 1, square(40, 40, 30))]
    write_images(work_dir / "data/photos", 4)
    ann_file = coco_file(work_dir / "data/truth.json", 4, notes, names)
    evaluator = Evaluator(CocoMetric(ann_file, metric=["bbox", "segm"]))
    evaluator.dataset_meta = {"classes": names}
    loop = SimpleNamespace(evaluator=evaluator)
    record = add_record(SimpleNamespace(test_loop=loop), Config({"default_scope": "mmdet"}))
    first = result(0, (0, 0.9, square(6, 6, 30)), (2, 0.8, square(50, 6, 30)), masks=True)
    samples = []
    for image, found in enumerate((first, *(result(i, masks=True) for i in (1, 2, 3)))):
        tensors = {key: torch.from_numpy(found[key]) for key in ("bboxes", "labels", "scores")}
        prediction = {**tensors, "masks": found["masks"]}
        where = {"img_path": str(work_dir / f"data/photos/{image}.jpg"), "ori_shape": (96, 96)}
        samples.append({"img_id": image, **where, "pred_instances": prediction})
    finish(work_dir, evaluator.offline_evaluate(samples), record)


def segmentation_test(work_dir: Path) -> None:
    """What a test of a segmentor leaves."""
    paths = write_images(work_dir / "data/photos", 4)
    paths[0].unlink()  # a picture that is gone must not stop a test
    record, metrics = seg_record(seg_samples(4, 3, paths), [EVIL, MATH, "_c"])
    finish(work_dir, metrics, record)


def finish(work_dir: Path, metrics: dict[str, float], record: Any) -> None:
    facts = {"config": "config.py", "checkpoint": "last.pth"}
    numbers = {key: float(value) for key, value in metrics.items()}
    content = {**facts, "metrics": numbers, "seconds": 1.5}
    (work_dir / "metrics.json").write_text(json.dumps(content))
    write_record(record, work_dir, **facts)


@pytest.fixture(scope="module", params=TASKS)
def task(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def work_dir(task: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work directory of a training and a test."""
    folder = tmp_path_factory.mktemp(task)
    scope = {"detection": "mmdet", "segmentation": "mmseg"}[task]
    (folder / "config.py").write_text(f"default_scope = '{scope}'\nname = '</pre>{EVIL}'\n")
    metrics = {"coco/bbox_mAP": 0.5, "coco/bbox_mAP_l": -1, "mIoU": 50}
    write_log(folder, "20260101_000000", [*losses(10, 20, 30), {**metrics, "step": 30}])
    {"detection": detection_test, "segmentation": segmentation_test}[task](folder)
    return folder


@pytest.fixture(scope="module")
def page(work_dir: Path) -> Page:
    return Page.read(render(read_work_dir(work_dir)))


def test_every_section_is_there_once(page: Page) -> None:
    assert [attrs["id"] for tag, attrs in page.seen if tag == "section"] == SECTIONS
    assert max(Counter(page.attributes("id")).values()) == 1
    assert {*page.attributes("href")} == {"data:,", *(f"#{name}" for name in SECTIONS)}


def test_nothing_is_missing_after_a_training_and_a_test(page: Page, task: str) -> None:
    gone = [attrs for _, attrs in page.seen if attrs.get("class") == "missing"]
    assert len(gone) == (task == "segmentation")  # the picture that was removed
    assert ("could not be read when testing" in page.text()) == (task == "segmentation")


def test_the_page_fetches_nothing(page: Page) -> None:
    sources = [*page.attributes("src"), *page.attributes("href")]
    assert all(each.startswith(("data:", "#")) for each in sources)
    assert not re.search(r"url\(|@import", page.source)
    assert page.attributes("srcset") == []


def test_names_are_escaped_and_one_script_may_run(page: Page) -> None:
    scripts = page.inside("script")
    assert len(scripts) == len([tag for tag, _ in page.seen if tag == "script"]) == 1
    body = page.source.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
    (policy,) = [text for text in page.attributes("content") if "script-src" in text]
    assert f"script-src 'sha256-{digest}'" in policy
    shown = page.inside("th") + page.inside("span") + page.inside("td")
    assert EVIL in shown
    assert f"name = '</pre>{EVIL}'" in page.inside("pre")[0]
    assert f"3.11 {EVIL}" in page.inside("pre")[1]
    assert not [name for _, attrs in page.seen for name in attrs if name.startswith("on")]


def test_the_metrics_shown_are_those_of_metrics_json(page: Page, work_dir: Path) -> None:
    wanted = json.loads((work_dir / "metrics.json").read_text())["metrics"]
    shown = dict(zip(page.inside("dt"), page.inside("dd"), strict=True))
    assert shown.keys() == wanted.keys()
    for name, value in wanted.items():
        number = -1 if shown[name] == "\u2013" else float(shown[name])
        assert number == pytest.approx(value, abs=5e-5)


def test_the_last_row_of_the_classes_agrees_with_the_metrics(page: Page, work_dir: Path) -> None:
    wanted = json.loads((work_dir / "metrics.json").read_text())["metrics"]
    columns = json.loads((work_dir / FILE).read_text())["table"]["columns"]
    footer = [text for path, text in page.texts if "tfoot" in path][1:]
    shown = dict(zip(columns, map(float, footer), strict=True))
    names = {"box AP": "coco/bbox_mAP", "mask AP75": "coco/segm_mAP_75", "IoU": "mIoU"}
    pairs = [(shown[ours], wanted[theirs]) for ours, theirs in names.items() if ours in shown]
    assert pairs
    for ours, theirs in pairs:
        assert ours == pytest.approx(theirs, abs=6e-3 if "IoU" in shown else 6e-4)


def test_numbers_can_be_sorted(page: Page) -> None:
    cells = [attrs for tag, attrs in page.seen if tag == "td" and "data-value" in attrs]
    assert len(cells) >= 12
    for cell in cells:
        assert cell["class"] == "n"
        assert cell["data-value"] == "" or np.isfinite(float(cell["data-value"] or ""))


def test_pictures_are_the_best_and_the_worst(page: Page, work_dir: Path, task: str) -> None:
    pictures = json.loads((work_dir / FILE).read_text())["pictures"]
    assert [each["group"] for each in pictures] == {
        "detection": ["best", "worst"],  # two images have neither objects nor predictions
        "segmentation": ["best", "best", "worst", "worst"],
    }[task]
    assert pictures[0]["score"] > pictures[-1]["score"]
    readable = [each for each in pictures if Path(each["image"]).exists()]
    for each in readable:
        for side in ("truth", "prediction"):
            data = np.frombuffer(base64.b64decode(each[side]), np.uint8)
            assert max(cv2.imdecode(data, cv2.IMREAD_COLOR).shape) == 400
    jpegs = [each for each in page.attributes("src") if each.startswith("data:image/jpeg")]
    assert len(jpegs) == 2 * len(readable)


def test_charts_have_axes_and_names(page: Page, task: str) -> None:
    prefix = "data:image/svg+xml;base64,"
    charts = {
        attrs["alt"]: base64.b64decode(str(attrs["src"]).removeprefix(prefix)).decode()
        for tag, attrs in page.seen
        if tag == "img" and str(attrs["src"]).startswith(prefix)
    }
    assert {"Training loss", "Learning rate", "Validation: coco/bbox"} <= charts.keys()
    assert ("Box, IoU 0.5" in charts) == (task == "detection")
    assert "loss_cls" in charts["Training loss"]
    assert "coco/bbox_mAP_l" not in charts["Validation: coco/bbox"]  # -1 is no number
    for source in charts.values():
        assert "<svg" in source and "<text" in source
    if task == "detection":
        assert MATH in charts["Box, IoU 0.5"] and EVIL not in charts["Box, IoU 0.5"]


@pytest.mark.filterwarnings("error")
def test_nothing_is_said_while_a_chart_is_drawn() -> None:
    title, link = draw("losses", "iteration", {"one": ([1], [2]), "two": ([1, 2], [3, 4])})
    assert title == "losses" and link.startswith("data:image/svg+xml;base64,")


def test_the_page_is_small_for_many_classes(tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(150)]
    record, metrics = seg_record(seg_samples(12, 150, write_images(tmp_path / "i", 12)), names)
    finish(tmp_path, metrics, record)
    (tmp_path / "config.py").write_text("default_scope = 'mmseg'\n")
    source = render(read_work_dir(tmp_path))
    assert len(source) < 2e6
    titles = Page.read(source).attributes("title")
    assert titles[0].startswith("class 0, class 0: ")


@pytest.mark.parametrize("scope", ["mmdet", "mmseg"])
def test_what_is_missing_is_named_with_the_command_that_makes_it(
    tmp_path: Path, scope: str
) -> None:
    (tmp_path / "my config.py").write_text(f"default_scope = '{scope}'\n")
    (tmp_path / "last_checkpoint").write_text(f"{tmp_path}/epoch_1.pth")
    page = Page.read(render(read_work_dir(tmp_path)))
    assert [attrs["id"] for tag, attrs in page.seen if tag == "section"] == SECTIONS
    commands = [text for text in page.inside("code") if text.startswith("python tools/")]
    where = f"'{tmp_path}/my config.py'"
    test = f"python tools/test.py {where} {tmp_path}/epoch_1.pth --work-dir {tmp_path}"
    train = f"python tools/train.py {where} --work-dir {tmp_path}"
    assert Counter(commands) == {test: 6, train: 1}


def test_metrics_without_their_record_are_named(work_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text((work_dir / "config.py").read_text())
    for name in ("metrics.json", FILE):
        (tmp_path / name).write_text((work_dir / name).read_text())
    assert "of another test" not in Page.read(render(read_work_dir(tmp_path))).text()
    other = (tmp_path / FILE).read_text().replace("last.pth", "first.pth", 1)
    (tmp_path / FILE).write_text(other)
    assert "of another test: first.pth" in Page.read(render(read_work_dir(tmp_path))).text()
    (tmp_path / FILE).unlink()
    assert "left no record of the pictures" in Page.read(render(read_work_dir(tmp_path))).text()


# ---- curves ----


def test_a_resumed_training_is_one_curve(tmp_path: Path) -> None:
    write_log(tmp_path, "20260101_000000", losses(1, 2, 3))  # another training
    write_log(
        tmp_path, "20260102_000000", [*losses(10, 20), {"mIoU": 1.0, "step": 20}, *losses(30)]
    )
    write_log(tmp_path, "20260103_000000", [{"mIoU": 2.0, "step": 30}])  # a test
    write_log(tmp_path, "20260104_000000", losses(30, 40), resumed=True)
    found = history(tmp_path)
    assert [line["step"] for line in found if "loss" in line] == [10, 20, 30, 40]
    assert [line["mIoU"] for line in found if "mIoU" in line] == [1.0]


def test_half_a_line_of_a_killed_run_is_left_out(tmp_path: Path) -> None:
    write_log(tmp_path, "20260101_000000", losses(10, 20))
    with (tmp_path / "20260101_000000/vis_data/scalars.json").open("a") as file:
        file.write('{"loss": 0.')
    assert [line["step"] for line in history(tmp_path)] == [10, 20]


# ---- the tool ----


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the tool with some arguments; gives its exit code."""

    def call(*arguments: Any) -> Any:
        monkeypatch.setattr(sys, "argv", ["report.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            run_tool(report_tool.main)
        return done.value.code

    return call


def test_the_tool_writes_one_file(tool: Any, work_dir: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "new/mine.html"
    assert tool(work_dir, "--out", out) == 0
    assert [path.name for path in out.parent.iterdir()] == ["mine.html"]
    assert out.stat().st_size < 5e6
    Page.read(out.read_text())
    assert f"report: {out}" in capsys.readouterr().out


def test_a_mistake_is_one_message(tool: Any, tmp_path: Path, capsys: Any) -> None:
    inner = tmp_path / "parent/run"
    inner.mkdir(parents=True)
    (inner / "config.py").write_text("default_scope = 'mmdet'\n")
    (inner / "test.log").touch()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.py").write_text("default_scope = 'mmdet'\n")
    (broken / FILE).write_text('{"version"')
    cases: list[tuple[list[Any], list[str]]] = [
        ([tmp_path / "nowhere"], ["nowhere", "no work directory"]),
        ([tmp_path / "parent"], ["no config", "--work-dir"]),
        ([inner, "--out", tmp_path], ["--out", "directory"]),
        ([broken], [FILE, "test again"]),
        ([inner, "--checkpoint", tmp_path / "no.pth"], ["--checkpoint", "no.pth"]),
    ]
    for arguments, wanted in cases:
        assert tool(*arguments) == 1
        message = capsys.readouterr().err
        assert message.count("error: ") == 1 and "Traceback" not in message
        assert all(words in message for words in wanted), message
    assert not list(tmp_path.rglob("*.html"))


def test_two_processes_record_each_image_once(tool: Any, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    size = ("--train", "1", "--val", "3", "--size", "96")  # 3: one process repeats an image
    make_demo_data.main([str(data), *size])
    config = ROOT / "configs/demo/agent_pvt_semantic_fpn_demo.py"
    weights = build_model(read_config(str(config))).state_dict()
    torch.save({"state_dict": weights}, tmp_path / "any.pth")
    command = [ROOT / "tools/test.py", config, "any.pth", "--launcher", "pytorch"]
    command += ["--data-root", data / "ade", "--work-dir", out]
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    shared = {**os.environ, "MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    with (tmp_path / "log").open("w+") as log:
        both = [
            fork_server.start(
                command, tmp_path, {**shared, "RANK": rank, "LOCAL_RANK": rank}, None, log, log
            )
            for rank in "01"
        ]
        codes = [process.wait(120) for process in both]
        log.seek(0)
        assert codes == [0, 0], log.read()[-6000:]

    found = json.loads((out / FILE).read_text())
    metrics = json.loads((out / "metrics.json").read_text())["metrics"]
    labels = [cv2.imread(str(path), 0) for path in (data / "ade/annotations/validation").iterdir()]
    pixels = np.bincount(np.concatenate(labels, axis=None), minlength=9)[1:]  # 0 is ignored
    counts = np.array(found["confusion"]["counts"])
    assert (found["images"], len(found["pictures"])) == (3, 3)
    assert counts.sum(1).tolist() == pixels.tolist()
    assert 100 * counts.trace() / counts.sum() == pytest.approx(metrics["aAcc"], abs=6e-3)
    assert tool(out) == 0
    assert f"{metrics['mIoU']:.2f}".rstrip("0") in (out / "report.html").read_text()
