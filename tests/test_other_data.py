"""Data and configs of other kinds: neither refused nor taken for something else."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import make_demo_data
import mmdet
import pytest
import torch
from helpers import SMALL
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from tool_runs import ROOT, TOOLS, output, python

from mmengine_agent.preflight.keys import unread_keys
from mmengine_agent.task import task_of

STOCK = Path(mmdet.__file__).parent / ".mim/configs"
# what mmdet's own sets of these kinds have, none of which is COCO's instances JSON
SETS: dict[str, tuple[str, str]] = {
    "pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py": ("a.txt", "000005\n000007\n"),
    "lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py": (
        "lvis.json",
        json.dumps({"images": [{"id": 1, "coco_url": "a/1.jpg"}], "annotations": []}),
    ),
}


def datasets_in(node: Any) -> list[Any]:
    inner = node.get("dataset") or node.get("datasets")
    if inner is None:
        return [node]
    return [
        each
        for child in (inner if isinstance(inner, list) else [inner])
        for each in datasets_in(child)
    ]


@pytest.mark.parametrize("config", SETS)
def test_sets_of_other_layouts_are_not_taken_for_coco(config: str, tmp_path: Path) -> None:
    cfg = Config.fromfile(STOCK / config)
    name, content = SETS[config]
    (tmp_path / name).write_text(content)
    for split in ("train", "val"):
        for dataset in datasets_in(cfg[f"{split}_dataloader"].dataset):
            dataset.update(data_root=str(tmp_path), ann_file=name)
        evaluator = cfg.get(f"{split}_evaluator", {})
        if "ann_file" in evaluator:
            evaluator.ann_file = str(tmp_path / name)
    problems = [each.text for each in task_of(cfg).data_problems(cfg, ("train", "val"))]
    needed = "val_evaluator: LVISMetric needs lvis: pip install lvis"
    assert problems == [needed] * ("lvis" in config and find_spec("lvis") is None)


def test_an_option_next_to_a_key_of_almost_its_name_is_a_slip() -> None:
    options = {"model.test_cfg.rcnn.score_threshold": 0.1, "model.test_cfg.rcnn.score_thr": 0.2}
    cfg = Config.fromfile(ROOT / "configs/agent_pvt_maskrcnn.py")
    cfg.merge_from_dict(options)
    (found,) = unread_keys(cfg, options)
    assert "model.test_cfg.rcnn.score_threshold" in found and "did you mean score_thr?" in found


FIND_HOOK = """
import sys
from mmengine.config import Config
from mmengine.registry import HOOKS
from mmengine_agent.task import task_of
task_of(Config.fromfile(sys.argv[1]))
assert HOOKS.get("MeanLossHook")
"""


def test_a_stock_config_finds_the_hooks_of_the_tools(tmp_path: Path) -> None:
    """Such a config imports nothing of ours; looking for its task does."""
    script = tmp_path / "find_hook.py"
    script.write_text(FIND_HOOK)
    config = STOCK / "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"
    output(python(script, str(config), cwd=tmp_path))


WITHOUT_MMDET = """
import runpy, sys
for name in [*sys.modules, "mmdet", "pycocotools"]:
    if name.partition(".")[0] in ("mmdet", "pycocotools"):
        sys.modules[name] = None  # an import of it fails
sys.argv = sys.argv[1:]
sys.path[0] = sys.argv[0].rpartition("/")[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_segmentor_is_tested_and_predicts_without_mmdet(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make_demo_data.generate(data, train=1, val=1, size=64)
    config = tmp_path / "small.py"
    base = ROOT / "configs/demo/agent_pvt_semantic_fpn_demo.py"
    config.write_text(
        f"_base_ = {str(base)!r}\nmodel = dict(\n"
        f"    backbone=dict(_delete_=True, type='AgentPVT', arch={SMALL!r}),\n"
        f"    neck=dict(in_channels={list(SMALL['embed_dims'])!r}))\n"
    )
    cfg = Config.fromfile(config)
    task_of(cfg)
    init_default_scope("mmseg")
    weights = MODELS.build(cfg.model).state_dict()
    torch.save({"state_dict": weights, "meta": {}}, tmp_path / "a.pth")
    image = next((data / "ade/images/validation").iterdir())
    given = [str(config), str(tmp_path / "a.pth")]
    work, out = str(tmp_path / "w"), str(tmp_path / "p")
    script = tmp_path / "without_mmdet.py"
    script.write_text(WITHOUT_MMDET)
    commands = [
        ["test.py", *given, "--data-root", str(data / "ade"), "--work-dir", work],
        ["predict.py", *given, str(image), "--out", out, "--device", "cpu"],
    ]
    for tool, *arguments in commands:
        output(python(script, str(TOOLS / tool), *arguments, cwd=tmp_path))
    assert (tmp_path / "w/evaluation.json").is_file() and (tmp_path / "p/images.json").is_file()
