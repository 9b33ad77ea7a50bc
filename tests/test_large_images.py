"""Large images: sizes of memory, whole or in tiles, and the same results in less memory."""

import sys
from argparse import ArgumentTypeError
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers import SMALL, seed_weights
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from mmseg.models import EncoderDecoder
from mmseg.structures import SegDataSample
from torch import nn

from agent_toolkit.commands import predict as tool
from mmdet_agent.predict.masks import paste_one_by_one
from mmengine_agent.errors import UserError
from mmengine_agent.predict.inputs import Frame
from mmengine_agent.predict.memory import (
    LEAST_TILE,
    Limit,
    Memory,
    fit,
    read_peak,
    read_size,
    restart_peak,
)
from mmengine_agent.predict.model import build_model
from mmengine_agent.predict.run import _batches
from mmengine_agent.predict.sliding_window import Tile, cover
from mmengine_agent.run.exit import run_tool
from mmengine_agent.run.setup import read_config
from mmseg_agent.predict.labels import leave_out_scores

CONFIG = Path(__file__).parents[1] / "configs/demo/agent_pvt_semantic_fpn_demo.py"
GB = 10**9


# ---- sizes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GB", 8 * GB),
        ("8gb", 8 * GB),
        ("8G", 8 * GB),
        ("8GiB", 8 * 2**30),
        ("1.5 GiB", 3 * 2**29),
        ("800MB", 800 * 10**6),
        ("64kib", 64 * 2**10),
        ("1tb", 10**12),
        ("123456", 123456),
        ("123456 B", 123456),
    ],
)
def test_a_size_is_read(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GB", "8 apples", "-8GB", "8iB", "0GB", "8GBB", "1e9", "8,5GB"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="no size such as 8GB"):
        read_size(text)


# ---- what predictions take


def test_a_model_that_is_linear_in_pixels_is_extrapolated_as_a_line() -> None:
    # the first point is off, as where small tensors come from memory that is kept
    memory = fit([(100, 1700.0), (200, 1800.0), (400, 2100.0), (800, 2700.0)])
    assert (memory.base, memory.linear, memory.square) == (1500, 1.5, 0)


def test_a_model_that_grows_faster_is_not_taken_for_linear() -> None:
    truth = Memory(1000, 2, 0.01)
    points = [(p, 1000 + 2 * p + 0.01 * p * p) for p in (256, 1024, 2304)]
    assert fit(points) == pytest.approx(truth)


@pytest.mark.parametrize("memory", [Memory(500, 3), Memory(500, 3, 0.02), Memory(500, 0)])
@pytest.mark.parametrize("size", [400, 501, 10_000, 10_000_000])
def test_as_many_pixels_as_fit(memory: Memory, size: int) -> None:
    most = memory.most_pixels(size)
    if size < memory.base:
        assert most == 0
    else:
        assert memory.peak(most) <= size
        assert memory.peak(1.01 * most + 1) > size or not memory.linear


# ---- whole or in tiles


def limit(size: int, **more: Any) -> Limit:
    """Of a model that takes 1 GB and 250 bytes a pixel."""
    return Limit(size, Memory(GB, 250 / 1.1), lambda height, width: height * width, 0, **more)


def test_what_fits_is_whole_and_what_does_not_is_cut_into_tiles_that_fit() -> None:
    for size in (2 * GB, 4 * GB, 9 * GB, 10 * GB):
        some = limit(size)
        side = some.tile_side(4320, 7680)
        assert (side is None) == (size >= GB + 250 * 4320 * 7680)
        for tile in cover(4320, 7680, side, (side or 0) // 8) if side else []:
            assert some.takes([(np.empty((4320, 7680), np.uint8), tile)])
        line = some.describe(4320, 7680, side)
        assert ("whole, about 9.29 GB" in line) if side is None else (f"tiles of {side}" in line)


def test_tiles_of_a_panorama_are_as_high_as_it() -> None:
    side = limit(2 * GB).tile_side(600, 20_000)
    assert side is not None and side > 6000 and 600 * side * 250 <= GB


def test_an_image_in_memory_counts_too() -> None:
    assert limit(10 * GB).tile_side(4000, 8000) is None
    around = Limit(10 * GB, Memory(GB, 250), lambda h, w: h * w, around=40)
    assert around.tile_side(4000, 8000) is not None


def test_what_is_too_little_for_a_small_tile_is_said() -> None:
    with pytest.raises(UserError, match=f"1.01 GB is too little: a tile of {LEAST_TILE}"):
        limit(1_010_000_000).tile_side(4320, 7680)


def test_a_tile_that_the_config_enlarges_counts_as_large_as_the_model_sees_it() -> None:
    seen = Limit(GB + 250 * 10**6, Memory(GB, 250 / 1.1), lambda h, w: max(h * w, 4 * 10**6), 0)
    with pytest.raises(UserError, match=r"takes about 2.00 GB"):
        seen.tile_side(4320, 7680)


def test_what_is_not_joined_is_not_cut() -> None:
    with pytest.raises(UserError, match=r"whole it takes about 9.29 GB.*not joined"):
        limit(2 * GB, joins_tiles=False).tile_side(4320, 7680)


def parts() -> Iterator[tuple[Frame, Tile]]:
    for side in (1000, 1000, 1000, 2000, 1000):
        image = np.empty((side, side, 3), np.uint8)
        yield Frame(Path(), image), cover(side, side, None, 0)[0]


def test_batches_are_as_large_as_fits_and_no_larger_than_asked_for() -> None:
    def sizes(most: int, size: int | None) -> list[int]:
        return [len(each) for each in _batches(parts(), most, limit(size) if size else None)]

    assert sizes(3, None) == [3, 2]
    assert sizes(8, 100 * GB) == [5]
    assert sizes(3, GB + 500 * 10**6) == [2, 1, 1, 1]  # two million pixels; the larger one alone


# ---- the same in less memory


@pytest.fixture(scope="module")
def config() -> Any:
    cfg = read_config(str(CONFIG))
    cfg.model.backbone.arch, cfg.model.neck.in_channels = dict(SMALL), list(SMALL["embed_dims"])
    return cfg


@pytest.fixture(scope="module")
def segmentor(config: Any) -> Any:
    return seed_weights(build_model(config)).eval()


@pytest.mark.parametrize("align_corners", [False, True])
def test_labels_are_those_of_all_scores_at_once(segmentor: Any, align_corners: bool) -> None:
    segmentor.align_corners = segmentor.decode_head.align_corners = align_corners
    classes = segmentor.decode_head.conv_seg
    with torch.no_grad():  # ties: two classes with the same scores everywhere
        classes.weight[5], classes.bias[5] = classes.weight[2], classes.bias[2]
    images = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    # one padded, one of another size before
    metas = [
        {"ori_shape": (91, 117), "img_shape": (91, 117), "padding_size": [0, 11, 0, 5]},
        {"ori_shape": (201, 77), "img_shape": (96, 128), "padding_size": [0, 0, 0, 0]},
    ]
    with torch.no_grad():
        samples = [SegDataSample(metainfo=meta) for meta in metas]
        wanted = [
            each.pred_sem_seg.data for each in EncoderDecoder.predict(segmentor, images, samples)
        ]
        leave_out_scores(segmentor)
        assert "predict" in vars(segmentor)
        samples = [SegDataSample(metainfo=meta) for meta in metas]
        found = segmentor.predict(images, samples)
    for sample, labels in zip(found, wanted, strict=True):
        assert "seg_logits" not in sample
        assert labels.unique().numel() > 2 and not (labels == 5).any()
        assert torch.equal(sample.pred_sem_seg.data.long(), labels)


@pytest.mark.parametrize("cascade", [False, True])
def test_masks_pasted_one_by_one_are_those_pasted_at_once(cascade: bool) -> None:
    torch.manual_seed(0)
    head = FCNMaskHead(num_convs=1, in_channels=4, conv_out_channels=4, num_classes=3).eval()
    masks = torch.randn(5, 3, 14, 14).cumsum(2).cumsum(3)  # in pieces, not noise
    boxes = torch.tensor(
        [
            [3, 4, 60, 50],
            [-20, -5, 30, 30],
            [70, 60, 140, 130],
            [10, 10, 10.4, 10.2],
            [0, 0, 99, 79],
        ]
    )
    meta = {"ori_shape": (40, 50), "scale_factor": (2.0, 2.0)}
    wanted, found = (
        InstanceData(
            bboxes=boxes.clone(), labels=torch.tensor([0, 1, 2, 0, 1]), scores=torch.ones(5)
        )
        for _ in range(2)
    )
    options = {"rcnn_test_cfg": ConfigDict(mask_thr_binary=0.5), "rescale": True}
    head.predict_by_feat((masks,), [wanted], [meta], **options)
    heads = nn.ModuleList([nn.Identity(), head]) if cascade else head
    paste_one_by_one(SimpleNamespace(roi_head=SimpleNamespace(mask_head=heads)))
    head.predict_by_feat((masks,), [found], [meta], **options)
    assert torch.equal(found.bboxes, wanted.bboxes) and found.bboxes[0, 2] == 30
    assert wanted.masks.any(0).any() and isinstance(found.masks, list)
    for code, mask in zip(found[wanted.scores > 0].masks, wanted.masks.numpy(), strict=True):
        area, part = code.decode()
        whole = np.zeros_like(mask)
        whole[area] = part
        assert np.array_equal(whole, mask)


# ---- the tool


@pytest.fixture(scope="module")
def checkpoint(
    config: Any, segmentor: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A config and a checkpoint."""
    folder = tmp_path_factory.mktemp("model")
    config.dump(folder / "config.py")
    torch.save({"state_dict": segmentor.state_dict(), "meta": {}}, folder / "model.pth")
    return folder / "config.py", folder / "model.pth"


Tool = Any


@pytest.fixture
def predict(
    checkpoint: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> Tool:
    """Runs the tool on an image of 320 x 416 pixels: exit code, what it printed, its labels."""
    image = np.random.default_rng(0).integers(0, 256, (10, 13, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "photo.png"), cv2.resize(image, (416, 320)))

    def call(*flags: Any) -> tuple[int, str, Any]:
        files = [*checkpoint, tmp_path / "photo.png", "--out", tmp_path / "out", "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, files), *map(str, flags)])
        with pytest.raises(SystemExit) as done:
            run_tool(tool.main)
        text = capsys.readouterr()
        found = cv2.imread(str(tmp_path / "out/labels/photo.png"), cv2.IMREAD_UNCHANGED)
        return int(done.value.code or 0), text.out + text.err, found

    return call


def test_whole_images_are_predicted_as_without_a_limit(predict: Tool) -> None:
    _, _, wanted = predict()
    assert restart_peak()
    size = (read_peak() or 0) + 200 * 10**6  # more would have larger images measured first
    code, text, found = predict("--max-memory", size)
    assert code == 0 and "320 x 416 pixels: whole, about" in text
    assert wanted is not None and np.array_equal(found, wanted)


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("--max-memory", "20MB"), 1, "--max-memory 0.02 GB is too little: a tile of 256 x 256"),
        (("--max-memory", "1GB", "--tile", "64"), 2, "--tile and --max-memory both"),
        (
            ("--max-memory", "1GB", "--overlap", "256"),
            1,
            "--overlap must be from 0 to less than 256",
        ),
        (("--max-memory", "much"), 2, "'much' is no size such as 8GB"),
    ],
)
def test_a_mistake_is_one_sentence(
    predict: Tool, tmp_path: Path, flags: tuple[str, ...], code: int, words: str
) -> None:
    found, text, _ = predict(*flags)
    assert found == code and words in text and text.count("error: ") == 1
    assert "Traceback" not in text and not (tmp_path / "out").exists()
