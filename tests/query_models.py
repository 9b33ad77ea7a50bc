"""Small models of mmdet's and mmseg's stock configs with queries."""

from typing import Any

import torch
from helpers import Model, seed_weights
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from narrow_models import PVT, PVT_WIDTHS

from mmengine_agent.backbone_flags import BackboneFlags
from mmengine_agent.class_counts import set_class_count
from mmengine_agent.config_walk import walk
from mmengine_agent.run.setup import read_config
from mmengine_agent.task import task_of

# of each head the config that it is published with
DETECTORS = {
    "DETR": "detr/detr_r50_8xb2-150e_coco",
    "Conditional DETR": "conditional_detr/conditional-detr_r50_8xb2-50e_coco",
    "DAB-DETR": "dab_detr/dab-detr_r50_8xb2-50e_coco",
    "Deformable DETR": "deformable_detr/deformable-detr_r50_16xb2-50e_coco",
    "Deformable DETR, two stages": (
        "deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco"
    ),
    "DINO": "dino/dino-4scale_r50_8xb2-12e_coco",
    "Mask2Former": "mask2former/mask2former_r50_8xb2-lsj-50e_coco",
    "Mask2Former, panoptic": "mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic",
    "MaskFormer": "maskformer/maskformer_r50_ms-16xb1-75e_coco",
}
SEGMENTORS = {
    "Mask2Former": "mask2former/mask2former_r50_8xb2-160k_ade20k-512x512",
    "MaskFormer": "maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512",
}
_MOST = {
    **{"num_queries": 20, "max_per_img": 12, "max_per_image": 40, "num_dn_queries": 10},
    **{"num_layers": 2, "feedforward_channels": 32},
}


def narrow_config(name: str) -> Config:
    """A stock config with a narrow Agent-PVT, few queries and two layers."""
    cfg = read_config(f"{name}.py", None, BackboneFlags("agent_pvt_t", from_scratch=True))
    for _, node in walk(cfg.model):
        node.update({key: min(node[key], most) for key, most in _MOST.items() if key in node})
    set_class_count(cfg.model, 7, 5)
    cfg.model.backbone.update(PVT)
    cfg.model.backbone.arch.pop("_delete_")
    indices = cfg.model.backbone.get("out_indices", range(4))
    reads = next(key for key in ("neck", "panoptic_head", "decode_head") if key in cfg.model)
    cfg.model[reads].in_channels = [PVT_WIDTHS[index] for index in indices]
    cfg.model.setdefault("data_preprocessor", cfg.get("data_preprocessor"))
    cfg.model.data_preprocessor.pop("batch_augments", None)
    return cfg


def build(cfg: Config) -> Any:
    """Its model, with seeded weights."""
    init_default_scope(cfg.default_scope)
    task_of(cfg)  # registers the backbones
    return tell_apart(seed_weights(MODELS.build(cfg.model)).eval())


@torch.no_grad()
def tell_apart(model: Model) -> Model:
    """Give queries that make masks classes and masks of their own, in place; return the model.

    Those of seeded weights are nearly alike: all pixels would have one label.
    """
    for head in model.modules():
        if hasattr(head, "mask_embed"):
            head.cls_embed.weight *= 5
            head.mask_embed[-1].weight *= 10
    return model
