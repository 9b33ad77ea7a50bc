"""The size of images: every size in pixels of a config's pipelines and model follows one.

A pipeline's own size is that of its last step with one: what the network gets. It becomes the new
size, and all others of the pipeline and of the model keep their proportion to it. A test pipeline
whose size is one of the training's follows the training's: mmseg resizes to (2048, 512) in both,
and crops to (512, 512) in training.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from mmengine.config import Config

from mmengine_agent.config_walk import type_name, walk
from mmengine_agent.errors import UsageError, UserError
from mmengine_agent.run.changes import Changes

LEAST = 32  # pixels of a side that the backbones take, and their largest stride
Size = tuple[int, int]  # width, height

# by type, then by key: what the value is.
#   wh, hw   a side of a square, a pair or a list of pairs, in this order
#   edge     the shorter side, or a list of these;   long: the longer one
#   range    two sides between which one is drawn
KINDS: dict[str, dict[str, str]] = {
    "Resize": {"scale": "wh"},
    "FixScaleResize": {"scale": "wh"},
    "FixShapeResize": {"width": "width", "height": "height"},
    "RandomResize": {"scale": "wh"},
    "RandomChoiceResize": {"scales": "wh", "max_size": "long"},
    "ResizeShortestEdge": {"scale": "edge", "max_size": "long"},
    "RandomCrop": {"crop_size": "wh"},
    "CenterCrop": {"crop_size": "wh"},
    "RandomCenterCropPad": {"crop_size": "wh"},
    "Pad": {"size": "wh"},
    "Mosaic": {"img_scale": "wh"},
    "CachedMosaic": {"img_scale": "wh"},
    "MixUp": {"img_scale": "wh"},
    "CachedMixUp": {"img_scale": "wh"},
    "RandomMosaic": {"img_scale": "hw"},
    "RandomAffine": {"border": "border"},
    "BatchFixedSizePad": {"size": "hw"},
    "BatchSyncRandomResize": {"random_size_range": "range"},
    "BatchResize": {"scale": "wh"},
    "SegDataPreProcessor": {"size": "hw"},
}
_SLIDE = {"crop_size": "hw", "stride": "hw"}  # of a model's test_cfg
_MMSEG = {"RandomCrop": {"crop_size": "hw"}}  # where mmseg has another order than mmdet


class _Place(NamedTuple):
    path: str
    node: Any
    kind: str

    @property
    def value(self) -> Any:
        return self.node[self.path.rpartition(".")[2]]

    def sizes(self) -> list[Size]:
        """The sizes that stand there, as width and height."""
        if self.kind not in ("wh", "hw"):
            return []
        pairs = [self.value] if _is_pair(self.value) else self.value
        found = [tuple(each) if _is_pair(each) else (each, each) for each in _as_list(pairs)]
        return [pair if self.kind == "wh" else pair[::-1] for pair in found]


class _Scaling(NamedTuple):
    """From an old size of the network's images to the new one."""

    old: Size
    new: Size

    def side(self, value: int, axis: int) -> int:
        """A width (axis 0) or height (1)."""
        return round(value * self.new[axis] / self.old[axis])

    def edge(self, value: int, choose: Any) -> int:
        """A shorter (choose=min) or longer (max) side."""
        return round(value * choose(self.new) / choose(self.old))

    def size(self, size: Size, is_free: bool) -> Size:
        """A size; one that is free stands for its longer and its shorter side, in any order."""
        if size == self.old:
            return self.new
        if is_free and size[0] != size[1]:
            least, most = (self.edge(each(size), each) for each in (min, max))
            return (most, least) if size[0] > size[1] else (least, most)
        return self.side(size[0], 0), self.side(size[1], 1)


