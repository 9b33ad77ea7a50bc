"""Detectors that choose their queries among an image's tokens: DINO, two-stage Deformable DETR.

An image with fewer tokens than queries would end in torch's "index k out of range".
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from mmengine.config import Config
from torch import nn

from mmengine_agent.errors import Problem, UserError
from mmengine_agent.run.image_size import network_size
from mmengine_agent.swap_backbone import maps_of

_FIX = "take larger images (--image-size) or fewer queries (--cfg-options model.num_queries={})"


def guard_queries(model: Any) -> None:
    """Have a model raise UserError for an image with fewer tokens than it takes queries."""
    if getattr(model, "as_two_stage", False) and isinstance(model.encoder, nn.Module):
        check = partial(_require_tokens, model.num_queries)
        model.encoder.register_forward_pre_hook(check, with_kwargs=True)


def _require_tokens(queries: int, module: nn.Module, args: Any, inputs: dict[str, Any]) -> None:
    tokens = inputs["query"].shape[1]  # of all maps; their sizes, on a GPU, would be waited for
    if tokens < queries:
        maps = ", ".join(f"{width} x {height}" for height, width in inputs["spatial_shapes"])
        raise UserError(
            f"an image with maps of {maps} has {tokens} tokens, and the model chooses "
            f"num_queries={queries} of them: {_FIX.format(tokens)}"
        )


def query_problems(cfg: Config, splits: Sequence[str]) -> Iterator[Problem]:
    """Sizes of images that the config or ``--image-size`` says, and that have too few tokens."""
    queries = cfg.model.get("num_queries") or 0
    if not cfg.model.get("as_two_stage"):
        return
    try:
        strides = [stride for _, stride in maps_of(cfg.model.backbone, "mmdet")]
    except UserError:  # the model says it, then
        return
    while len(strides) < cfg.model.get("num_feature_levels", 4):
        strides.append(2 * strides[-1])
    step = (cfg.model.get("data_preprocessor") or {}).get("pad_size_divisor", 1)
    for split in splits:
        size = network_size(cfg, f"{split}_dataloader")
        if size is None:
            continue
        width, height = (-(-side // step) * step for side in size)
        tokens = sum(-(-width // each) * -(-height // each) for each in strides)
        if tokens < queries:
            yield Problem(
                f"{split}_dataloader: images of at most {size[0]} x {size[1]} pixels have "
                f"{tokens} tokens, and the model chooses model.num_queries={queries} of them: "
                f"{_FIX.format(tokens)}"
            )
            return
