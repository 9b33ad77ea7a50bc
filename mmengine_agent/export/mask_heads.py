"""Heads and pixel decoders that make masks of queries, for open sizes.

mmdet's and mmseg's own ask each image's meta data for sizes, or keep those of maps in tensors.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmengine_agent.export.deformable import attend, cell_centres


def make_recordable(model: nn.Module) -> None:
    """Give attention of queries, and what makes masks of them, forms for open sizes, in place.

    They give the same numbers; ``spatial_shapes`` of an attention is then a list of pairs.
    """
    for each in model.modules():
        form = _FORMS.get(type(each).__name__)
        if form and getattr(each, "batch_first", True):
            each.forward = partial(form, each)


def decode_levels(decoder: Any, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """What mmdet's ``MSDeformAttnPixelDecoder`` makes of maps (B, C_i, H_i, W_i), fine to coarse.

    Returns:
        the map that masks are made with, of the finest size, and ``num_outs`` maps for the
        queries, coarse to fine.
    """
    coarse = list(reversed(maps))[: decoder.num_encoder_levels]
    sizes: list[Any] = [each.shape[2:] for each in coarse]
    tokens, places = [], []
    for level, (x, project) in enumerate(zip(coarse, decoder.input_convs, strict=True)):
        place = decoder.postional_encoding(None, input=x[:1])
        place = place + decoder.level_encoding.weight[level].view(1, -1, 1, 1)
        tokens.append(to_tokens(project(x)))
        places.append(to_tokens(place))
    memory = decoder.encoder(
        query=torch.cat(tokens, 1),
        query_pos=torch.cat(places, 1),
        key_padding_mask=None,
        spatial_shapes=sizes,
        level_start_index=None,
        valid_ratios=None,
        reference_points=cell_centres(sizes, maps[0].new_ones(1, len(sizes), 2)),
    )
    found, begin = [], 0
    for height, width in sizes:
        cells = memory.narrow(1, begin, height * width).transpose(1, 2)
        found.append(cells.unflatten(2, (height, width)))
        begin = begin + height * width
    for level in reversed(range(len(maps) - len(coarse))):
        y = decoder.lateral_convs[level](maps[level])
        up = F.interpolate(found[-1], size=y.shape[2:], mode="bilinear", align_corners=False)
        found.append(decoder.output_convs[level](y + up))
    return decoder.mask_feature(found[-1]), found[: decoder.num_outs]


def decode_coarsest(
    decoder: Any, maps: Sequence[Tensor], unused: Any = None
) -> tuple[Tensor, Tensor]:
    """What mmdet's ``TransformerEncoderPixelDecoder`` makes of maps (B, C_i, H_i, W_i).

    No cell of the coarsest map begins in the padding, which is narrower than a cell.

    Returns:
        the map that masks are made with, of the finest size, and one for the queries.
    """
    x = decoder.encoder_in_proj(maps[-1])
    place = to_tokens(decoder.positional_encoding(None, input=x[:1]))
    tokens = decoder.encoder(query=to_tokens(x), query_pos=place, key_padding_mask=None)
    memory = tokens.transpose(1, 2).unflatten(2, x.shape[2:])
    y = decoder.encoder_out_proj(memory)
    for level in reversed(range(len(maps) - 1)):
        side = decoder.lateral_convs[level](maps[level])
        y = decoder.output_convs[level](side + F.interpolate(y, size=side.shape[2:]))
    return decoder.mask_feature(y), memory


def decode_masks(head: Any, maps: Sequence[Tensor], unused: Any = None) -> tuple[Tensor, Tensor]:
    """What a ``MaskFormerHead``, mmdet's or mmseg's, makes of maps (B, C_i, H_i, W_i).

    Returns:
        of each layer logits of classes (layers, B, Q, classes + 1) and masks (layers, B, Q, H, W).
    """
    features, memory = head.pixel_decoder(maps, None)
    memory = head.decoder_input_proj(memory)
    queries = head.query_embed.weight.expand(memory.shape[0], -1, -1)
    states = head.transformer_decoder(
        query=torch.zeros_like(queries),
        key=to_tokens(memory),
        value=to_tokens(memory),
        query_pos=queries,
        key_pos=to_tokens(head.decoder_pe(None, input=memory[:1])),
        key_padding_mask=None,
    )
    masks = torch.einsum("lbqc,bchw->lbqhw", head.mask_embed(states), features)
    return head.cls_embed(states), masks


def attend_densely(
    module: Any,
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    identity: Tensor | None = None,
    query_pos: Tensor | None = None,
    key_pos: Tensor | None = None,
    attn_mask: Tensor | None = None,
    **unused: Any,
) -> Tensor:
    """What mmcv's ``MultiheadAttention`` gives for queries (B, Q, C): (B, Q, C).

    torch's own puts the tokens before the images, and its graph would be for one image or for
    several.

    Args:
        attn_mask: bool (B * heads, Q, S), where a query does not look.
        (the others as mmcv has them)
    """
    inner, heads = module.attn, module.attn.num_heads
    key = query if key is None else key
    value = key if value is None else value
    identity = query if identity is None else identity
    query = query if query_pos is None else query + query_pos
    key = key if key_pos is None else key + key_pos
    projections = zip(inner.in_proj_weight.chunk(3), inner.in_proj_bias.chunk(3), strict=True)
    q, k, v = (
        F.linear(x, weight, bias).unflatten(2, (heads, -1)).transpose(1, 2)
        for x, (weight, bias) in zip((query, key, value), projections, strict=True)
    )  # (B, h, N, d)
    scores = q @ k.transpose(2, 3) * inner.head_dim**-0.5
    if attn_mask is not None:
        scores = scores.masked_fill(attn_mask.unflatten(0, (-1, heads)), -torch.inf)
    return identity + inner.out_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def to_tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H*W, C)."""
    return x.flatten(2).transpose(1, 2)


_FORMS: Mapping[str, Callable[..., Any]] = {  # by the name of the class: mmdet need not be there
    "MultiScaleDeformableAttention": attend,
    "MultiheadAttention": attend_densely,
    "MSDeformAttnPixelDecoder": decode_levels,
    "TransformerEncoderPixelDecoder": decode_coarsest,
    "MaskFormerHead": decode_masks,
}