def set_image_size(cfg: Config, changes: Changes, size: Size) -> None:
    """Have a config train and test on images of a size, in place.

    Args:
        cfg: of a training or a test.
        changes: takes what is changed.
        size: width and height in pixels, of what the network gets.

    Raises:
        UserError: if the config has no size that is known here, or a model that is made for one.
    """
    size = (size[0], size[1])  # a list, from the command line
    if min(size) < LEAST:
        raise UsageError(f"{changes.flag}: sides must be at least {LEAST} pixels")
    for path, node in walk(cfg.get("model"), "model"):
        if "input_size" in node and "Anchor" in type_name(node):
            raise UserError(f"{changes.flag}: the anchors of this model are made for {path}")
    scope = cfg.get("default_scope")
    loaders = {name: f"{name}_dataloader" for name in ("train", "val", "test")}
    places = {
        name: list(_places(cfg.get(loader), loader, scope)) for name, loader in loaders.items()
    }
    later = [*_places(cfg.get("custom_hooks"), "custom_hooks", scope)]
    later += _places(cfg.get("model"), "model", scope)
    later += _places(cfg.get("data_preprocessor"), "data_preprocessor", scope)
    own = {name: _own_size(found) for name, found in places.items()}
    if not any(own.values()):
        raise UserError(
            f"{changes.flag}: the pipelines of this config take images as they are; give them a "
            "Resize step in a config"
        )
    trained = {tuple(sorted(each)) for place in places["train"] for each in place.sizes()}
    made: list[tuple[_Place, Any]] = []
    for name, found in places.items():
        old = own[name]
        follows = scope == "mmseg" or tuple(sorted(old or ())) in trained
        if name != "train" and follows:
            old = own["train"] or old
        if name == "test":
            found += _places(cfg.get("tta_pipeline"), "tta_pipeline", scope)
        if name == "train":
            found += later
            old = old or own["test"] or own["val"]
        if old:
            made += [(place, _scaled(place, _Scaling(old, size))) for place in found]
    for place, value in made:  # all at once: loaders may share a pipeline
        changes.set(place.path, place.node, value)
    padding = cfg.model.get("data_preprocessor") or {}
    is_odd = any(side % LEAST for side in size) and padding.get("pad_size_divisor", 1) % LEAST
    if scope != "mmseg" and is_odd:
        # necks that double maps, such as RTMDet's, want halves without a rest
        changes.set("model.data_preprocessor.pad_size_divisor", padding, LEAST)


def network_size(cfg: Config, loader: str) -> Size | None:
    """The largest width and height that a loader gives the network; None if images keep theirs."""
    return _own_size([*_places(cfg.get(loader), loader, cfg.get("default_scope"))])


def _places(node: Any, path: str, scope: str | None) -> Iterator[_Place]:
    """Every size in a part of a config."""
    kinds = {**KINDS, **(_MMSEG if scope == "mmseg" else {})}
    for where, each in walk(node, path):
        slides = path == "model" and each.get("mode") == "slide"
        for key, kind in (_SLIDE if slides else kinds.get(type_name(each), {})).items():
            if key in each and _holds_pixels(each[key], each):
                many = kind == "wh" and isinstance(each[key], list | tuple)
                edges = many and all(isinstance(side, int) for side in each[key])
                # shorter sides to choose from, where a pair would be a size
                is_choice = edges and (key == "scales" or len(each[key]) != 2)
                yield _Place(f"{where}.{key}", each, "edge" if is_choice else kind)


def _holds_pixels(value: Any, node: Any) -> bool:
    """Whether a value is in pixels: not None, no shares, no range of crops."""
    if node.get("crop_type", "absolute") not in ("absolute", "absolute_range"):
        return False
    if isinstance(value, list | tuple):
        return bool(value) and all(_holds_pixels(each, {}) for each in value)
    return isinstance(value, int) and not isinstance(value, bool)


def _own_size(places: list[_Place]) -> Size | None:
    """What the network gets of a pipeline: the largest size of its last step with one."""
    for place in reversed(places):
        if place.sizes() and place.node.get("crop_type") != "absolute_range":
            return max(place.sizes(), key=lambda size: size[0] * size[1])
    return None


def _scaled(place: _Place, to: _Scaling) -> Any:
    """The new value of a place, of the old one's form."""
    value, kind = place.value, place.kind
    if kind in ("width", "height"):
        return to.side(value, int(kind == "height"))
    if kind in ("edge", "long"):
        choose = min if kind == "edge" else max
        return _each(value, lambda side: to.edge(side, choose))
    if kind == "range":
        step = place.node.get("size_divisor", 32)
        return tuple(max(step, step * round(to.side(side, 1) / step)) for side in value)
    if place.node.get("crop_type") == "absolute_range":
        return tuple(to.edge(side, min) for side in value)
    if kind == "border":
        return tuple(to.side(side, axis) for axis, side in enumerate(value))
    is_free = bool(place.node.get("keep_ratio"))
    new = [to.size(each, is_free) for each in place.sizes()]
    new = new if kind == "wh" else [each[::-1] for each in new]
    if _is_pair(value) or isinstance(value, int):
        return new[0]
    return new


def _each(value: Any, change: Any) -> Any:
    return [change(each) for each in value] if isinstance(value, list | tuple) else change(value)


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(each, int) for each in value)
    )


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) and not _is_pair(value) else [value]
