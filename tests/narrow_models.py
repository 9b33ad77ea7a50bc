"""Narrow models of our configs: files of them, and what mmdet and mmseg make of an image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from helpers import SMALL, SMALL_GRIDS, SMALL_SWIN, seed_weights
from mmengine.config import Config
from mmengine.registry import MODELS as REGISTRY
from mmengine.registry import init_default_scope
from mmengine.structures import BaseDataElement
from torch import Tensor

from mmengine_agent.task import task_of

CONFIGS = Path(__file__).parents[1] / "configs"
DEPTHS = {"depths": (1, 1, 1, 1), "_delete_": True}  # as few as have every kind
PVT = {"arch": {**SMALL, **DEPTHS}, "agent_shapes": SMALL_GRIDS, "attn_types": "BBAB"}
SWIN = {"arch": {**SMALL_SWIN, **DEPTHS, "depths": (2, 1, 1, 1)}, "agent_shapes": SMALL_GRIDS}
SWIN |= {"attn_types": ("1A1B", "B", "B", "B"), "out_indices": (0, 1)}
PVT_WIDTHS, SWIN_WIDTHS = [8, 16, 24, 32], [8, 16]
NECK = {"in_channels": PVT_WIDTHS, "out_channels": 16}
RPN = {"in_channels": 16, "feat_channels": 16}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "semantic_fpn": (
        "demo/agent_pvt_semantic_fpn_demo.py",
        {
            "backbone": PVT,
            "neck": NECK,
            "decode_head": {"in_channels": [16] * 4, "channels": 16},
        },
    ),
    "upernet": (
        "demo/agent_swin_upernet_demo.py",
        {
            "backbone": SWIN,
            "decode_head": {
                "in_channels": SWIN_WIDTHS,
                "in_index": [0, 1],
                "channels": 16,
                "pool_scales": (3,),
                "norm_cfg": {"type": "GN", "num_groups": 4},
            },
            "auxiliary_head": {"in_channels": 16, "in_index": 1, "channels": 16},
        },
    ),
    "mask_rcnn": (
        "demo/agent_pvt_maskrcnn_demo.py",
        {
            "backbone": PVT,
            # groups of several channels: the norm of one or two numbers magnifies their noise
            "neck": {**NECK, "norm_cfg": {"num_groups": 2}},
            "rpn_head": RPN,
            "roi_head": {
                "bbox_roi_extractor": {"out_channels": 16},
                "bbox_head": {"in_channels": 16, "fc_out_channels": 32},
                "mask_roi_extractor": {"out_channels": 16},
                "mask_head": {
                    "in_channels": 16,
                    "conv_out_channels": 16,
                    "norm_cfg": {"num_groups": 2},
                },
            },
        },
    ),
    "retinanet": (
        "agent_pvt/retinanet_agent-pvt-t_fpn_1x_coco.py",
        {
            "backbone": PVT,
            # three levels, of the backbone's last two maps and one more: each takes long to record
            "neck": {**NECK, "start_level": 2, "num_outs": 3},
            "bbox_head": {
                **RPN,
                "stacked_convs": 1,
                "num_classes": 3,
                "anchor_generator": {"strides": [16, 32, 64]},
            },
            "test_cfg": {"max_per_img": 30},
        },
    ),
}


def write_config(name: str, path: Path) -> Path:
    """A config of a narrow model."""
    base, changes = MODELS[name]
    path.write_text(f"_base_ = {str(CONFIGS / base)!r}\nmodel = {changes!r}\n")
    return path


def build(config: Path) -> Any:
    """The model of a config, with seeded weights."""
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    task_of(cfg)  # registers the backbones
    return seed_weights(REGISTRY.build(cfg.model)).eval()


def predict(model: Any, image: Tensor) -> dict[str, Tensor]:
    """What a model of mmdet's or mmseg's makes of images (B, 3, H, W), RGB, as pipelines do."""
    data: dict[str, Any] = {"inputs": list(image.flip(1))}
    if hasattr(model, "encode_decode"):
        data["data_samples"] = [BaseDataElement() for _ in image]
        x = model.data_preprocessor(data)["inputs"]
        logits = model.encode_decode(x, [{"img_shape": x.shape[2:]}])
        return {"logits": logits[:, :, : image.shape[2], : image.shape[3]]}
    x = model.data_preprocessor(data)["inputs"]
    maps = model.extract_feat(x)
    if not hasattr(model, "rpn_head"):
        scores, boxes = model.bbox_head(maps)
        return numbered(cls_score=scores, bbox_pred=boxes)
    scores, boxes = model.rpn_head(maps)
    return numbered(map=maps, rpn_cls_score=scores, rpn_bbox_pred=boxes)


def numbered(**levels: Any) -> dict[str, Tensor]:
    return {f"{name}_{i}": each for name, all_ in levels.items() for i, each in enumerate(all_)}


def photo(batch: int, height: int, width: int) -> Tensor:
    return (255 * torch.rand(batch, 3, height, width)).round()


@dataclass(frozen=True)
class Made:
    """A model and the files for and of it."""

    model: Any
    config: Path
    checkpoint: Path

    def file(self, name: str) -> Path:
        return self.config.with_name(name)


def make(name: str, folder: Path) -> Made:
    config = write_config(name, folder / "config.py")
    model = build(config)
    torch.save({"state_dict": model.state_dict()}, folder / "weights.pth")
    return Made(model, config, folder / "weights.pth")
