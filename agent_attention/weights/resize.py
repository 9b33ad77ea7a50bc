"""Position and bias tables for another image size than the one they were learned for."""

import torch
from torch import Tensor
from torch.nn import functional as F

from agent_attention.compute.symbolic import resize


def resize_table(key: str, table: Tensor, shape: torch.Size) -> Tensor | None:
    """A position or bias table for another image size, or None if the key is of no such table."""
    name = key.rsplit(".", 1)[-1]
    if table.dim() != len(shape) or not table.numel() or table.layout is not torch.strided:
        return None
    if name.startswith("pos_embed") and table.shape[::2] == shape[::2]:
        # PVT's own last stage has a class token in front
        tokens = table[:, 1:] if _side(table.shape[1]) is None else table
        return _resize_square(tokens[0].t(), shape[1], "bilinear", (1, 2, 0), shape)
    if name == "relative_position_bias_table" and table.shape[1] == shape[1] and len(table) % 2:
        return _resize_square(table.t(), shape[0], "bicubic", (1, 2, 0), shape)
    axes = {"ah_bias": (3, 4), "aw_bias": (3, 4), "ha_bias": (2, 3), "wa_bias": (2, 3)}.get(name)
    if axes is None or any(table.shape[i] != shape[i] for i in range(len(shape)) if i not in axes):
        return None
    # The run-time resize is separable, so a row table may be resized alone along its rows.
    spatial = table.float() if axes == (3, 4) else table.float().permute(0, 1, 4, 2, 3)
    size = (shape[axes[0]], shape[axes[1]])
    out = resize(spatial.flatten(0, 1), size).unflatten(0, spatial.shape[:2])
    return (out if axes == (3, 4) else out.permute(0, 1, 3, 4, 2)).to(table.dtype)


def _resize_square(
    table: Tensor, count: int, mode: str, order: tuple[int, ...], shape: torch.Size
) -> Tensor | None:
    """(C, S*S) resized to ``count`` positions, moved to ``order`` and ``shape``."""
    old, new = _side(table.shape[1]), _side(count)
    if old is None or new is None:
        return None
    square = table.float().unflatten(1, (old, old))[None]
    out = F.interpolate(square, size=(new, new), mode=mode, align_corners=False)[0]
    return out.permute(order).reshape(shape).to(table.dtype)


def _side(count: int) -> int | None:
    side = round(count**0.5)
    return side if side * side == count else None
