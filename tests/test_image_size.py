"""--image-size: the network gets images of that size, whatever a config's pipelines are made of."""

import copy
import functools
import inspect
from pathlib import Path
from typing import Any

import mmcv.transforms
import mmdet
import mmdet.datasets.transforms
import mmdet.models.data_preprocessors
import mmseg
import mmseg.datasets.transforms
import mmseg.models.data_preprocessor
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from own_data import CONFIGS, fruit_set, scenes_set

from mmengine_agent.data.user_data import point_at
from mmengine_agent.errors import UserError
from mmengine_agent.run.changes import Changes
from mmengine_agent.run.image_size import KINDS, set_image_size

SIZE = (96, 64)  # width, height
STOCK = {"mmdet": mmdet, "mmseg": mmseg}
# configs whose training images have one size, and those that keep proportions within one
FIXED = [
    "mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py",
    "mmdet::yolox/yolox_s_8xb8-300e_coco.py",
    "agent_pvt_semantic_fpn.py",
    "mmseg::mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py",
]
WITHIN = [
    "agent_pvt_maskrcnn.py",
    "agent_swin/mask-rcnn_agent-swin-t_fpn_3x_coco.py",
    "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
]
# parameters that may hold pixels, and transforms in which they hold something else, or which only
# other transforms call
NAMES = {"scale", "scales", "size", "crop_size", "img_scale", "max_size", "border", "width"}
NAMES |= {"random_size_range", "height"}
OTHERS = {"MultiScaleFlipAug", "InstaBoost"}


def read(name: str) -> Config:
    return copy.deepcopy(read_once(name))


@functools.cache
def read_once(name: str) -> Config:
    package, _, path = name.rpartition("::")
    folder = Path(STOCK[package].__path__[0], ".mim/configs") if package else CONFIGS
    return Config.fromfile(folder / path)


def resized(name: str, size: tuple[int, int] = SIZE) -> Config:
    cfg = read(name)
    set_image_size(cfg, Changes("--image-size"), size)
    return cfg


def first_image(cfg: Config, loader: str, folder: Path) -> tuple[int, int]:
    """Width and height of what the network gets of a loader's first image, before padding."""
    point_at(cfg, scenes_set(folder) if cfg.default_scope == "mmseg" else fruit_set(folder))
    init_default_scope(cfg.default_scope)
    height, width = DATASETS.build(cfg[loader].dataset)[0]["inputs"].shape[1:]
    return width, height


@pytest.mark.parametrize("name", FIXED)
def test_images_of_one_size_have_the_new_size(name: str, tmp_path: Path) -> None:
    size = (64, 64) if "yolox" in name else SIZE  # it pads to squares
    cfg = resized(name, size)
    width, height = first_image(cfg, "train_dataloader", tmp_path)
    if cfg.default_scope == "mmseg":  # the model's data preprocessor pads
        assert cfg.model.data_preprocessor["size"] == size[::-1]
        assert width <= size[0] and height <= size[1]
    else:
        assert (width, height) == size


@pytest.mark.parametrize("name", WITHIN)
def test_images_that_keep_their_proportions_fit_the_new_size(name: str, tmp_path: Path) -> None:
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        width, height = first_image(resized(name), loader, tmp_path)
        assert max(width, height) <= max(SIZE) and min(width, height) <= min(SIZE)
        assert min(width, height) >= 0.5 * min(SIZE)


@pytest.mark.parametrize("name", [*FIXED, *WITHIN])
def test_the_own_size_of_a_config_changes_nothing(name: str) -> None:
    own = {"rtmdet": (640, 640), "yolox": (640, 640), "semantic": (512, 512)}
    own |= {"mask2former": (1024, 512), "rcnn": (1333, 800)}
    size = next((size for key, size in own.items() if key in name), None)
    if size is not None:
        cfg, changes = read(name), Changes("--image-size")
        set_image_size(cfg, changes, size)
        assert len(changes.places) >= 3
        for before, after in changes.places.values():
            # (480, 1333) and (1333, 480) are one size to a step that keeps proportions
            assert np.array_equal(np.sort(_array(before)), np.sort(_array(after)))


def _array(value: Any) -> np.ndarray:
    return np.array(value if isinstance(value, list | tuple) else [value])


def test_testing_keeps_the_proportion_of_training_where_that_crops() -> None:
    cfg = resized("agent_pvt_semantic_fpn.py", (256, 256))
    (resize,) = (s for s in cfg.test_dataloader.dataset.pipeline if s.type == "Resize")
    assert tuple(resize.scale) == (1024, 256)  # of (2048, 512), with crops of 512


def test_sliding_windows_and_later_pipelines_follow() -> None:
    cfg = read("agent_pvt_semantic_fpn.py")
    cfg.model.test_cfg = {"mode": "slide", "crop_size": (512, 512), "stride": (341, 341)}
    set_image_size(cfg, Changes("--image-size"), (256, 128))
    assert cfg.model.test_cfg.crop_size == (128, 256)
    assert cfg.model.test_cfg.stride == (85, 170)
    later = resized("mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py").custom_hooks[1].switch_pipeline
    sizes = {step.type: step for step in later}
    assert sizes["RandomCrop"].crop_size == sizes["Pad"]["size"] == SIZE


def test_sides_that_cannot_be_halved_five_times_are_padded() -> None:
    name = "mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py"
    assert resized(name, (320, 240)).model.data_preprocessor.pad_size_divisor == 32
    assert "pad_size_divisor" not in resized(name, (320, 256)).model.data_preprocessor


def test_what_a_model_is_made_for_is_refused() -> None:
    with pytest.raises(UserError, match=r"anchors of this model are made for model\.bbox_head"):
        resized("mmdet::ssd/ssd300_coco.py")
    with pytest.raises(UserError, match="at least 32"):
        resized("agent_pvt_maskrcnn.py", (640, 16))
    with pytest.raises(UserError, match="take images as they are"):
        resized("demo/agent_pvt_semantic_fpn_demo.py")


def test_every_transform_with_a_size_is_known() -> None:
    modules = [mmcv.transforms, mmdet.datasets.transforms, mmseg.datasets.transforms]
    modules += [mmdet.models.data_preprocessors, mmseg.models.data_preprocessor]
    unknown: dict[str, set[str]] = {}
    for module in modules:
        for name, kind in vars(module).items():
            if inspect.isclass(kind) and name not in OTHERS:
                taken = NAMES & set(inspect.signature(kind.__init__).parameters)
                unknown |= {name: taken - set(KINDS.get(name, {}))}
    # a number of pixels near the edges, which CenterNet's images have at any size
    assert {name: keys for name, keys in unknown.items() if keys} == {
        "RandomCenterCropPad": {"border"}
    }
