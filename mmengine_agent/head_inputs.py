"""Which of a backbone's maps neck and heads read, and where their configs keep the channels.

Everything goes by position: numbers of channels say nothing, since equal ones may be of others.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from mmengine_agent.errors import UserError

# parts that work with one family of backbones alone, and why
TIED = {
    "DPTHead": "it reads ViT's class token",
    "DDRHead": "it reads both branches of DDRNet",
    "PIDHead": "it reads the three branches of PIDNet",
    "STDCHead": "it learns from the edges that STDC finds",
    "BiSeNetV1": "it has an image path of its own",
    "SideAdapterCLIPHead": "it reads CLIP's tokens",
    "RFP": "it feeds maps back into DetectoRS' own ResNet",
    "ICNeck": "it reads the three branches of ICNet",
    "Feature2Pyramid": "it makes a pyramid of a plain ViT's maps",
    "CornerHead": "it reads both stacks of an hourglass network",
    "CentripetalHead": "it reads both stacks of an hourglass network",
}
REVERSED = ("YOLOV3Neck",)  # necks that list channels from the coarsest map on
PASSED_ON = ("JPU",)  # necks that hand on the backbone's maps, all but the last
_DENSE = ("panoptic_head", "track_head", "rpn_head", "bbox_head", "mask_head")  # of mmdet
_SEGMENTING = ("decode_head", "auxiliary_head")  # of mmseg


class Reader(NamedTuple):
    """A part of a model that reads maps of the backbone."""

    path: str
    node: Any  # its config
    key: str  # where it keeps channels: a number, or one for each of ``maps``
    maps: tuple[int, ...]  # whose channels these are, by position among the backbone's maps
    read: tuple[int, ...]  # which of them it reads

    @property
    def channels(self) -> list[int]:
        """Channels as the config has them."""
        found = self.node[self.key]
        return list(found) if isinstance(found, Sequence) else [found]


def readers(model: Any, count: int) -> Iterator[Reader]:
    """What reads a backbone's maps.

    Args:
        model: the config of a detector or segmentor.
        count: how many maps its backbone gives.

    Raises:
        UserError: if a part goes with one kind of backbone alone, or with another number of maps.
    """
    neck = model.get("neck")
    if neck:
        first = neck[0] if isinstance(neck, list | tuple) else neck
        yield _neck_reader(first, count)
        if first["type"] in PASSED_ON:
            for each in _segmenting_readers(model, count):
                if each.maps[-1] < count - 1:
                    yield each
        return
    yield from _segmenting_readers(model, count)
    for name in _DENSE:
        for path, head in _listed(model.get(name), f"model.{name}"):
            if "in_channels" in head:
                yield _reader(path, head, "in_channels", range(count))
    yield from _region_readers(model.get("roi_head") or {}, count)


def require_free(model: Any) -> None:
    """Raise UserError if a part of a model goes with one family of backbones alone."""
    if (model.get("roi_head") or {}).get("shared_head"):
        raise UserError(
            "--backbone: model.roi_head.shared_head is the last stage of the config's own ResNet, "
            "which another backbone does not have; take the same detector with an FPN"
        )
    for name in ("neck", *_SEGMENTING, *_DENSE, "backbone"):
        for path, part in _listed(model.get(name), f"model.{name}"):
            if part.get("type") in TIED:
                raise UserError(
                    f"--backbone: {path} ({part['type']}) goes with its own backbone alone: "
                    f"{TIED[part['type']]}"
                )


def _neck_reader(neck: Any, count: int) -> Reader:
    if "in_channels" not in neck:
        raise UserError(f"--backbone: model.neck ({neck['type']}) has no in_channels to be set")
    if isinstance(neck["in_channels"], int):  # as of YOLOF and CenterNet: the last map
        return _reader("model.neck", neck, "in_channels", [count - 1])
    every = range(count - 1, -1, -1) if neck["type"] in REVERSED else range(count)
    found = _reader("model.neck", neck, "in_channels", every)
    if neck["type"] in PASSED_ON or not (neck.get("start_level") or neck.get("end_level")):
        return found
    end = neck.get("end_level", -1)
    stop = count if end == -1 else end + 1
    return found._replace(read=tuple(range(neck.get("start_level", 0), stop)))


def _segmenting_readers(model: Any, count: int) -> Iterator[Reader]:
    for name in _SEGMENTING:
        for path, head in _listed(model.get(name), f"model.{name}"):
            if "kernel_generate_head" in head:  # of K-Net
                path, head = f"{path}.kernel_generate_head", head["kernel_generate_head"]
            if "in_channels" not in head:
                continue
            several = not isinstance(head["in_channels"], int)
            index = head.get("in_index", list(range(count)) if several else -1)
            index = [index] if isinstance(index, int) else index
            yield _reader(path, head, "in_channels", [each % count for each in index])
            if head.get("c1_in_channels"):  # of DeepLabV3+: of the first map that there is
                yield _reader(path, head, "c1_in_channels", [0])


def _region_readers(roi_head: Any, count: int) -> Iterator[Reader]:
    """Of a two-stage detector without a neck."""
    for part in ("bbox", "mask"):
        for name, key in (
            (f"{part}_roi_extractor", "out_channels"),
            (f"{part}_head", "in_channels"),
        ):
            for path, node in _listed(roi_head.get(name), f"model.roi_head.{name}"):
                if key in node:
                    yield _reader(path, node, key, range(count))


def _reader(path: str, node: Any, key: str, maps: Sequence[int]) -> Reader:
    found = Reader(path, node, key, tuple(maps), tuple(maps))
    if len(found.channels) != len(found.maps):
        raise UserError(
            f"--backbone: {path}.{key} is for {len(found.channels)} maps, and the config's own "
            f"backbone gives it {len(found.maps)}"
        )
    return found


def _listed(part: Any, path: str) -> Iterator[tuple[str, Any]]:
    """(path, config) of a part, or of each of a list of parts."""
    if isinstance(part, list | tuple):
        for number, each in enumerate(part):
            yield f"{path}.{number}", each
    elif part:
        yield path, part
