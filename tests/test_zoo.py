"""The model zoo: parameters, multiply-adds and scores of its rows, 23 published ones, and pages."""

import copy
import functools
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import cv2
import fork_server
import numpy as np
import pytest
import torch
import verify_zoo
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.hub import get_config
from mmengine.registry import MODELS, DefaultScope
from recipe_tables import RECIPES, Recipe

from agent_toolkit.commands import flops as get_flops
from mmengine_agent.errors import UserError
from mmengine_agent.task import task_of

ROOT = Path(__file__).parents[1]


class Published(NamedTuple):
    """A row of the published tables."""

    name: str
    scores: tuple[float, ...]  # box and mask AP, or mIoU and mAcc
    params: int  # millions
    gflops: int  # multiply-adds, billions


def mask_rcnn(backbone: str, schedule: str = "1x") -> str:
    return f"agent_{backbone[:-2]}/mask-rcnn_agent-{backbone}_fpn_{schedule}_coco"


def retinanet(backbone: str) -> str:
    return f"agent_{backbone[:-2]}/retinanet_agent-{backbone}_fpn_1x_coco"


def cascade(backbone: str, schedule: str) -> str:
    return f"agent_{backbone[:-2]}/cascade-mask-rcnn_agent-{backbone}_fpn_{schedule}_coco"


def semantic_fpn(backbone: str) -> str:
    return f"agent_{backbone[:-2]}/fpn_agent-{backbone}_8xb2-40k_ade20k-512x512"


def upernet(backbone: str) -> str:
    return f"agent_{backbone[:-2]}/upernet_agent-{backbone}_8xb2-160k_ade20k-512x512"


PUBLISHED = [
    Published(mask_rcnn("pvt-t"), (41.4, 38.7), 31, 230),
    Published(mask_rcnn("pvt-s"), (44.5, 41.2), 40, 293),
    Published(mask_rcnn("pvt-m"), (45.9, 42.0), 56, 400),
    Published(mask_rcnn("pvt-l"), (46.9, 42.8), 68, 510),
    Published(retinanet("pvt-t"), (40.3,), 21, 211),
    Published(retinanet("pvt-s"), (44.1,), 30, 274),
    Published(retinanet("pvt-m"), (45.8,), 46, 382),
    Published(retinanet("pvt-l"), (46.8,), 58, 492),
    Published(mask_rcnn("swin-t"), (44.6, 40.7), 48, 276),
    Published(mask_rcnn("swin-s"), (47.2, 42.7), 69, 364),
    Published(mask_rcnn("swin-t", "3x"), (47.3, 42.7), 48, 276),
    Published(mask_rcnn("swin-s", "3x"), (48.9, 43.8), 69, 364),
    Published(cascade("swin-t", "1x"), (49.2, 42.7), 86, 755),
    Published(cascade("swin-t", "3x"), (51.4, 44.5), 86, 755),
    Published(cascade("swin-s", "3x"), (52.6, 45.5), 107, 843),
    Published(cascade("swin-b", "3x"), (52.6, 45.3), 145, 990),
    Published(semantic_fpn("pvt-t"), (40.18, 51.76), 15, 147),
    Published(semantic_fpn("pvt-s"), (44.18, 56.17), 24, 211),
    Published(semantic_fpn("pvt-m"), (44.30, 56.42), 40, 321),
    Published(semantic_fpn("pvt-l"), (46.52, 58.50), 52, 434),
    Published(upernet("swin-t"), (46.68, 58.53), 61, 954),
    Published(upernet("swin-s"), (48.08, 59.78), 81, 1043),
    Published(upernet("swin-b"), (48.73, 60.01), 121, 1196),
]
every_row = pytest.mark.parametrize("row", PUBLISHED, ids=[row.name for row in PUBLISHED])
FURTHER = [each for name, each in RECIPES.items() if name not in {row.name for row in PUBLISHED}]
every_further = pytest.mark.parametrize("recipe", FURTHER, ids=[each.name for each in FURTHER])
# one of each family: counting takes about a second
COUNTED = list({each.model[1]: each for each in reversed(FURTHER)}.values())


