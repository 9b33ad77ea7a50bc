"""What the tasks share in drawing predictions: a part of an image, and a legend of colours."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mmengine_agent.predict.classes import Classes


def paint(visualizer: Any, part: np.ndarray, sample: Any, **options: Any) -> None:
    """Replace a part (H, W, 3) of an image by its picture."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a box may end at the picture's very edge
        visualizer.add_datasample("", part[:, :, ::-1], sample, **options)
        part[:] = visualizer.get_image()[:, :, ::-1]


def write_legend(path: Path, classes: Classes) -> None:
    """Write a picture of the colours and names."""
    colours = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in classes.colours]
    patches = [Patch(color=c, label=n) for c, n in zip(colours, classes.names, strict=True)]
    figure = Figure()
    figure.legend(handles=patches, loc="center", ncols=1 + len(patches) // 30)
    figure.savefig(path, bbox_inches="tight", dpi=120)
