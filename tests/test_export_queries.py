"""Heads with queries as they are exported: what mmcv and mmdet make of images themselves."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from helpers import seed_weights
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.structures.mask import mask2bbox
from narrow_models import photo
from query_models import DETECTORS, build, narrow_config
from torch import Tensor, nn

from mmdet_agent.export import whole
from mmdet_agent.export.compare import compare, predict
from mmdet_agent.export.masks import mask_boxes
from mmengine_agent.errors import UserError
from mmengine_agent.export import formats
from mmengine_agent.export.deformable import cell_centres
from mmengine_agent.export.mask_heads import make_recordable, to_tokens
from mmengine_agent.export.modules import Prepare

SIZES = [(1, 70, 150), (2, 96, 64)]  # one with padding that reaches over cells of finer maps
FAMILIES = ("DAB-DETR", "Deformable DETR, two stages", "DINO", "Mask2Former, panoptic")


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_objects_are_those_of_mmdet(name: str) -> None:
    cfg = narrow_config(f"mmdet::{DETECTORS[name]}")
    model = build(cfg)
    made = whole(deepcopy(model), Prepare(cfg.model.data_preprocessor, "rgb"))
    for shape in SIZES:
        image = photo(*shape)
        wanted = predict(model, *made.enter(image))
        found = made(image)
        same = compare(wanted, found, 0.0, 1e-4)
        assert same.objects == sum((each.scores > 0).sum() for each in wanted) > 0
        assert (found["scores"].diff() <= 0).all()


def test_panoptic_segments_are_refused() -> None:
    model = build(narrow_config(f"mmdet::{DETECTORS['MaskFormer']}"))
    with pytest.raises(UserError, match=r"panoptic.* model\.test_cfg\.instance_on=True"):
        whole(model, nn.Identity())


def test_boxes_of_masks_are_those_of_mmdet() -> None:
    masks = torch.zeros(2, 3, 12, 9, dtype=torch.bool)
    masks[0, 0, 3:7, 2:9] = masks[0, 1, 11, 0] = masks[1, 2] = True
    masks[1, 0, 0, 8] = masks[1, 0, 5, 1] = True
    wanted = torch.stack([mask2bbox(each) for each in masks])
    assert torch.equal(mask_boxes(masks), wanted) and (wanted == 0).all(2).sum() == 2


class Attention(nn.Module):
    """Deformable attention of two maps' cells to each other."""

    least, resize = 48, None  # no map of one place

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.halve = nn.Conv2d(3, 8, 16, 16), nn.Conv2d(8, 8, 3, 2, 1)
        settings = {"num_levels": 2, "num_points": 2, "batch_first": True}
        self.attend = MultiScaleDeformableAttention(8, 2, **settings)

    def maps(self, image: Tensor) -> list[Tensor]:
        fine = self.stem(image)
        return [fine, self.halve(fine)]

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        maps = self.maps(image)
        sizes: Any = [each.shape[2:] for each in maps]
        centres = cell_centres(sizes, torch.ones(1, 2, 2))
        tokens = torch.cat([to_tokens(each) for each in maps], 1)
        return {"tokens": self.attend(tokens, reference_points=centres, spatial_shapes=sizes)}

    def wanted(self, image: Tensor) -> Tensor:
        """By mmcv's own form."""
        sizes = [each.shape[2:] for each in self.maps(image)]
        tokens = torch.cat([to_tokens(each) for each in self.maps(image)], 1)
        centres = [
            torch.stack([(x + 0.5) / width, (y + 0.5) / height]).expand(2, -1)
            for height, width in sizes
            for y in torch.arange(height)
            for x in torch.arange(width)
        ]
        return self.attend(
            tokens,
            reference_points=torch.stack(centres)[None],
            spatial_shapes=torch.tensor([tuple(each) for each in sizes]),
        )


@torch.no_grad()
def test_recorded_deformable_attention_is_that_of_mmcv() -> None:
    own = seed_weights(Attention()).eval()
    layer: Any = deepcopy(own)
    make_recordable(layer)
    run = formats.record(layer).module()
    for shape in [(1, 64, 70), (2, 100, 48)]:
        image = torch.rand(shape[0], 3, *shape[1:])
        torch.testing.assert_close(run(image)["tokens"], own.wanted(image), rtol=1e-4, atol=1e-5)
