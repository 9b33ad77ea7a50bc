"""A detector that finds nothing scores 0, whatever it scored before."""

import json
from pathlib import Path
from typing import Any

import pytest
from mmdet.evaluation import CocoMetric
from mmengine.runner import Runner
from tiny_runs import make_data, tiny

from mmdet_agent.no_detections import score_names
from mmengine_agent.run.setup import build_runner

NAMES = ["mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l"]


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """Of a detector that is never sure enough."""
    data = make_data(tmp_path / "data")
    cfg = tiny("detection", data, tmp_path / "run", **{"model.test_cfg.rcnn.score_thr": 1.1})
    cfg.launcher = "none"
    cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator
    return build_runner(cfg)


def test_a_validation_scores_zero_and_says_so(runner: Runner, tmp_path: Path) -> None:
    hub = runner.message_hub
    for name in ("coco/bbox_mAP", "coco/segm_mAP"):
        hub.update_scalar(f"val/{name}", 0.5)  # as a validation before has left them
    metrics = runner.val()
    assert metrics == {f"coco/{kind}_{name}": 0.0 for kind in ("bbox", "segm") for name in NAMES}
    (log,) = (tmp_path / "run").glob("*/*.log")
    assert "no object was detected in any image" in log.read_text()
    (scalars,) = (tmp_path / "run").glob("*/vis_data/scalars.json")
    logged = json.loads(scalars.read_text().splitlines()[-1])
    assert logged["coco/bbox_mAP"] == logged["coco/segm_mAP"] == 0


def test_a_test_scores_zero(runner: Runner) -> None:
    assert set(runner.test().values()) == {0.0}


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"metric": "bbox"}, [f"coco/bbox_{name}" for name in NAMES]),
        ({"metric": "segm", "metric_items": ["mAP"]}, ["coco/segm_mAP"]),
        ({"metric": "proposal_fast"}, []),
        ({"metric": "bbox", "format_only": True, "outfile_prefix": "a"}, []),
    ],
)
def test_the_names_are_those_of_mmdet(options: dict[str, Any], wanted: list[str]) -> None:
    assert score_names(CocoMetric(**options)) == wanted


def test_other_metrics_are_left_alone() -> None:
    assert score_names(object()) == []
