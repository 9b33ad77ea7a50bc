"""The sliding window: tiles that cover an image, and how what is found in them is put together."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Largest
from mmengine.structures import InstanceData, PixelData

from mmdet_agent.predict.instances import coco_results, encode, instances_of, place
from mmdet_agent.predict.merge import merge
from mmengine_agent.predict.sliding_window import Axis, Grid, Tile
from mmseg_agent.predict.blend import Blend

# ---- tiles ----

SIDES = [
    (100, 32, 0),
    (100, 32, 8),
    (96, 32, 0),
    (97, 32, 31),
    (64, 32, 16),
    (20, 32, 8),
    (32, 32, 8),
]


@pytest.mark.parametrize(("length", "size", "overlap"), SIDES)
def test_tiles_cover_a_side_and_share_it_by_weights(length: int, size: int, overlap: int) -> None:
    axis = Axis.cover(length, size, overlap)
    assert axis.size == min(size, length)
    shares = np.zeros(length)
    for index, start in enumerate(axis.starts):
        shares[start : start + axis.size] += axis.weights[index]
        if index:
            assert axis.starts[index - 1] < start <= axis.starts[index - 1] + axis.size - overlap
    np.testing.assert_allclose(shares, 1, rtol=1e-6)
    assert sum(map(axis.final, range(len(axis.starts)))) == length


def test_a_pixel_of_one_tile_alone_has_the_weight_one() -> None:
    axis = Axis.cover(100, 40, 10)
    assert axis.starts == (0, 30, 60)
    assert (axis.weights[0][:30] == 1).all() and (axis.weights[1][10:30] == 1).all()
    assert (axis.weights[0][30:] < 1).all()


# ---- detection in tiles ----


def draw_boxes(height: int, width: int, count: int, most: int) -> np.ndarray:
    """Objects apart from each other, one number each, 0 between them: (height, width)."""
    random, image = np.random.RandomState(0), np.zeros((height, width), np.uint8)
    for _ in range(1000):
        h, w = random.randint(4, most + 1, 2)
        y, x = random.randint(0, height - h + 1), random.randint(0, width - w + 1)
        if (
            image.max() < count
            and not image[max(0, y - 2) : y + h + 2, max(0, x - 2) : x + w + 2].any()
        ):
            image[y : y + h, x : x + w] = image.max() + 1
            image[y, x] = 0  # a mask is not all of its box
    assert image.max() == count
    return image


def detect(image: np.ndarray) -> Any:
    """A sample as of a detector that sees every object, or what there is of it, exactly."""
    numbers = [int(number) for number in np.unique(image) if number]
    masks = (
        np.stack([image == n for n in numbers]) if numbers else np.zeros((0, *image.shape), bool)
    )
    corners = [np.argwhere(mask) for mask in masks]
    boxes = [[*p.min(0)[::-1], *(p.max(0)[::-1] + 1)] for p in corners]
    instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor([0.5 + number / 1000 for number in numbers]),
        labels=torch.tensor([number % 2 for number in numbers], dtype=torch.long),
        masks=torch.from_numpy(masks),
    )
    return Sample(pred_instances=instances)


class Sample(SimpleNamespace):
    """What models return: attributes that can be asked for by name."""

    def __contains__(self, name: str) -> bool:
        return hasattr(self, name)


def detected(image: np.ndarray, tile: int | None, overlap: int) -> list[dict[str, Any]]:
    """The results of an image that is cut into tiles, or not."""
    height, width = image.shape
    grid = Grid.cover(height, width, tile, overlap)
    return results(grid, *(detect(image[each.area]) for each in grid))


def results(grid: Grid, *samples: Any) -> list[dict[str, Any]]:
    """COCO results of an image, given what is found in each of its tiles."""
    pairs = zip(grid, samples, strict=True)
    found = [each for tile, sample in pairs for each in instances_of(sample, tile, 0.3)]
    return coco_results(merge(found, grid), grid.shape, 1, (7, 9))


@pytest.mark.parametrize(("tile", "overlap"), [(64, 32), (64, 48), (100, 30), (200, 25), (300, 20)])
def test_objects_smaller_than_the_overlap_come_whole_and_once(tile: int, overlap: int) -> None:
    image = draw_boxes(250, 310, count=50, most=overlap - 6)
    assert detected(image, tile, overlap) == detected(image, None, 0)


def test_an_object_larger_than_the_overlap_is_joined() -> None:
    image = np.zeros((150, 300), np.uint8)
    image[20:140, 10:290] = 1  # in all eight tiles
    image[50:70, 40:60] = 0
    assert len(Grid.cover(150, 300, 100, 20)) == 8
    assert detected(image, 100, 20) == detected(image, None, 0)


def test_pieces_of_two_objects_are_not_joined() -> None:
    image = np.zeros((100, 180), np.uint8)  # columns 0..100 and 80..180
    image[10:30, 20:100] = 1  # cut by the one
    image[50:90, 80:160] = 3  # and by the other, of the same class
    boxes = sorted(record["bbox"] for record in detected(image, 100, 20))
    assert boxes == [[20, 10, 80, 20], [80, 50, 80, 40]]


def test_tiles_that_do_not_overlap_change_nothing_of_each_other() -> None:
    image = np.ones((64, 128), np.uint8)  # one object, cut in the middle: two
    boxes = [record["bbox"] for record in detected(image, 64, 0)]
    assert sorted(boxes) == [[0, 0, 64, 64], [64, 0, 64, 64]]


def test_a_sure_whole_object_is_not_lost_to_a_piece() -> None:
    grid = Grid.cover(100, 160, 100, 40)  # columns 0..100 and 60..160
    piece = boxed([70, 20, 100, 60], 0.99)  # cut at 100
    whole = boxed([10, 20, 48, 60], 0.6)  # 70..108
    assert [each["bbox"] for each in results(grid, piece, whole)] == [[70, 20, 38, 40]]


def test_objects_of_two_classes_may_have_one_place() -> None:
    grid = Grid.cover(100, 160, 100, 40)
    both = results(grid, boxed([70, 20, 90, 60], 0.9), boxed([10, 20, 30, 60], 0.6, label=1))
    assert [(each["category_id"], each["bbox"]) for each in both] == [
        (7, [70, 20, 20, 40]),
        (9, [70, 20, 20, 40]),
    ]


def test_what_one_tile_shows_is_left_as_it_is() -> None:
    grid = Grid.cover(100, 160, 100, 40)
    both = (
        boxed([5, 5, 55, 95], 0.9),
        boxed([20, 40, 30, 50], 0.8),
    )  # of one class, one in the other
    instances = InstanceData.cat([each.pred_instances for each in both])
    found = results(grid, Sample(pred_instances=instances), boxed([50, 50, 60, 60], 0.1))
    assert [each["bbox"] for each in found] == [[5, 5, 50, 90], [20, 40, 10, 10]]


def boxed(box: list[float], score: float, label: int = 0) -> Sample:
    instances = InstanceData(
        bboxes=torch.tensor([box], dtype=torch.float32),
        scores=torch.tensor([score]),
        labels=torch.tensor([label]),
    )
    return Sample(pred_instances=instances)


@pytest.mark.parametrize("seed", range(8))
def test_a_mask_in_its_place_has_the_code_of_the_whole_mask(seed: int) -> None:
    random = np.random.RandomState(seed)
    height, width = random.randint(5, 30, 2)
    tile_height, tile_width = random.randint(1, height + 1), random.randint(1, width + 1)
    if seed == 1:  # runs go on in the next column
        tile_height, tile_width = height, width - 1
    y, x = (height - tile_height) * (seed % 2), (width - tile_width) * (seed // 2 % 2)
    small = (random.rand(tile_height, tile_width) < (1, 0.7, 0.1, 0)[seed // 2]).astype(np.uint8)
    whole = np.zeros((height, width), np.uint8)
    whole[y : y + tile_height, x : x + tile_width] = small
    tile = Tile(y, x, tile_height, tile_width, 0, 0)
    assert place(encode(small), tile, (height, width)) == encode(whole)


# ---- segmentation in tiles ----


def segmented(scores: np.ndarray, tile: int | None, overlap: int) -> np.ndarray:
    """Labels of an image with these scores (C, H, W), which no tile changes."""
    grid = Grid.cover(*scores.shape[1:], tile, overlap)
    blend = Blend(grid, threshold=0.5)
    for each in grid:
        part = torch.from_numpy(scores[(slice(None), *each.area)].copy())
        blend.add(each, Sample(seg_logits=PixelData(data=part)))
    return blend.labels


@pytest.mark.parametrize(("tile", "overlap"), [(32, 0), (32, 8), (32, 31), (50, 25), (200, 0)])
@pytest.mark.parametrize("classes", [1, 5])
def test_labels_do_not_depend_on_the_tiles_where_scores_do_not(
    tile: int, overlap: int, classes: int
) -> None:
    scores = np.random.RandomState(0).rand(classes, 90, 130).astype(np.float32)
    np.testing.assert_array_equal(segmented(scores, tile, overlap), segmented(scores, None, 0))


def test_where_tiles_disagree_the_one_that_sees_more_around_wins() -> None:
    grid = Grid.cover(32, 54, 32, 10)  # columns 0..32 and 22..54
    blend = Blend(grid)
    for label, each in enumerate(grid):
        scores = torch.zeros(2, 32, 32)
        scores[label] = 1
        blend.add(each, Sample(seg_logits=PixelData(data=scores)))
    np.testing.assert_array_equal(blend.labels, np.arange(54)[None].repeat(32, 0) >= 27)


def test_no_scores_of_the_image_s_size_are_made() -> None:
    grid = Grid.cover(370, 550, 100, 10)
    blend = Blend(grid)
    with Largest() as made:
        for each in grid:
            blend.add(each, Sample(seg_logits=PixelData(data=torch.zeros(3, 100, 100))))
            kept = [t for t in vars(blend).values() if isinstance(t, torch.Tensor)]
            assert all(each.numel() <= 3 * 10 * 550 for each in kept)  # shared rows and columns
    assert made.numel == 3 * 100 * 100
