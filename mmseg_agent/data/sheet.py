"""Pictures of an ADE20K-like set for a contact sheet: label maps drawn."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mmengine_agent.data.faults import Findings
from mmengine_agent.data.sheet import choose, read_small, tile, with_faults
from mmengine_agent.draw import Array, class_colours, paint_labels
from mmseg_agent.data.label_maps import Pair

_COLOURS = class_colours(254)  # of labels 1 to 254; 0 and 255 are ignored


def ade_tiles(pairs: list[Pair], findings: Findings) -> list[Array]:
    """Up to 12 pictures, those with faults first."""
    bad = with_faults(findings, ("image", "label"))
    tiles = []
    for index in choose([i for i, pair in enumerate(pairs) if pair.name in bad], len(pairs)):
        pair = pairs[index]
        picture, labels = read_small(pair.image)[0], _read_labels(pair.label)
        if labels is not None:
            size = picture.shape[1::-1]
            labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
            paint_labels(picture, labels.astype(int) - 1, _COLOURS)
        tiles.append(tile(picture, pair.name, pair.name in bad))
    return tiles


def _read_labels(path: Path) -> Array | None:
    """Labels (H, W) as mmseg reads them; None if that cannot be."""
    try:
        labels = np.asarray(Image.open(path))
    except Exception:  # Pillow's readers raise whatever a broken file leads to
        return None
    return labels.astype(np.uint8) if labels.ndim == 2 else None