@functools.cache
def config(name: str) -> Config:
    return Config.fromfile(ROOT / f"configs/{name}.py")


@functools.cache
def models() -> dict[str, dict[str, Any]]:
    """The metafiles' models by name."""
    metafiles = load(ROOT / "model-index.yml")["Import"]
    return {m["Name"]: m for path in metafiles for m in load(ROOT / path)["Models"]}


def is_detector(row: Published) -> bool:
    return row.name.endswith("coco")


def test_every_recipe_is_a_published_one_and_the_other_way_round() -> None:
    folders = [ROOT / "configs/agent_pvt", ROOT / "configs/agent_swin"]
    found = {f"{folder.name}/{path.stem}" for folder in folders for path in folder.glob("*.py")}
    assert found == {row.name for row in PUBLISHED}
    assert len(PUBLISHED) == 23


@functools.cache
def count(name: str) -> dict[str, get_flops.Count]:
    """Of a recipe's model; those of 12 and 36 epochs are one, and counting takes seconds."""
    cfg = config(name)
    for other in RECIPES:
        if other < name and config(other).model == cfg.model:
            return count(other)
    return get_flops.count(cfg.copy(), task_of(cfg).flops_shape)


@every_row
def test_parameters_and_flops_are_as_published(
    row: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = count(row.name)
    assert "counted in a run" not in capsys.readouterr().err  # shapes alone are enough
    model = counts["model"]
    assert abs(model.parameters / 1e6 - row.params) < 1
    assert abs(model.multiply_adds / 1e9 - row.gflops) <= 1.1
    top = sum(part.multiply_adds for name, part in counts.items() if "." not in name)
    assert top == 2 * model.multiply_adds  # the parts and the whole
    listed = models()[row.name.split("/")[1]]["Metadata"]
    assert (listed["Parameters"], listed["FLOPs"]) == (model.parameters, model.multiply_adds)


@pytest.mark.parametrize("recipe", COUNTED, ids=[each.name for each in COUNTED])
def test_parameters_and_flops_of_a_further_recipe_are_counted_here(recipe: Recipe) -> None:
    model = count(recipe.name)["model"]
    listed = models()[recipe.name.split("/")[1]]["Metadata"]
    assert (listed["Parameters"], listed["FLOPs"]) == (model.parameters, model.multiply_adds)


def stock(name: str, **changes: Any) -> Config:
    cfg = get_config(f"mmdet::{name}.py")
    cfg.merge_from_dict(changes)
    return cfg


def test_a_stock_config_is_counted() -> None:
    counts = get_flops.count(stock("rtmdet/rtmdet-ins_tiny_8xb32-300e_coco"), (64, 96))
    assert counts["model"].multiply_adds > counts["backbone"].multiply_adds > 0


def test_a_head_that_needs_the_values_of_an_image_is_counted_in_a_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    few = {f"model.{part}.num_layers": 1 for part in ("encoder", "decoder")}
    cfg = stock("dino/dino-4scale_r50_8xb2-12e_coco", **few, **{"model.num_queries": 20})
    counts = get_flops.count(cfg, (64, 96))
    assert counts["model"].multiply_adds > counts["backbone"].multiply_adds > 0
    assert "counted in a run on zeros" in capsys.readouterr().err


def test_what_cannot_be_counted_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"cannot count a RetinaNet: ") as error:
        get_flops.count(
            stock("retinanet/retinanet_r50_fpn_1x_coco", **{"model.neck.in_channels": [1] * 4}),
            (64, 96),
        )
    assert "\n" not in str(error.value)


@every_row
def test_scores_are_the_same_everywhere(row: Published) -> None:
    check_pages(row.name, row.scores)


