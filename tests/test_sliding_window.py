"""The sliding window: tiles that cover an image, and how what is found in them is put together."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Largest
from mmengine.structures import InstanceData, PixelData

from mmdet_agent.predict.instances import coco_result, code_of_image, crop, encode, instances_of
from mmdet_agent.predict.merge import merge
from mmengine_agent.predict.classes import Classes
from mmengine_agent.predict.sliding_window import Tile, cover
from mmseg_agent.predict.writer import SegmentationWriter

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
def test_tiles_of_one_size_cover_a_side_and_share_it_out(
    length: int, size: int, overlap: int
) -> None:
    spans = [tile.columns for tile in cover(10, length, size, overlap)]
    assert {end - start for start, end, *_ in spans} == {min(size, length)}
    for one, other in pairwise(spans):
        assert one.start < other.start <= one.end - overlap
    shares = [range(*span.share) for span in spans]
    assert [pixel for share in shares for pixel in share] == [*range(length)]
    assert all(span.start <= low < high <= span.end for span in spans for low, high in [span.share])


def test_a_pixel_is_of_the_tile_whose_middle_is_nearest() -> None:
    spans = [tile.rows for tile in cover(100, 10, 40, 10)]
    middles = [(span.start + span.end - 1) / 2 for span in spans]
    assert middles == [19.5, 49.5, 79.5]
    for pixel in range(100):
        (owner,) = [i for i, span in enumerate(spans) if pixel in range(*span.share)]
        assert abs(middles[owner] - pixel) == min(abs(middle - pixel) for middle in middles)


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
    tiles = cover(*image.shape, tile, overlap)
    return results(tiles, *(detect(image[each.area]) for each in tiles))


def results(tiles: list[Tile], *samples: Any) -> list[dict[str, Any]]:
    """COCO results of an image, given what is found in each of its tiles."""
    pairs = zip(tiles, samples, strict=True)
    found = [each for tile, sample in pairs for each in instances_of(sample, tile, 0.3)]
    shape = tiles[-1].rows.end, tiles[-1].columns.end
    objects = sorted(merge(found, shape), key=lambda each: -each.score)
    return [coco_result(each, shape, 1, (7, 9)) for each in objects]


@pytest.mark.parametrize(("tile", "overlap"), [(64, 32), (64, 48), (100, 30), (200, 25), (300, 20)])
def test_objects_smaller_than_the_overlap_come_whole_and_once(tile: int, overlap: int) -> None:
    image = draw_boxes(250, 310, count=50, most=overlap - 6)
    assert detected(image, tile, overlap) == detected(image, None, 0)


def test_an_object_larger_than_the_overlap_is_joined() -> None:
    image = np.zeros((150, 300), np.uint8)
    image[20:140, 10:290] = 1  # in all eight tiles
    image[50:70, 40:60] = 0
    assert len(cover(150, 300, 100, 20)) == 8
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
    tiles = cover(100, 160, 100, 40)  # columns 0..100 and 60..160
    piece = boxed([70, 20, 100, 60], 0.99)  # cut at 100
    whole = boxed([10, 20, 48, 60], 0.6)  # 70..108
    assert [each["bbox"] for each in results(tiles, piece, whole)] == [[70, 20, 38, 40]]


def test_objects_of_two_classes_may_have_one_place() -> None:
    tiles = cover(100, 160, 100, 40)
    both = results(tiles, boxed([70, 20, 90, 60], 0.9), boxed([10, 20, 30, 60], 0.6, label=1))
    assert [(each["category_id"], each["bbox"]) for each in both] == [
        (7, [70, 20, 20, 40]),
        (9, [70, 20, 20, 40]),
    ]


def test_what_one_tile_shows_is_left_as_it_is() -> None:
    tiles = cover(100, 160, 100, 40)
    both = (
        boxed([5, 5, 55, 95], 0.9),
        boxed([20, 40, 30, 50], 0.8),
    )  # of one class, one in the other
    instances = InstanceData.cat([each.pred_instances for each in both])
    found = results(tiles, Sample(pred_instances=instances), boxed([50, 50, 60, 60], 0.1))
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
    assert code_of_image(crop(small, y, x), (height, width)) == encode(whole)


# ---- segmentation in tiles ----


def segmented(shape: tuple[int, int], tiles: list[Tile], labels: list[torch.Tensor]) -> np.ndarray:
    """Labels (H, W) of an image, given those (h, w) of each of its tiles."""
    classes = Classes(("a", "b"), ((0, 0, 0),) * 2, (0, 1))
    samples = (Sample(pred_sem_seg=PixelData(data=each[None])) for each in labels)
    return SegmentationWriter(classes, 0.5).merge(shape, zip(tiles, samples, strict=True))


@pytest.mark.parametrize(("tile", "overlap"), [(32, 0), (32, 8), (32, 31), (50, 25), (200, 0)])
def test_labels_do_not_depend_on_the_tiles_where_those_in_them_do_not(
    tile: int, overlap: int
) -> None:
    wanted = torch.from_numpy(np.random.RandomState(0).randint(0, 5, (90, 130)))
    tiles = cover(90, 130, tile, overlap)
    labels = segmented((90, 130), tiles, [wanted[each.area] for each in tiles])
    np.testing.assert_array_equal(labels, wanted)


def test_where_tiles_disagree_the_one_that_sees_more_around_wins() -> None:
    tiles = cover(32, 54, 32, 10)  # columns 0..32 and 22..54
    labels = segmented((32, 54), tiles, [torch.full((32, 32), label) for label in (0, 1)])
    np.testing.assert_array_equal(labels, np.arange(54)[None].repeat(32, 0) >= 27)


def test_no_tensor_of_the_image_s_size_is_made() -> None:
    tiles = cover(370, 550, 100, 10)
    with Largest() as made:
        segmented((370, 550), tiles, [torch.zeros(100, 100) for _ in tiles])
    assert made.numel == 100 * 100
