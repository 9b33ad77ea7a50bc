"""ONNX files of a few nodes with the metadata of exported models, and images for them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = ("sky", "ground", "star")
FACTS = {
    "input": "RGB, 0 to 255",
    "classes": json.dumps(CLASSES),
    "palette": json.dumps([[0, 0, 200], [90, 60, 0], [250, 250, 0]]),
    "batch": "any",
    "with_resize": "false",
    "test_size": "null",
    "precision": "fp32",
}
BOXES = [[2.0, 4.0, 10.0, 12.0], [0.0, 0.0, 6.0, 3.0], [0.0, 0.0, 0.0, 0.0]]
SCORES, LABELS = [0.9, 0.2, 0.0], [2, 0, -1]


def write_segmentor(path: Path, **facts: str) -> Path:
    """A segmentor whose scores of classes 0, 1, 2 are an image's red, green and blue."""
    nodes = [helper.make_node("Identity", ["image"], ["logits"])]
    shape = ["batch", 3, "height", "width"]
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)
    return _write(path, nodes, [out], {}, {"task": "semantic segmentation", **facts})


def write_segmentor_of_pictures(path: Path) -> Path:
    """The same of one picture (1, H, W, 3) uint8, as files are that resize themselves."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["logits"], perm=[0, 3, 1, 2]),
    ]
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3, "height", "width"])
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "height", "width", 3])
    size = json.dumps({"scale": [9, 9], "keep_ratio": False})  # which is done
    facts = {"task": "semantic segmentation", "with_resize": "true", "batch": "1"}
    return _write(path, nodes, [out], {}, {**facts, "test_size": size}, image)


def write_detector(path: Path, scores: Sequence[float] = SCORES, **facts: str) -> Path:
    """A detector that finds BOXES in each image, the first with a mask of the upper half."""
    constants: dict[str, Any] = {
        "one_boxes": np.float32([BOXES]),
        "one_scores": np.float32([scores]),
        "one_labels": np.int64([LABELS]),
        "upper": np.float32([1, 0]).reshape(1, 1, 2, 1),
        "three": np.int64([3]),
    }
    nodes = [helper.make_node("Shape", ["image"], ["batch"], start=0, end=1)]
    nodes += [helper.make_node("Shape", ["image"], ["size"], start=2)]
    for name, rank in (("boxes", 2), ("scores", 1), ("labels", 1)):
        constants[f"rest_{name}"] = np.ones(rank, np.int64)
        repeats = [f"rest_{name}", f"repeats_{name}"]
        nodes += [
            helper.make_node("Concat", ["batch", repeats[0]], [repeats[1]], axis=0),
            helper.make_node("Tile", [f"one_{name}", repeats[1]], [name]),
        ]
    nodes += [
        helper.make_node("Concat", ["batch", "three", "size"], ["mask_size"], axis=0),
        helper.make_node("Resize", ["upper", "", "", "mask_size"], ["mask"], mode="nearest"),
        helper.make_node("Cast", ["mask"], ["masks"], to=TensorProto.BOOL),
    ]
    kinds = {
        "boxes": (TensorProto.FLOAT, ["batch", 3, 4]),
        "scores": (TensorProto.FLOAT, ["batch", 3]),
        "labels": (TensorProto.INT64, ["batch", 3]),
        "masks": (TensorProto.BOOL, ["batch", 3, "height", "width"]),
    }
    outputs = [helper.make_tensor_value_info(name, *kind) for name, kind in kinds.items()]
    return _write(path, nodes, outputs, constants, {"task": "instance segmentation", **facts})


def _write(
    path: Path,
    nodes: list[Any],
    outputs: list[Any],
    constants: Any,
    facts: dict[str, str],
    image: Any = None,
) -> Path:
    shape = ["batch", 3, "height", "width"]
    image = image or helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    values = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "small", [image], outputs, values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {**FACTS, **facts})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def write_network(path: Path, **facts: str) -> Path:
    """A segmentor of two convolutions, which also gives its image as it was, a little moved."""
    random = np.random.default_rng(0)
    constants = {
        "std": np.float32([60]),
        "first": random.normal(0, 0.3, (16, 3, 3, 3)).astype(np.float32),
        "middle": random.normal(0, 0.1, (16, 16, 3, 3)).astype(np.float32),
        "last": random.normal(0, 0.1, (3, 16, 1, 1)).astype(np.float32),
        "offset": np.float32([2048.3]),
        "factor": np.float32([1.01]),
    }
    same = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Div", ["image", "std"], ["x"], "normalise"),
        helper.make_node("Conv", ["x", "first"], ["a"], "first_layer", **same),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "middle"], ["c"], "middle_layer", **same),
        helper.make_node("Sigmoid", ["c"], ["d"], "sigmoid"),
        helper.make_node("Conv", ["d", "last"], ["logits"], "last_layer"),
        helper.make_node("Add", ["image", "offset"], ["e"], "add"),
        helper.make_node("Mul", ["e", "factor"], ["places"], "multiply"),
    ]
    shapes = {"logits": ["batch", 3, "height", "width"], "places": ["batch", 3, "height", "width"]}
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    ]
    return _write(path, nodes, outputs, constants, {"task": "semantic segmentation", **facts})
