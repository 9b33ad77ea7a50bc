"""The configs of the study's runs: our recipes, with another mixer, other data and fewer steps.

Semantic FPN is that of the demo, RetinaNet that of ``configs/agent_pvt`` with heads as narrow as
the demo's: on a CPU the published ones would cost more than the backbone, and they are no part of
the question. All widths, rates and schedules are the same for all mixers.
"""

from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS

from mmengine_agent.resume.switch_on import make_resumable
from mmengine_agent.run.setup import read_config

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = {
    "segmentor": "configs/demo/agent_pvt_semantic_fpn_demo.py",
    "detector": "configs/agent_pvt/retinanet_agent-pvt-t_fpn_1x_coco.py",
}
THINGS = ("ellipse", "rectangle", "triangle", "star", "cross")
CLASSES = {
    "scenes": ("grass", "sand", "water", *THINGS),
    "camvid": (
        *("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car"),
        *("pedestrian", "bicyclist"),
    ),
}
AGENTS = ((12, 12), (16, 16), (28, 28), (28, 28))  # those published for dense maps
WIDTH = 96  # channels of the neck and heads


class Plan(NamedTuple):
    """What is the same for all runs of a comparison."""

    budget: int = 2000  # iterations
    batch: int = 2  # images
    size: int = 512  # side of a training image, in pixels
    rate: float = 5e-4  # learning rate
    bfloat16: bool = False  # train under autocast to bfloat16
    save_every: int = 40  # iterations; only a run that is stopped needs them


class Run(NamedTuple):
    """One training: what is trained on what, and its seed."""

    task: str
    data: str
    mixer: str  # a key of ``study.ROWS``
    seed: int


@OPTIM_WRAPPERS.register_module(force=True)
class Bfloat16OptimWrapper(OptimWrapper):
    """Losses under autocast to bfloat16; mmengine's own wrapper for this refuses CPUs."""

    @contextmanager
    def optim_context(self, model: torch.nn.Module) -> Any:
        """The context in which mmengine computes losses."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield


def make_config(
    run: Run, plan: Plan, mixers: tuple[str, ...], data: Path, work_dir: Path
) -> Config:
    """The config of a run's training.

    Args:
        run: what is trained.
        plan: the same for all.
        mixers: of the backbone, one for each stage.
        data: folder with the files of ``run.data``, as ``tools/make_demo_data.py`` writes it.
        work_dir: where mmengine writes logs and checkpoints.
    """
    cfg = read_config(str(ROOT / CONFIGS[run.task]))
    change = segmentor if run.task == "segmentor" else detector
    cfg.merge_from_dict(change(run, plan, data))
    cfg.model.backbone.update(agent_shapes=AGENTS, mixers=mixers, drop_path_rate=0.0, init_cfg=None)
    cfg.optim_wrapper.optimizer.lr = plan.rate
    cfg.optim_wrapper.clip_grad = {"max_norm": 5.0}
    if plan.bfloat16:
        cfg.optim_wrapper.type = "Bfloat16OptimWrapper"
    warm_up = max(1, plan.budget // 8)
    cfg.param_scheduler = [
        {"type": "LinearLR", "start_factor": 0.01, "by_epoch": False, "begin": 0, "end": warm_up},
        {
            **{"type": "PolyLR", "power": 0.9, "eta_min": 0.0, "by_epoch": False},
            **{"begin": warm_up, "end": max(plan.budget, warm_up + 1)},
        },
    ]
    cfg.train_cfg = {"type": "IterBasedTrainLoop", "max_iters": plan.budget}
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks.checkpoint = {
        **{"type": "CheckpointHook", "by_epoch": False, "save_best": None},
        **{"interval": plan.save_every, "max_keep_ckpts": 1},
    }
    every = max(1, min(10, plan.budget // 4))
    cfg.default_hooks.logger = {
        **{"type": "LoggerHook", "interval": every, "log_metric_by_epoch": False},
    }
    cfg.log_processor = {"by_epoch": False}
    cfg.randomness = {"seed": run.seed}
    cfg.work_dir, cfg.launcher = str(work_dir), "none"
    cfg.visualizer.name = str(work_dir)  # one of a name that is known logs where that one did
    make_resumable(cfg)
    return cfg


def loader(batch: int, training: bool, dataset: dict[str, Any]) -> dict[str, Any]:
    """A data loader in the process that trains: a run's seed decides all that is random."""
    sampler = {"type": "InfiniteSampler" if training else "DefaultSampler", "shuffle": training}
    return {
        **{"_delete_": True, "batch_size": batch, "num_workers": 0},
        **{"sampler": sampler, "dataset": dataset},
    }


