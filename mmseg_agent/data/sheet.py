"""Pictures of an ADE20K-like set for a contact sheet: label maps drawn."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mmengine_agent.data.faults import Findings
from mmengine_agent.data.sheet import Array, chosen, faulty, palette, read, tile
from mmseg_agent.data.label_maps import Pair


def ade_tiles(pairs: list[Pair], findings: Findings) -> list[Array]:
    """Up to 12 pictures, those with faults first."""
    bad = faulty(findings, ("image", "label"))
    first = [index for index, pair in enumerate(pairs) if pair.name in bad]
    tiles = []
    for index in chosen(first, len(pairs)):
        pair = pairs[index]
        picture, labels = read(pair.image), _read_labels(pair.label)
        if labels is not None:
            height, width = picture.shape[:2]
            labels = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
            shown = (labels > 0) & (labels < 255)
            mixed = picture // 2 + palette()[labels] // 2
            picture[shown] = mixed[shown]
        tiles.append(tile(picture, pair.name, pair.name in bad))
    return tiles


def _read_labels(path: Path) -> Array | None:
    """Labels (H, W) as mmseg reads them; None if that cannot be."""
    try:
        labels = np.asarray(Image.open(path))
    except Exception:  # Pillow's readers raise whatever a broken file leads to
        return None
    return labels.astype(np.uint8) if labels.ndim == 2 else None