@every_further
def test_a_further_recipe_has_the_same_numbers_everywhere(recipe: Recipe) -> None:
    check_pages(recipe.name, tuple(map(float, recipe.scores)))
    header = (ROOT / f"configs/{recipe.name}.py").read_text().split("_base_")[0]
    counted = re.search(r"counted here: (\d+)\)|(\d+) GFLOPs at \S+ \(counted here", header)
    assert counted is not None
    listed = models()[recipe.name.split("/")[1]]["Metadata"]
    assert int(counted.group(1) or counted.group(2)) == round(listed["FLOPs"] / 1e9)
    assert abs(listed["Parameters"] / 1e6 - recipe.parameters) < 1


def check_pages(row: str, scores: tuple[float, ...]) -> None:
    """Header, metafile, README and model zoo have the same numbers of a row."""
    folder, name = row.split("/")
    results = models()[name]["Results"]
    assert scores == tuple(value for part in results for value in part["Metrics"].values())
    header = (ROOT / f"configs/{row}.py").read_text().split("_base_")[0]
    assert all(
        f"{score:g}" in header.replace("0 mI", " mI").replace("0 mA", " mA") for score in scores
    )
    if scores:
        assert "reported by the authors" in header
    assert f"bash tools/dist_train.sh configs/{row}.py 8" in header
    for page in (ROOT / "docs/model_zoo.md", ROOT / f"configs/{folder}/README.md"):
        (line,) = [line for line in page.read_text().splitlines() if f"[{name}](" in line]
        meta = models()[name]["Metadata"]
        assert f"{meta['Parameters'] / 1e6:.1f} M" in line
        assert f"{meta['FLOPs'] / 1e9:.1f} G" in line
        assert all(f"{score:g}" in line for score in scores)
        assert line.endswith("| none |") == (not scores)


def test_no_link_of_the_pages_is_dead_or_empty() -> None:
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("configs/*/README.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)]*)\)", page.read_text()):
            assert target, page
            if not target.startswith("http"):
                assert (page.parent / target.split("#")[0]).exists(), (page, target)


def test_no_config_is_more_than_three_deep() -> None:
    def depth(path: Path) -> int:
        text = path.read_text()
        found = re.search(r"^_base_ = (\[[^\]]*\]|\"[^\"]*\")", text, re.MULTILINE)
        bases = re.findall(r'"([^"]+)"', found.group(1)) if found else []
        ours = [path.parent / base for base in bases if "::" not in base]
        theirs = [1] if len(ours) < len(bases) else []
        return max([1 + depth(base) for base in ours] + theirs, default=0)

    for name in RECIPES:
        assert depth(ROOT / f"configs/{name}.py") <= 3, name


# ---- verify_zoo ----


def run_verify(monkeypatch: pytest.MonkeyPatch, *flags: str) -> None:
    monkeypatch.setattr("sys.argv", ["verify_zoo.py", *flags])
    verify_zoo.main()


def fake_zoo(tmp_path: Path, name: str) -> list[str]:
    (tmp_path / "weights").mkdir()
    (tmp_path / f"weights/{name}.pth").touch()
    (tmp_path / "data/coco").mkdir(parents=True)
    return ["--weights", str(tmp_path / "weights"), "--data", str(tmp_path / "data")]


@pytest.mark.parametrize(
    ("found", "verdict"),
    [(40.31, None), (38.0, "2.30 points off"), (float("nan"), "inf points off")],
)
def test_verify_zoo_holds_scores_against_the_reported(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    found: float,
    verdict: str | None,
) -> None:
    name = retinanet("pvt-t").split("/")[1]
    flags = fake_zoo(tmp_path, name)
    monkeypatch.setattr(verify_zoo, "evaluate", lambda *_: {"box AP": found})
    if verdict is None:
        run_verify(monkeypatch, *flags)
    else:
        with pytest.raises(verify_zoo.UserError, match=verdict):
            run_verify(monkeypatch, *flags)
    out = capsys.readouterr().out
    assert "reported  40.30" in out
    assert out.count("not evaluated: no") == len(RECIPES) - 1