# --- segmentor


def segmentor(run: Run, plan: Plan, data: Path) -> dict[str, Any]:
    """What Semantic FPN's config is to have."""
    names = CLASSES[run.data]
    crops = [
        {"type": "RandomCrop", "crop_size": (plan.size, plan.size), "cat_max_ratio": 0.75},
    ]
    labels = {"type": "LoadAnnotations", "reduce_zero_label": True}
    pipeline = [
        {"type": "LoadImageFromFile"},
        labels,
        resize(run, plan.size),
        *(crops if run.data == "camvid" else []),
        {"type": "RandomFlip", "prob": 0.5},
        {"type": "PackSegInputs"},
    ]
    return {
        "model.data_preprocessor.size": (plan.size, plan.size),
        "model.decode_head.num_classes": len(names),
        "train_dataloader": loader(
            plan.batch, True, seg_dataset(run.data, data, "training", pipeline)
        ),
    } | segmentor_test(run, plan, data, 1)


def segmentor_test(run: Run, plan: Plan, data: Path, factor: float) -> dict[str, Any]:
    """The test at ``factor`` times the training resolution."""
    labels = {"type": "LoadAnnotations", "reduce_zero_label": True}
    pipeline = [
        {"type": "LoadImageFromFile"},
        resize(run, round(plan.size * factor)),
        labels,  # after the resize: scored at the image's own size
        {"type": "PackSegInputs"},
    ]
    return {
        "test_dataloader": loader(1, False, seg_dataset(run.data, data, "validation", pipeline)),
        "test_evaluator": {"_delete_": True, "type": "IoUMetric", "iou_metrics": ["mIoU"]},
    }


def resize(run: Run, side: int) -> dict[str, Any]:
    """The longer side of scenes, and the shorter one of photographs, is ``side`` pixels."""
    scale = (10 * side, side) if run.data == "camvid" else (side, side)
    return {"type": "Resize", "scale": scale, "keep_ratio": True}


def seg_dataset(name: str, data: Path, split: str, pipeline: list[Any]) -> dict[str, Any]:
    return {
        **{"type": "NamedSegDataset", "data_root": str(data / "ade"), "reduce_zero_label": True},
        **{"metainfo": {"classes": CLASSES[name]}, "img_suffix": ".jpg", "seg_map_suffix": ".png"},
        "data_prefix": {"img_path": f"images/{split}", "seg_map_path": f"annotations/{split}"},
        "pipeline": pipeline,
    }


# --- detector


def detector(run: Run, plan: Plan, data: Path) -> dict[str, Any]:
    """What RetinaNet's config is to have."""
    norm = {"type": "GN", "num_groups": 16}
    pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations", "with_bbox": True},
        resize(run, plan.size),
        {"type": "RandomFlip", "prob": 0.5},
        {"type": "PackDetInputs"},
    ]
    return {
        "model.neck.out_channels": WIDTH,
        "model.neck.norm_cfg": norm,
        "model.bbox_head.in_channels": WIDTH,
        "model.bbox_head.feat_channels": WIDTH,
        "model.bbox_head.stacked_convs": 2,
        "model.bbox_head.norm_cfg": norm,
        "model.bbox_head.num_classes": len(THINGS),
        "train_dataloader": loader(plan.batch, True, coco(data, "train2017", pipeline)),
    } | detector_test(run, plan, data, 1)


def detector_test(run: Run, plan: Plan, data: Path, factor: float) -> dict[str, Any]:
    """The test at ``factor`` times the training resolution."""
    keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    pipeline = [
        {"type": "LoadImageFromFile"},
        resize(run, round(plan.size * factor)),
        {"type": "LoadAnnotations", "with_bbox": True},
        {"type": "PackDetInputs", "meta_keys": keys},
    ]
    notes = str(data / "coco/annotations/instances_val2017.json")
    return {
        "test_dataloader": loader(1, False, coco(data, "val2017", pipeline)),
        "test_evaluator": {
            **{"_delete_": True, "type": "CocoMetric", "metric": "bbox"},
            **{"ann_file": notes, "format_only": False},
        },
    }


def coco(data: Path, split: str, pipeline: list[Any]) -> dict[str, Any]:
    return {
        **{"type": "CocoDataset", "data_root": str(data / "coco")},
        **{"metainfo": {"classes": THINGS}, "data_prefix": {"img": split}},
        "ann_file": f"annotations/instances_{split}.json",
        "filter_cfg": {"filter_empty_gt": True, "min_size": 32},
        **{"pipeline": pipeline, "test_mode": split.startswith("val")},
    }
