"""Suppression of doubles and features of boxes, as operators that each kind of file has in its way.

A recorded graph holds them by name. ``ONNX`` has what an ONNX file gets for each,
``NonMaxSuppression`` and ``RoiAlign``. A ``.pt2`` file, which is to run where this package is not,
gets what ``in_plain_torch`` makes of the graph.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.nn import functional as F


def in_plain_torch(program: ExportedProgram) -> ExportedProgram:
    """A graph with torch's own operators alone."""
    found = {node.target for node in program.graph.nodes}
    if not found & _TORCH.keys():
        return program
    # torch's rule for keeping it as it is lacks an argument
    usual = {_MESHGRID: torch.export.default_decompositions()[_MESHGRID]}
    table = {name: made for name, made in {**_TORCH, **usual}.items() if name in found}
    return program.run_decompositions(table)


# --- suppression


@torch.library.custom_op("agent_attention::nms", mutates_args=())
def nms(boxes: Tensor, scores: Tensor, threshold: float, most: int) -> Tensor:
    """Boxes that no better one overlaps: greedy non-maximum suppression, image by image.

    Args:
        boxes: (B, N, 4), x1 y1 x2 y2.
        scores: (B, N); those of 0 and less are no candidates.
        threshold: of intersection over union, above which the worse box goes.
        most: how many are kept of an image, the best.

    Returns:
        bool (B, N): which are kept.
    """
    return _nms(boxes, scores, threshold, most)


@nms.register_fake
def _(boxes: Tensor, scores: Tensor, threshold: float, most: int) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


def _nms(boxes: Tensor, scores: Tensor, threshold: float, most: int) -> Tensor:
    """``nms`` as a loop, of a graph too, over the boxes that are kept."""

    def going(step: Tensor, scores: Tensor, kept: Tensor, boxes: Tensor) -> Tensor:
        return (step < most) & (scores > 0).any()

    def take(step: Tensor, scores: Tensor, kept: Tensor, boxes: Tensor) -> tuple[Tensor, ...]:
        best, index = scores.max(1, keepdim=True)
        box = boxes.gather(1, index.unsqueeze(2).expand(-1, -1, 4))
        sides = torch.minimum(box, boxes)[..., 2:] - torch.maximum(box, boxes)[..., :2]
        both = sides.clamp(min=0).prod(2)
        area = (boxes[..., 2:] - boxes[..., :2]).prod(2)
        # as mmcv computes it, so that it is the same to the bit
        doubles = both / (area.gather(1, index) + area - both) > threshold
        taken = torch.zeros_like(kept).scatter(1, index, best > 0)
        return step + 1, torch.where(doubles | taken, 0.0, scores), kept | taken

    step = torch.zeros((), dtype=torch.int64, device=scores.device)
    state = (step, scores.clone(), torch.zeros_like(scores, dtype=torch.bool))
    kept: Tensor = torch.ops.higher_order.while_loop(going, take, state, (boxes,))[2]
    return kept


def _onnx_nms(boxes: Any, scores: Any, threshold: float, most: int) -> Any:
    """``nms`` by ONNX's operator, which gives the numbers of the image, the class and the box."""
    from onnxscript import opset18

    op: Any = opset18

    found = op.NonMaxSuppression(
        # that a box has four numbers is said once more: of int8 files OpenVINO does not find it out
        op.Reshape(boxes, op.Constant(value_ints=[0, -1, 4])),
        op.Unsqueeze(scores, op.Constant(value_ints=[1])),
        op.Constant(value_ints=[most]),
        op.Constant(value_floats=[threshold]),
        op.Constant(value_floats=[0.0]),
    )
    places = op.Gather(found, op.Constant(value_ints=[0, 2]), axis=1)
    ones = op.Expand(op.Constant(value_int=1), op.Shape(found, end=1))
    none = op.Expand(op.Constant(value_int=0), op.Shape(scores))
    return op.Cast(op.ScatterND(none, places, ones), to=9)  # bool


# --- features of boxes


@torch.library.custom_op("agent_attention::roi_align", mutates_args=())
def roi_align(x: Tensor, boxes: Tensor, image: Tensor, size: int, scale: float) -> Tensor:
    """Means of a map over the cells of a grid in each box (He et al., Mask R-CNN, section 3).

    As mmcv's with ``aligned=True`` and ``sampling_ratio=0``: a cell has as many sampled places as
    it has pixels of the map. A box without a side has features of 0.

    Args:
        x: map (B, C, H, W).
        boxes: (R, 4), x1 y1 x2 y2.
        image: int64 (R,), of which image of the batch each box is.
        size: of the grid.
        scale: pixels of the map to one of the boxes.

    Returns:
        (R, C, size, size).
    """
    return _roi_align(x, boxes, image, size, scale).contiguous()