def test_verify_zoo_prints_scores_of_which_none_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "upernet_agent-cswin-t_8xb2-160k_ade20k-512x512"
    flags = fake_zoo(tmp_path, name)
    (tmp_path / "data/ade/ADEChallengeData2016").mkdir(parents=True)
    monkeypatch.setattr(verify_zoo, "evaluate", lambda *_: {"mIoU": 45.0, "mAcc": 56.0})
    run_verify(monkeypatch, *flags, "--only", name)
    out = capsys.readouterr().out
    assert "mIoU      45.00  none reported" in out and "mAcc      56.00  none reported" in out


def test_verify_zoo_goes_on_after_a_row_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (retinanet(arch).split("/")[1] for arch in ("pvt-t", "pvt-s"))
    flags = fake_zoo(tmp_path, first)
    (tmp_path / f"weights/{second}.pth").touch()

    def evaluate(row: verify_zoo.Row, folder: Path) -> dict[str, float]:
        if row.name == first:
            raise verify_zoo.UserError("it does not fit")
        return {"box AP": 44.1}

    monkeypatch.setattr(verify_zoo, "evaluate", evaluate)
    with pytest.raises(verify_zoo.UserError, match=f"1 rows failed: {first}"):
        run_verify(monkeypatch, *flags)
    out = capsys.readouterr().out
    assert "it does not fit" in out and "44.10  reported  44.10" in out


def test_verify_zoo_tests_real_weights_on_real_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All is taken for the first class, and half of the picture is of the second."""
    row = semantic_fpn("pvt-t")
    name = row.split("/")[1]
    cfg = copy.deepcopy(config(row))
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    with torch.no_grad():
        model.decode_head.conv_seg.bias[0] = 1e4
    flags = fake_zoo(tmp_path, name)
    torch.save({"state_dict": model.state_dict()}, tmp_path / f"weights/{name}.pth")
    # the first class is 1; 32 x 2048 pixels when it is tested, which are few
    labels = np.ones((4, 256), np.uint8)
    labels[2:] = 2
    scenes = tmp_path / "data/ade/ADEChallengeData2016"
    for path, pixels in (
        (scenes / "images/validation/a.jpg", np.zeros((4, 256, 3), np.uint8)),
        (scenes / "annotations/validation/a.png", labels),
    ):
        path.parent.mkdir(parents=True)
        assert cv2.imwrite(str(path), pixels)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("sys.executable", fork_server.interpreter()["PYTHON"])
    more = ["--work-dir", str(tmp_path / "work"), "--only", name]
    with pytest.raises(verify_zoo.UserError, match=r"15\.18 points off, more than 0\.2"):
        run_verify(monkeypatch, *flags, *more)
    out = capsys.readouterr().out
    assert "mIoU      25.00  reported  40.18  -15.18" in out
    assert "mAcc      50.00  reported  51.76  -1.76" in out


def test_verify_zoo_reads_the_metrics_of_a_detector_in_per_cent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def test(command: list[Any], **options: Any) -> Any:
        given = dict(zip(map(str, command[-4::2]), map(str, command[-3::2]), strict=True))
        assert given["--data-root"] == str(tmp_path / "data/coco")
        metrics = {"coco/bbox_mAP": 0.414, "coco/segm_mAP": 0.387, "coco/bbox_mAP_50": 0.6}
        Path(given["--work-dir"], "metrics.json").write_text(json.dumps({"metrics": metrics}))
        return SimpleNamespace(returncode=0)

    name = mask_rcnn("pvt-t").split("/")[1]
    flags = fake_zoo(tmp_path, name)
    monkeypatch.setattr(verify_zoo.subprocess, "run", test)
    run_verify(monkeypatch, *flags, "--only", name, "--work-dir", str(tmp_path / "work"))


def test_verify_zoo_says_when_there_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(verify_zoo.UserError, match="nothing was evaluated"):
        run_verify(monkeypatch, "--weights", str(tmp_path))
    with pytest.raises(verify_zoo.UserError, match="--only"):
        run_verify(monkeypatch, "--weights", str(tmp_path), "--only", "resnet")
