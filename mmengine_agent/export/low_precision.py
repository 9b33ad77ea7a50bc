"""Writing ONNX files anew with 16 bits, or with weights and inputs of layers of 8 bits."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agent_attention.runtime.images import read_image
from mmengine_agent.export.scores import load_exported

_FLOAT = 1  # TensorProto.FLOAT
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_NORMS = ("BatchNormalization", "GroupNormalization", "LayerNormalization")
# inputs that are places in an image, or decide what is found: by type of node, from which on
_EXACT = {"NonMaxSuppression": 0, "TopK": 0, "RoiAlign": 1, "GridSample": 1}


# ---- what stays exact


class Parts(NamedTuple):
    """Names of nodes of a graph."""

    exact: set[str]  # before the first and after the last weights: pixels, places, what is found
    last: set[str]  # weights whose results need no others: those of the heads
    weighted: set[str]  # all convolutions and products with constant weights


def parts_of(graph: Any) -> Parts:
    """Find the nodes of an ONNX graph that lower precision treats apart; nodes get names."""
    constants = {each.name for each in graph.initializer}
    for number, node in enumerate(graph.node):
        node.name = node.name or f"node_{number}"
    makers = {name: node for node in graph.node for name in node.output}
    weighted = {
        node.name for node in graph.node if node.op_type in _WEIGHTED and node.input[1] in constants
    }
    waiting = [each.name for each in graph.output]
    for node in graph.node:
        if node.op_type in _EXACT:
            waiting += node.input[_EXACT[node.op_type] :]
    exact, last = set[str](), set[str]()
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node.name in exact | last or node.op_type == "Shape":
            continue
        if node.name in weighted or node.op_type in _NORMS:
            last.add(node.name)
        else:
            exact.add(node.name)
            waiting += node.input
    return Parts(exact | _before_weights(graph, weighted), last & weighted, weighted)


def _before_weights(graph: Any, weighted: set[str]) -> set[str]:
    """The nodes from the image to the first weights."""
    reached, found = {each.name for each in graph.input}, set[str]()
    for node in graph.node:  # which are in the order of running
        if reached.intersection(node.input) and node.name not in weighted:
            found.add(node.name)
            reached.update(node.output)
    return found


# ---- fp16


def write_half(path: Path, out: Path) -> None:
    """Write an ONNX file with weights and arithmetic of 16 bits; what it takes and gives stays."""
    import onnx
    from onnxruntime.transformers import float16

    model = onnx.load(path)
    keep = [*parts_of(model.graph).exact]
    model = float16.convert_float_to_float16(model, keep_io_types=True, node_block_list=keep)
    join_exact(model.graph)
    onnx.save(model, out)


def join_exact(graph: Any) -> None:
    """Hand values of 32 bits from one exact node to the next as they are, in place.

    The converter puts a cast to 16 bits after each exact node, and one back before the next.
    """
    makers = {name: node for node in graph.node for name in node.output}
    outputs = {each.name for each in graph.output}
    renamed: dict[str, str] = {}
    for node in [*graph.node]:
        maker = makers.get(node.input[0]) if node.input else None
        back = node.op_type == "Cast" and node.attribute[0].i == _FLOAT
        if back and maker is not None and maker.name.endswith("_cast_to_fp16_node"):
            graph.node.remove(node)
            exact, copy = maker.input[0], node.output[0]
            renamed |= {exact: copy} if copy in outputs else {copy: exact}
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                name = renamed.get(name, name)
                names[place] = renamed.get(name, name)  # an exact value that is given, too


# ---- int8


def write_int8(path: Path, out: Path, images: Sequence[Path]) -> None:
    """Write an ONNX file whose layers have weights and inputs of 8 bits, by ONNX Runtime.

    Args:
        path: the file.
        out: the new file.
        images: files of which the ranges of activations are taken.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = load_exported(path)
    feeds = ({"image": model.prepare(read_image(each))[None]} for each in images)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        plain = Path(folder, "plain.onnx")
        quant_pre_process(path, plain, skip_symbolic_shape=True)  # which would need sympy
        content = onnx.load(plain)
        parts = parts_of(content.graph)
        quantization.quantize_static(
            content,
            out,
            _Feeds(feeds),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,  # with int8 weights: fast on x86
            nodes_to_quantize=[*(parts.weighted - parts.last - parts.exact)],
        )


class _Feeds:
    """What ONNX Runtime calls a calibration data reader."""

    def __init__(self, feeds: Iterator[dict[str, np.ndarray]]) -> None:
        self._feeds = feeds

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The inputs of the next run."""
        return next(self._feeds, None)
