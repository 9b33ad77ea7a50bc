"""Exported files of small models in ONNX Runtime and in OpenVINO: the same numbers in both.

    make engines

Each model is exported by the tool, in fp16 and int8 too, and run at two sizes that were not
recorded. A row has the largest difference of an output, relative to its largest value; of a
detector, the share of objects that only one engine finds. With random weights many scores are near
each other, so in int8 a detector has only to run in both. Other models of tests/narrow_models.py
can be named.
"""

import shutil
import sys
import tempfile
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from mmengine.config import Config
from narrow_models import make
from PIL import Image

from agent_attention.runtime import Model
from agent_attention.runtime.engines import ENGINES
from agent_toolkit.commands import export
from mmengine_agent.export.precision import agreement, change_precision
from mmengine_agent.run.exit import run_tool

SIZES = ((150, 230), (97, 160))
BOUNDS = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.1}  # engines round otherwise, with fewer bits more
ALONE = {"fp32": 0.05, "int8": 1.0}


def main() -> None:
    """Print the table; exits with 1 if a row is out of its bound."""
    bad = 0
    print("| model | precision | size | difference | |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        photos = write_photos(Path(folder, "photos"))
        for name in sys.argv[1:] or ("semantic_fpn", "upernet", "mask_rcnn"):
            whole = export_small(name, Path(folder, name))
            is_detector = "boxes" in ENGINES["onnxruntime"](str(whole), 0).outputs
            measure, bounds = (objects_alone, ALONE) if is_detector else (difference, BOUNDS)
            for precision, bound in bounds.items():
                file = shutil.copy(whole, whole.with_name(f"{precision}.onnx"))
                flags = {"precision": precision, "calibration": photos, "calibration_images": 4}
                change_precision(file, Config(), Namespace(**flags, data_root=None))
                for size in SIZES:
                    found = measure(file, size)
                    bad += found > bound
                    row = (name, precision, "{} x {}".format(*size), f"{found:.1e}")
                    said = "ok" if found <= bound else "BAD"
                    print(f"| {' | '.join(row)} | {said} |", flush=True)
    sys.exit(bool(bad))


def write_photos(folder: Path) -> Path:
    """A folder of pictures of noise, to calibrate with."""
    folder.mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (120, 160, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def export_small(name: str, folder: Path) -> Path:
    """The ONNX file of a narrow model."""
    folder.mkdir()
    made = make(name, folder)
    out = made.file("whole.onnx")
    words = ["export.py", str(made.config), str(made.checkpoint), "--out", str(out)]
    with mock.patch.object(sys, "argv", [*words, "--no-verify"]):
        export.main()
    return out


def difference(path: Path, size: tuple[int, int]) -> float:
    """The largest difference of an output of floats, relative to its largest value."""
    image = np.random.default_rng(7).integers(0, 256, (1, 3, *size)).astype(np.float32)
    ours, theirs = (load(str(path), 0).run(image) for load in ENGINES.values())
    most = 0.0
    for name, value in ours.items():
        if value.shape != theirs[name].shape:
            return float("inf")
        if value.dtype == np.float32 and value.size:
            apart = np.abs(value - theirs[name]).max() / max(1.0, np.abs(value).max())
            most = max(most, float(apart))
    return most


def objects_alone(path: Path, size: tuple[int, int]) -> float:
    """The share of a detector's objects that only one engine finds."""
    image = np.random.default_rng(7).integers(0, 256, (*size, 3), np.uint8)
    models: Any = [partial(Model(path, engine), score_threshold=0.0) for engine in ENGINES]
    return 1 - agreement(*models, [image])


if __name__ == "__main__":
    run_tool(main)
