"""Detectors of the DETR family as they are exported: queries in, the same number of objects out."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from agent_attention.arguments import Pair
from mmdet_agent.export.detector import Detector, Sizes
from mmengine_agent.export.deformable import cell_centres
from mmengine_agent.export.mask_heads import make_recordable, to_tokens


class QueryDetector(Detector):
    """DETR and its relatives that are built alike (mmdet's ``DetectionTransformer``).

    There is no suppression of doubles: objects are the queries with the highest scores.
    """

    def __init__(self, model: Any, prepare: nn.Module) -> None:
        super().__init__(model, prepare)
        make_recordable(model)
        model.pre_transformer = partial(coarsest_tokens, model)

    def detect(self, x: Tensor, sizes: Sizes) -> dict[str, Tensor]:
        head = self.model.bbox_head
        size = (x.shape[2], x.shape[3])
        # mmdet hands on to ``pre_transformer`` what it knows of the images, here their sizes
        states = self.model.forward_transformer(self.model.extract_feat(x), (sizes.image, size))
        scores, boxes = head(**states)
        count = head.test_cfg.get("max_per_img", boxes.shape[2])
        if head.loss_cls.use_sigmoid:
            best, index = scores[-1].sigmoid().flatten(1).topk(count)
            labels, query = index % head.num_classes, index // head.num_classes
        else:  # the last class is none
            highest, kinds = scores[-1].softmax(-1)[..., :-1].max(-1)
            best, query = highest.topk(count)
            labels = kinds.gather(1, query)
        found = boxes[-1].gather(1, query.unsqueeze(-1).expand(-1, -1, 4))
        return {"boxes": corners(found, sizes), "scores": best, "labels": labels}


class DeformableDetector(QueryDetector):
    """Deformable DETR and DINO, whose queries read maps of several levels at a few points."""

    def __init__(self, model: Any, prepare: nn.Module) -> None:
        super().__init__(model, prepare)
        model.pre_transformer = partial(level_tokens, model)
        model.encoder.get_encoder_reference_points = cell_centres
        model.gen_encoder_output_proposals = partial(propose_cells, model)
        if hasattr(model, "dn_query_generator"):
            model.forward_decoder = partial(decode_queries, model)


def corners(boxes: Tensor, sizes: Sizes) -> Tensor:
    """Boxes (B, N, 4) of centre, width and height, 1 being the image, as x1 y1 x2 y2 in pixels."""
    centre, side = boxes.split(2, -1)
    (height, width), found = sizes.image, torch.cat([centre - side / 2, centre + side / 2], -1)
    # of 0 to 1 first: clipped to the image
    x1, y1, x2, y2 = found.clamp(0, 1).unbind(-1)
    return sizes.to_picture(torch.stack([x1 * width, y1 * height, x2 * width, y2 * height], -1))


def padding(map_size: Pair, image: Pair, padded: Pair) -> Tensor:
    """Which cells of a map begin in the padding, right and bottom: bool (1, H_i, W_i)."""
    rows, columns = (
        (torch.arange(cells) * whole).div(cells, rounding_mode="floor") >= side
        for cells, side, whole in zip(map_size, image, padded, strict=True)
    )
    return (rows.unsqueeze(1) | columns).unsqueeze(0)


def coarsest_tokens(
    model: Any, maps: Sequence[Tensor], shapes: tuple[Pair, Pair]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What DETR's encoder and decoder take of the coarsest map (B, C, H_i, W_i).

    No cell of it begins in the padding, which is narrower than a cell.
    """
    place = to_tokens(model.positional_encoding(None, input=maps[-1]))
    tokens = to_tokens(maps[-1])
    encoder = {"feat": tokens, "feat_mask": None, "feat_pos": place}
    return encoder, {"memory_mask": None, "memory_pos": place}


def level_tokens(
    model: Any, maps: Sequence[Tensor], shapes: tuple[Pair, Pair]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a deformable encoder and decoder take of maps (B, C, H_i, W_i).

    Args:
        model: the detector.
        maps: of all levels.
        shapes: (H, W) of the image, and of it with its padding.
    """
    sizes: list[Any] = [each.shape[2:] for each in maps]
    masks = [padding(size, *shapes) for size in sizes]
    tokens, places, shares = [], [], []
    for level, (x, mask) in enumerate(zip(maps, masks, strict=True)):
        place = to_tokens(model.positional_encoding(mask))
        tokens.append(to_tokens(x))
        places.append(place + model.level_embed[level])
        height, width = sizes[level]
        shares.append(torch.cat([(~mask[:, 0]).sum(1) / width, (~mask[:, :, 0]).sum(1) / height]))
    mask = torch.cat([each.flatten(1) for each in masks], 1)
    shared = {
        "spatial_shapes": sizes,
        "level_start_index": None,
        "valid_ratios": torch.stack(shares).unsqueeze(0),
    }
    encoder = {"feat": torch.cat(tokens, 1), "feat_mask": mask, "feat_pos": torch.cat(places, 1)}
    return {**encoder, **shared}, {"memory_mask": mask, **shared}


def propose_cells(
    model: Any, memory: Tensor, memory_mask: Tensor, spatial_shapes: Sequence[Pair]
) -> tuple[Tensor, Tensor]:
    """Each token's proposal of a box, before sigmoid: its cell, of a side by its level.

    Returns:
        tokens (B, S, C) that queries are chosen among, and proposals (1, S, 4) of centre and sides;
        infinite of cells that are in the padding or too near to the edge.
    """
    found, begin = [], 0
    for level, (height, width) in enumerate(spatial_shapes):
        mask = memory_mask.narrow(1, begin, height * width).unflatten(1, (height, width))
        begin = begin + height * width
        y = (torch.arange(height) + 0.5) / (~mask[:, :, 0]).sum()
        x = (torch.arange(width) + 0.5) / (~mask[:, 0]).sum()
        x, y = torch.broadcast_tensors(x.unsqueeze(0), y.unsqueeze(1))
        side = torch.full_like(x, 0.05 * 2.0**level)
        found.append(torch.stack([x, y, side, side], -1).flatten(0, 1))
    boxes = torch.cat(found).unsqueeze(0)
    unusable = ~((boxes > 0.01) & (boxes < 0.99)).all(-1, keepdim=True) | memory_mask.unsqueeze(-1)
    boxes = torch.log(boxes / (1 - boxes)).masked_fill(unusable, torch.inf)
    tokens = memory.masked_fill(unusable, 0.0)
    return model.memory_trans_norm(model.memory_trans_fc(tokens)), boxes


def decode_queries(
    model: Any, query: Tensor, memory: Tensor, memory_mask: Tensor, **inputs: Any
) -> dict[str, Any]:
    """What DINO's decoder hands to its head; mmdet's own asks for the number of images."""
    states, references = model.decoder(
        query=query,
        value=memory,
        key_padding_mask=memory_mask,
        self_attn_mask=inputs.pop("dn_mask"),
        reg_branches=model.bbox_head.reg_branches,
        **inputs,
    )
    return {"hidden_states": states, "references": list(references)}
