"""Multi-scale deformable attention for open sizes, in operators that other runtimes have too.

mmcv's layer keeps the sizes of maps in a tensor and loops over it, which no graph of open sizes
can. Here they are pairs (height, width), in the order of the tokens. Shape letters: B images, S
tokens of all maps, Q queries, h heads, d channels of a head, L levels, P points.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from agent_attention.arguments import Pair

Sizes = Sequence[Pair]


def attend(
    module: Any,
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    identity: Tensor | None = None,
    query_pos: Tensor | None = None,
    key_padding_mask: Tensor | None = None,
    *,
    reference_points: Tensor,
    spatial_shapes: Sizes,
    **unused: Any,
) -> Tensor:
    """What mmcv's ``MultiScaleDeformableAttention`` gives for queries (B, Q, C): (B, Q, C).

    Args:
        module: the attention, batch first.
        reference_points: (B or 1, Q, L, 2) of x, y, or 4 with width and height; 1 is a whole map.
        spatial_shapes: (height, width) of each of L maps.
        (the others as mmcv has them)
    """
    value = query if value is None else value
    identity = query if identity is None else identity
    query = query if query_pos is None else query + query_pos
    heads, levels, points = module.num_heads, module.num_levels, module.num_points
    value = module.value_proj(value)
    if key_padding_mask is not None:
        value = value.masked_fill(key_padding_mask.unsqueeze(-1), 0.0)
    offsets = module.sampling_offsets(query).unflatten(2, (heads, levels, points, 2))
    weights = module.attention_weights(query).unflatten(2, (heads, levels * points)).softmax(-1)
    gathered = gather_points(
        value.unflatten(2, (heads, -1)),
        spatial_shapes,
        places(reference_points, offsets, spatial_shapes),
        weights.unflatten(3, (levels, points)),
    )
    return identity + module.dropout(module.output_proj(gathered))


def places(reference: Tensor, offsets: Tensor, sizes: Sizes) -> list[Tensor]:
    """Where each level is read: of references (B, Q, L, 2 or 4), L times (B, Q, h, P, 2).

    Offsets (B, Q, h, L, P, 2) are in cells of the level, or, of boxes, in halves of their sides
    over P (Deformable DETR, arXiv 2010.04159, section 4.1).
    """
    found = []
    for level, (height, width) in enumerate(sizes):
        centre, offset = reference[:, :, level, None, None], offsets[:, :, :, level]
        if reference.shape[-1] == 4:
            step = offset * centre[..., 2:] * (0.5 / offsets.shape[4])
        else:
            step = torch.stack([offset[..., 0] / width, offset[..., 1] / height], -1)
        found.append(centre[..., :2] + step)
    return found


def gather_points(value: Tensor, sizes: Sizes, where: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Weighted sums of values (B, S, h, d) at places of each map: (B, Q, h * d).

    Args:
        value: of all maps, one after the other.
        sizes: (height, width) of each.
        where: of each level (B, Q, h, P, 2), x and y, 1 is the whole map; zeros lie outside.
        weights: (B, Q, h, L, P).
    """
    heads, begin = value.shape[2], 0
    total: Any = 0
    for level, (height, width) in enumerate(sizes):
        cells = value.narrow(1, begin, height * width)
        begin = begin + height * width
        grid = (2 * where[level] - 1).transpose(1, 2).flatten(0, 1)  # (B * h, Q, P, 2)
        share = weights[:, :, :, level].transpose(1, 2).flatten(0, 1)
        planes = cells.permute(0, 2, 3, 1).flatten(0, 1).unflatten(2, (height, width))
        read = F.grid_sample(planes, grid, align_corners=False)  # (B * h, d, Q, P)
        total = total + (read * share.unsqueeze(1)).sum(-1)
    return total.unflatten(0, (-1, heads)).flatten(1, 2).transpose(1, 2)


def cell_centres(sizes: Sizes, valid: Tensor, device: Any = None) -> Tensor:
    """Centres of all cells, as references to every level: (B, S, L, 2) of x, y.

    Args:
        sizes: (height, width) of each of L maps.
        valid: (B, L, 2), the share of each map's width and height that is no padding.
    """
    found = []
    for level, (height, width) in enumerate(sizes):
        rows, columns = (torch.arange(side, device=valid.device) for side in (height, width))
        y = ((rows + 0.5) / (valid[:, level, None, 1] * height)).unsqueeze(2)  # (B, H_i, 1)
        x = ((columns + 0.5) / (valid[:, level, None, 0] * width)).unsqueeze(1)
        grid = torch.stack(torch.broadcast_tensors(x, y), -1)  # (B, H_i, W_i, 2)
        found.append(grid.flatten(1, 2))
    return torch.cat(found, 1).unsqueeze(2) * valid.unsqueeze(1)
