"""Prediction: inputs, tiles and how they are put together, and the tool from end to end."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import predict as tool
import pytest
import torch
from helpers import SMALL, seed_weights
from mmengine.structures import InstanceData, PixelData
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from mmdet_agent.predict.gather import DetectionGather, records
from mmdet_agent.predict.masks import encode, place
from mmengine_agent.errors import UserError
from mmengine_agent.predict.files import VideoFile
from mmengine_agent.predict.inputs import find
from mmengine_agent.predict.model import Predictor, build_model, dataset_of
from mmengine_agent.predict.tiles import Axis, Grid, Tile
from mmengine_agent.run.setup import read_config
from mmseg_agent.predict.gather import SegmentationGather

ROOT = Path(__file__).parents[1]
CONFIGS = {
    "detection": "agent_pvt_maskrcnn_demo.py",
    "segmentation": "agent_pvt_semantic_fpn_demo.py",
}
SHAPES = ("ellipse", "rectangle", "triangle", "star", "cross")


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """An image (height, width, 3) of coloured blots."""
    small = np.random.RandomState(seed).randint(0, 256, (height // 8, width // 8, 3))
    return cv2.resize(small.astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


# ---- inputs ----


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of images with a folder of images in it."""
    for name in ("b.png", "a.JPG", "notes.txt", "in/c.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "photos"


def test_a_folder_stands_for_the_media_right_in_it(folder: Path) -> None:
    assert find([str(folder)]) == ([folder / "a.JPG", folder / "b.png"], [])


def test_a_pattern_may_go_into_folders(folder: Path) -> None:
    assert find([f"{folder}/**/*.png"]) == ([folder / "b.png", folder / "in/c.png"], [])


def test_a_file_counts_once_and_whatever_its_name(folder: Path) -> None:
    (folder / "odd [1]").touch()
    names = [str(folder / "odd [1]"), str(folder / "b.png"), str(folder)]
    assert find(names)[0] == [folder / "odd [1]", folder / "b.png", folder / "a.JPG"]


def test_inputs_that_stand_for_nothing_are_named(folder: Path) -> None:
    (folder / "none").mkdir()
    wrong = [str(folder / "no.png"), str(folder / "none"), f"{folder}/*.gif"]
    paths, faults = find([*wrong, str(folder / "b.png")])
    assert paths == [folder / "b.png"]
    assert [fault.partition(": ")[0] for fault in faults] == wrong


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
    gather = DetectionGather(grid, 0.3)
    for each in grid:
        gather.add(each, detect(image[each.area]))
    return records(gather.result(), (height, width), 1, (7, 9))


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
    gather = DetectionGather(grid, 0.3)
    gather.add(tile_at(grid, 0), boxed([70, 20, 100, 60], 0.99))  # cut at 100
    gather.add(tile_at(grid, 1), boxed([10, 20, 48, 60], 0.6))  # whole, 70..108
    assert [r["bbox"] for r in records(gather.result(), (100, 160), 1, (1,))] == [[70, 20, 38, 40]]


def tile_at(grid: Grid, index: int) -> Tile:
    return list(grid)[index]


def test_objects_of_two_classes_may_have_one_place() -> None:
    grid = Grid.cover(100, 160, 100, 40)
    gather = DetectionGather(grid, 0.3)
    gather.add(tile_at(grid, 0), boxed([70, 20, 90, 60], 0.9, label=0))
    gather.add(tile_at(grid, 1), boxed([10, 20, 30, 60], 0.6, label=1))
    both = records(gather.result(), (100, 160), 1, (5, 6))
    assert [(each["category_id"], each["bbox"]) for each in both] == [
        (5, [70, 20, 20, 40]),
        (6, [70, 20, 20, 40]),
    ]


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
    gather = SegmentationGather(grid, threshold=0.5)
    for each in grid:
        part = torch.from_numpy(scores[(slice(None), *each.area)].copy())
        gather.add(each, Sample(seg_logits=PixelData(data=part)))
    return gather.result()


@pytest.mark.parametrize(("tile", "overlap"), [(32, 0), (32, 8), (32, 31), (50, 25), (200, 0)])
@pytest.mark.parametrize("classes", [1, 5])
def test_labels_do_not_depend_on_the_tiles_where_scores_do_not(
    tile: int, overlap: int, classes: int
) -> None:
    scores = np.random.RandomState(0).rand(classes, 90, 130).astype(np.float32)
    np.testing.assert_array_equal(segmented(scores, tile, overlap), segmented(scores, None, 0))


def test_where_tiles_disagree_the_one_that_sees_more_around_wins() -> None:
    grid = Grid.cover(32, 54, 32, 10)  # columns 0..32 and 22..54
    gather = SegmentationGather(grid)
    for label, each in enumerate(grid):
        scores = torch.zeros(2, 32, 32)
        scores[label] = 1
        gather.add(each, Sample(seg_logits=PixelData(data=scores)))
    np.testing.assert_array_equal(gather.result(), np.arange(54)[None].repeat(32, 0) >= 27)


def test_scores_are_kept_of_shared_rows_and_columns_alone() -> None:
    grid = Grid.cover(370, 550, 100, 10)
    gather = SegmentationGather(grid)
    for each in grid:
        gather.add(each, Sample(seg_logits=PixelData(data=torch.zeros(3, 100, 100))))
        for kept in (gather.left, gather.above, gather.below):
            assert kept is None or kept.numel() <= 3 * 10 * 550


# ---- a model ----


def small_config(task: str, path: Path) -> Path:
    """A demo config with a backbone that runs in milliseconds; the file is written to ``path``."""
    lines = [
        f"_base_ = {str(ROOT / 'configs/demo' / CONFIGS[task])!r}",
        f"arch = {dict(SMALL, _delete_=True)!r}",
        "neck = dict(in_channels=[*arch['embed_dims']])",
        "model = dict(backbone=dict(arch=arch), neck=neck)",
    ]
    if task == "detection":  # a few objects are enough
        few = dict(rpn=dict(nms_pre=50, max_per_img=50), rcnn=dict(max_per_img=8))
        lines.append(f"model.update(test_cfg={few!r})")
    path.write_text("\n".join(lines))
    return path


class Model:
    """A small model with seeded weights: its config and checkpoint."""

    def __init__(self, task: str, folder: Path) -> None:
        self.task, self.folder = task, folder
        self.config = small_config(task, folder / f"{task}.py")
        self.checkpoint = folder / f"{task}.pth"
        self.cfg = read_config(str(self.config))
        model = seed_weights(build_model(self.cfg))
        torch.save({"state_dict": model.state_dict(), "meta": {}}, self.checkpoint)


@pytest.fixture(scope="module", params=CONFIGS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model("detection", tmp_path_factory.mktemp("detector"))


@pytest.fixture(scope="module")
def segmentor(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model("segmentation", tmp_path_factory.mktemp("segmentor"))


Run = Callable[..., Path]


@pytest.fixture
def predict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """Calls the tool on inputs, with flags; the folder of what it wrote."""

    def call(model: Model, *arguments: Any, out: str = "out") -> Path:
        what = [model.config, model.checkpoint, *arguments, "--device", "cpu"]
        told = [str(each) for each in [*what, "--out", tmp_path / out]]
        monkeypatch.setattr(sys, "argv", ["predict.py", *told])
        tool.main()
        return tmp_path / out

    yield call


def write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def results(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "predictions.json").read_text())


def label_map(path: Path) -> np.ndarray:
    found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert found is not None and found.ndim == 2
    return found


# ---- the tool ----


def test_objects_are_written_as_coco_results_and_drawn(
    detector: Model, predict: Run, tmp_path: Path
) -> None:
    photos = [write(tmp_path / f"photos/{i}.png", noise(72 + 24 * i, 96, i)) for i in range(2)]
    out = predict(detector, tmp_path / "photos", "--score-thr", 0)
    found = results(out)
    coco = COCO(out / "images.json")
    assert [image["file_name"] for image in coco.dataset["images"]] == [*map(str, photos)]
    assert [image["height"] for image in coco.dataset["images"]] == [72, 96]
    assert [each["name"] for each in coco.dataset["categories"]] == [*SHAPES]
    assert {each["image_id"] for each in found} == {1, 2}
    again = coco.loadRes(found)
    for each in found:
        image = coco.loadImgs(each["image_id"])[0]
        assert 0 < each["score"] <= 1 and each["category_id"] in range(1, 6)
        x, y, width, height = each["bbox"]
        assert -0.01 <= x <= x + width <= image["width"] + 0.01
        assert -0.01 <= y <= y + height <= image["height"] + 0.01
        assert again.annToMask(each).shape == (image["height"], image["width"])
    for path in photos:
        drawn = cv2.imread(str(out / "drawn" / path.name))
        assert drawn.shape == cv2.imread(str(path)).shape
        assert (drawn != cv2.imread(str(path))).any()


def test_the_least_score_counts(detector: Model, predict: Run, tmp_path: Path) -> None:
    photo = write(tmp_path / "photo.png", noise(96, 96))
    scores = [each["score"] for each in results(predict(detector, photo, "--score-thr", 0))]
    middle = sorted(scores)[len(scores) // 2]
    some = results(predict(detector, photo, "--score-thr", middle + 5e-6))
    assert [each["score"] for each in some] == [score for score in scores if score > middle]


def test_category_ids_are_those_of_the_annotation_file(
    detector: Model, predict: Run, tmp_path: Path
) -> None:
    photo = write(tmp_path / "photo.png", noise(96, 96))
    listed = [{"id": 3 * i + 5, "name": name} for i, name in enumerate(reversed(SHAPES))]
    (tmp_path / "ann.json").write_text(
        json.dumps({"categories": [*listed, {"id": 1, "name": "x"}]})
    )
    setting = f"test_dataloader.dataset.ann_file={tmp_path / 'ann.json'}"
    out = predict(detector, photo, "--score-thr", 0, "--cfg-options", setting)
    assert json.loads((out / "images.json").read_text())["categories"] == listed[::-1]
    ids = {each["category_id"] for each in results(out)}
    assert ids and ids <= {5, 8, 11, 14, 17}


def test_the_80_classes_of_coco_have_its_ids() -> None:
    cfg = read_config(str(ROOT / "configs/agent_pvt_maskrcnn.py"))
    head = SimpleNamespace(bbox_head=SimpleNamespace(num_classes=80))
    classes = tool.classes_of(cfg, head, {}, None)  # type: ignore[arg-type]
    ids = dict(zip(classes.names, classes.ids, strict=True))
    assert (ids["person"], ids["stop sign"], ids["toothbrush"]) == (1, 13, 90)
    assert len(ids) == 80


def test_label_maps_have_the_numbers_of_the_data_set(
    segmentor: Model, predict: Run, tmp_path: Path
) -> None:
    image = noise(80, 112)
    out = predict(segmentor, write(tmp_path / "photo.jpg", image))
    listing = json.loads((out / "images.json").read_text())
    assert [each["id"] for each in listing["categories"]] == [*range(1, 9)]  # 0 is ignored
    labels = label_map(out / "labels/photo.png")
    assert len(np.unique(labels)) > 1

    model = tool.load_model(segmentor.cfg, str(segmentor.checkpoint), torch.device("cpu"))[0]
    predictor = Predictor(model, dataset_of(segmentor.cfg).pipeline)
    (sample,) = predictor([predictor.load(str(tmp_path / "photo.jpg"))])
    np.testing.assert_array_equal(labels, sample.pred_sem_seg.data[0].numpy() + 1)
    assert (cv2.imread(str(out / "drawn/photo.jpg")) != image).any()
    assert cv2.imread(str(out / "legend.png")) is not None


def test_tiles_are_predicted_as_images_of_their_own(
    model: Model, predict: Run, tmp_path: Path
) -> None:
    parts = [write(tmp_path / f"parts/{i}.png", noise(64, 64, i)) for i in range(6)]
    rows = [np.hstack([cv2.imread(str(path)) for path in parts[i : i + 3]]) for i in (0, 3)]
    mosaic = write(tmp_path / "mosaic.png", np.vstack(rows))
    flags = ("--score-thr", 0, "--no-draw")
    alone = predict(model, tmp_path / "parts", *flags, out="alone")
    tiled = predict(model, mosaic, *flags, "--tile", 64, "--overlap", 0, out="tiled")
    if model.task == "segmentation":
        maps = [label_map(alone / f"labels/{i}.png") for i in range(6)]
        whole = np.vstack([np.hstack(maps[:3]), np.hstack(maps[3:])])
        np.testing.assert_array_equal(label_map(tiled / "labels/mosaic.png"), whole)
    else:
        wanted = [in_mosaic(each) for each in results(alone)]
        key = json.dumps
        assert sorted(wanted, key=key) == sorted(results(tiled), key=key)


def in_mosaic(record: dict[str, Any]) -> dict[str, Any]:
    """A result of one of six parts of 64 x 64 pixels, in a mosaic of two rows of three."""
    y, x = (64 * place for place in divmod(record["image_id"] - 1, 3))
    left, top, width, height = record["bbox"]
    mask = np.zeros((128, 192), np.uint8, order="F")
    mask[y : y + 64, x : x + 64] = coco_mask.decode(record["segmentation"])
    code = coco_mask.encode(mask)
    return {
        **record,
        "image_id": 1,
        "bbox": [round(left + x, 2), round(top + y, 2), width, height],
        "segmentation": {**code, "counts": code["counts"].decode()},
    }


def test_overlapping_tiles_are_predicted_and_drawn(
    model: Model, predict: Run, tmp_path: Path
) -> None:
    image = noise(120, 200)
    photo = write(tmp_path / "photo.png", image)
    flags = ("--tile", 64, "--overlap", 16, "--batch-size", 3, "--score-thr", 0)
    out = predict(model, photo, *flags)
    drawn = cv2.imread(str(out / "drawn/photo.png"))
    assert drawn.shape == image.shape
    changed = (drawn != image).any(2)
    assert all(changed[y : y + 60, x : x + 50].any() for y in (0, 60) for x in (0, 50, 100, 150))
    if model.task == "segmentation":
        assert (label_map(out / "labels/photo.png") >= 1).all()
    else:
        assert {tuple(each["segmentation"]["size"]) for each in results(out)} == {(120, 200)}


def test_batches_change_nothing(model: Model, predict: Run, tmp_path: Path) -> None:
    for i, size in enumerate([(64, 96), (96, 64), (64, 96)]):
        write(tmp_path / f"photos/{i}.png", noise(*size, i))
    both = [
        predict(model, tmp_path / "photos", "--batch-size", n, "--score-thr", 0, out=f"by{n}")
        for n in (1, 3)
    ]
    if model.task == "segmentation":
        for i in range(3):
            one, other = (label_map(out / f"labels/{i}.png") for out in both)
            assert (one != other).mean() < 0.001  # sums in another order
    else:
        one, other = (results(out) for out in both)
        for a, b in zip(one, other, strict=True):
            assert (a["image_id"], a["category_id"]) == (b["image_id"], b["category_id"])
            assert a["bbox"] == pytest.approx(b["bbox"], abs=0.05)


def test_a_video_becomes_a_video_and_results_of_each_frame(
    model: Model, predict: Run, tmp_path: Path
) -> None:
    clip = VideoFile(tmp_path / "clip.mp4", 10, (64, 96))
    for i in range(3):
        clip.add(noise(64, 96, i))
    clip.close(keep=True)
    out = predict(model, tmp_path / "clip.mp4", "--score-thr", 0)
    listing = json.loads((out / "images.json").read_text())
    assert [each["frame"] for each in listing["images"]] == [0, 1, 2]
    drawn = cv2.VideoCapture(str(out / "drawn/clip.mp4"))
    assert drawn.get(cv2.CAP_PROP_FPS) == 10
    frames = [drawn.read()[1] for _ in range(4)]
    assert [frame is not None and frame.shape for frame in frames] == [(64, 96, 3)] * 3 + [False]
    if model.task == "segmentation":
        names = sorted(path.name for path in (out / "labels/clip").iterdir())
        assert names == ["000000.png", "000001.png", "000002.png"]
    else:
        assert {each["image_id"] for each in results(out)} == {1, 2, 3}


def test_files_of_one_name_do_not_meet(segmentor: Model, predict: Run, tmp_path: Path) -> None:
    photos = [write(tmp_path / name, noise(64, 64)) for name in ("a/x.png", "b/x.png", "b/x.jpg")]
    out = predict(segmentor, *photos)
    assert {path.name for path in (out / "labels").iterdir()} == {"x.png", "x_2.png", "x_3.png"}
    assert {path.name for path in (out / "drawn").iterdir()} == {"x.png", "x_2.png", "x_3.jpg"}


def test_what_is_not_wanted_is_not_written(model: Model, predict: Run, tmp_path: Path) -> None:
    photo = write(tmp_path / "photo.png", noise(64, 64))
    names = {"detection": "predictions.json", "segmentation": "labels"}
    drawn = {"detection": {"drawn"}, "segmentation": {"drawn", "legend.png"}}[model.task]
    plain = predict(model, photo, "--no-draw", out="plain")
    assert {path.name for path in plain.iterdir()} == {"images.json", names[model.task]}
    pictures = predict(model, photo, "--no-results", out="pictures")
    assert {path.name for path in pictures.iterdir()} == {"images.json", *drawn}


def test_names_of_classes_come_from_the_user_the_checkpoint_or_the_config(model: Model) -> None:
    built = build_model(model.cfg)
    count = 5 if model.task == "detection" else 8
    own, given = [f"own{i}" for i in range(count)], [f"given{i}" for i in range(count)]
    meta = {"dataset_meta": {"classes": own, "palette": [[i, 0, 0] for i in range(count)]}}
    assert tool.classes_of(model.cfg, built, meta, given).names == tuple(given)
    assert tool.classes_of(model.cfg, built, meta, None).names == tuple(own)
    assert tool.classes_of(model.cfg, built, meta, None).colours[2] == (2, 0, 0)
    old = {"CLASSES": own}  # as OpenMMLab 1 and 2 wrote it
    assert tool.classes_of(model.cfg, built, old, None).names == tuple(own)
    assert tool.classes_of(model.cfg, built, {}, None).names[-1] == "cross"
    meta["dataset_meta"]["classes"] = own[:3]  # of another model
    assert tool.classes_of(model.cfg, built, meta, None).names[-1] == "cross"


# ---- mistakes ----


def test_good_inputs_are_finished_and_bad_ones_named(
    detector: Model, predict: Run, tmp_path: Path
) -> None:
    good = [write(tmp_path / f"photos/{name}.png", noise(64, 64)) for name in "ac"]
    (tmp_path / "photos/b.png").write_text("no image")
    (tmp_path / "photos/d.mp4").write_text("no video")
    with pytest.raises(UserError) as error:
        predict(detector, tmp_path / "photos", tmp_path / "none.jpg")
    lines = str(error.value).splitlines()
    assert lines[0].startswith("3 inputs")
    assert sorted(line.rpartition("/")[2].partition(":")[0] for line in lines[1:]) == [
        "b.png",
        "d.mp4",
        "none.jpg",
    ]
    listing = json.loads((tmp_path / "out/images.json").read_text())
    assert [each["file_name"] for each in listing["images"]] == [*map(str, good)]
    assert {path.name for path in (tmp_path / "out/drawn").iterdir()} == {"a.png", "c.png"}
    assert not [*(tmp_path / "out").rglob("*.part*")]


def test_nothing_is_left_of_a_run_that_fails(
    detector: Model, predict: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = write(tmp_path / "photo.png", noise(64, 64))

    def fail(*_: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch.nn.Module, "__call__", fail)
    with pytest.raises(UserError, match="--tile"):
        predict(detector, photo)
    assert not (tmp_path / "out").exists()


# flags, and what the message must name
MISTAKES: dict[str, tuple[list[str], list[str]]] = {
    "no input": (["nowhere/x.jpg"], ["nowhere/x.jpg"]),
    "an empty batch": (["{photo}", "--batch-size", "0"], ["--batch-size", "0"]),
    "overlap of nothing": (["{photo}", "--overlap", "8"], ["--overlap", "--tile"]),
    "all overlap": (["{photo}", "--tile", "64", "--overlap", "64"], ["--overlap", "64"]),
    "tiny tiles": (["{photo}", "--tile", "8"], ["--tile", "32"]),
    "nothing to write": (["{photo}", "--no-draw", "--no-results"], ["--no-draw", "--no-results"]),
    "too few classes": (["{photo}", "--classes", "a", "b"], ["5 classes", "names for 2"]),
    "no list of classes": (["{photo}", "--classes", "no.txt"], ["--classes", "no.txt"]),
    "no such device": (["{photo}", "--device", "abacus"], ["--device", "abacus"]),
    "an output in the way": (["{photo}", "--out", "{photo}"], ["--out", "{photo}"]),
    "another config": (["{photo}", "--cfg-options", "model.neck.out_channels=48"], ["fit"]),
    "no such model": (["{photo}", "--cfg-options", "model.type=NoSuch"], ["NoSuch"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message(
    mistake: str, detector: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = write(tmp_path / "photo.png", noise(64, 64))
    flags, wanted = MISTAKES[mistake]
    told = [str(detector.config), str(detector.checkpoint), *flags]
    monkeypatch.setattr(sys, "argv", ["predict.py", *(each.format(photo=photo) for each in told)])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        tool.main()
    for words in wanted:
        assert words.format(photo=photo) in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.png"]


def test_the_command_names_what_is_missing_and_exits_with_1(tmp_path: Path) -> None:
    config = str(ROOT / "configs/demo" / CONFIGS["detection"])
    (tmp_path / "photo.png").touch()
    command = [sys.executable, str(ROOT / "tools/predict.py"), config, "no.pth", "photo.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: there is no checkpoint no.pth")
    assert "Traceback" not in done.stderr
