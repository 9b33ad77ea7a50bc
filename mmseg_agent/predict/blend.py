"""A label map of an image from what a segmentor says of its tiles."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmengine_agent.errors import UserError
from mmengine_agent.predict.sliding_window import Grid, Tile


class Blend:
    """Blends the scores of an image's tiles, which come row by row, into ``labels`` (H, W).

    Where tiles overlap, a pixel's scores are their mean, weighted by ``Axis.weights``. A pixel gets
    its label as soon as no later tile has it. Kept until then are the scores of the columns shared
    with the next tile (C, tile, overlap) and of the rows shared with the next row of tiles
    (C, overlap, W), never those of the image.
    """

    def __init__(self, grid: Grid, threshold: float = 0.5) -> None:
        """``threshold``: of the one score of a model that has one for two classes."""
        self.grid, self.threshold = grid, threshold
        self.labels = np.zeros(grid.shape, np.uint16)
        self.left: Tensor | None = None  # (C, tile, columns shared with the tile before)
        self.above: Tensor | None = None  # (C, rows shared with the row before, W)
        self.below: Tensor | None = None

    def add(self, tile: Tile, sample: Any) -> None:
        if "seg_logits" not in sample:
            raise UserError("the model predicts no scores of pixels: it is no segmentor")
        scores = self._weighted(tile, sample.seg_logits.data)  # (C, tile, tile)
        right, down = self.grid.columns.final(tile.column), self.grid.rows.final(tile.row)
        if tile.column == 0:
            self._start_row(scores, down)
        scores = self._columns(scores, right)
        area = slice(tile.x, tile.x + right)
        if self.above is not None:
            scores[:, : self.above.shape[1]] += self.above[:, :, area]
        if self.below is not None:
            self.below[:, :, area] = scores[:, down:]
        self._write(scores[:, :down], tile)

    def _weighted(self, tile: Tile, scores: Tensor) -> Tensor:
        if len(self.grid) == 1:
            return scores
        rows = torch.from_numpy(self.grid.rows.weights[tile.row]).to(scores.device)
        columns = torch.from_numpy(self.grid.columns.weights[tile.column]).to(scores.device)
        return scores.float().mul_(rows[:, None]).mul_(columns)

    def _start_row(self, scores: Tensor, down: int) -> None:
        self.left, self.above, self.below = None, self.below, None
        if down < scores.shape[1]:
            shape = (scores.shape[0], scores.shape[1] - down, self.grid.columns.length)
            self.below = scores.new_empty(shape)

    def _columns(self, scores: Tensor, right: int) -> Tensor:
        """The columns that are complete with what the tiles to the left have said of them."""
        if self.left is not None:
            scores[:, :, : self.left.shape[2]] += self.left
        self.left = scores[:, :, right:].clone() if right < scores.shape[2] else None
        return scores[:, :, :right]

    def _write(self, scores: Tensor, tile: Tile) -> None:
        found = scores.argmax(0) if len(scores) > 1 else scores[0] > self.threshold
        height, width = found.shape
        area = slice(tile.y, tile.y + height), slice(tile.x, tile.x + width)
        self.labels[area] = found.cpu().numpy()