@roi_align.register_fake
def _(x: Tensor, boxes: Tensor, image: Tensor, size: int, scale: float) -> Tensor:
    return x.new_empty(boxes.shape[0], x.shape[1], size, size)


def _roi_align(x: Tensor, boxes: Tensor, image: Tensor, size: int, scale: float) -> Tensor:
    """``roi_align`` as weighted sums of the pixels that each cell of a box touches.

    Weights of rows and of columns multiply, as bilinear interpolation does. A cell is a bag of
    pixels, so that the work grows with what boxes cover.
    """
    _, channels, height, width = x.shape
    x1, y1, x2, y2 = (boxes * scale - 0.5).unbind(1)
    down, top, rows = _line_weights(y1, y2, size, height)
    across, left, columns = _line_weights(x1, x2, size, width)
    count = (rows.unsqueeze(2) * columns.unsqueeze(1)).flatten()  # (R * size * size)
    begin = count.cumsum(0) - count
    cell = torch.repeat_interleave(torch.arange(count.shape[0], device=x.device), count)
    place = torch.arange(cell.shape[0], device=x.device) - begin[cell]
    box = cell.div(size * size, rounding_mode="floor")
    i = cell.div(size, rounding_mode="floor") - box * size
    j = cell - cell.div(size, rounding_mode="floor") * size
    row = place.div(columns[box, j], rounding_mode="floor")
    column = left[box, j] + place - row * columns[box, j]
    row = top[box, i] + row
    sums = F.embedding_bag(
        (image[box] * height + row) * width + column,
        x.permute(0, 2, 3, 1).reshape(-1, channels),
        begin,
        mode="sum",
        per_sample_weights=down[box, i, row] * across[box, j, column],
    )
    return sums.reshape(-1, size, size, channels).permute(0, 3, 1, 2)


def _line_weights(
    low: Tensor, high: Tensor, cells: int, side: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of a map's rows (or columns) in the cells of each box.

    Args:
        low: (R,), where boxes begin, in rows.
        high: (R,), where they end.
        cells: of a box.
        side: of the map.

    Returns:
        weights (R, cells, side); the first row with one, int64 (R, cells); how many, (R, cells).
    """
    length = ((high - low) / cells)[:, None, None]
    samples = length.ceil()
    number = torch.arange(side // cells + 2, device=low.device)
    cell = torch.arange(cells, device=low.device).unsqueeze(1)
    share = 1 / samples.clamp(min=1)
    place = low[:, None, None] + cell * length + (number + 0.5) * (length * share)
    used = (number < samples) & (place >= -1) & (place <= side)
    place = place.clamp(min=0)
    before = place.floor().clamp(max=side - 1)
    part = torch.where(before >= side - 1, 0.0, place - before)
    first = before.long()
    second = (first + 1).clamp(max=side - 1)
    share = used * share
    weights = low.new_zeros(low.shape[0], cells, side)
    weights = weights.scatter_add(2, first, share * (1 - part)).scatter_add(2, second, share * part)
    begin = torch.where(used, first, side - 1).amin(2)
    end = torch.where(used, second + 1, 0).amax(2)
    return weights, begin, (end - begin).clamp(min=0)


def _onnx_roi_align(x: Any, boxes: Any, image: Any, size: int, scale: float) -> Any:
    """``roi_align`` by ONNX's operator, of opset 16 and later."""
    from onnxscript import opset18

    op: Any = opset18

    return op.RoiAlign(
        x,
        boxes,
        image,
        output_height=size,
        output_width=size,
        sampling_ratio=0,
        spatial_scale=scale,
        coordinate_transformation_mode="half_pixel",
        mode="avg",
    )


_MESHGRID = torch.ops.aten.meshgrid.default
_TORCH: Mapping[Any, Callable[..., Tensor]] = {
    torch.ops.agent_attention.nms.default: _nms,
    torch.ops.agent_attention.roi_align.default: _roi_align,
}
ONNX: Mapping[Any, Callable[..., Any]] = {
    torch.ops.agent_attention.nms.default: _onnx_nms,
    torch.ops.agent_attention.roi_align.default: _onnx_roi_align,
}
