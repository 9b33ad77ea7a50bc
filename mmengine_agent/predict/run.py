"""Frames in, predictions out: cuts images up, runs a model on batches, and gathers."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from mmengine_agent.predict.inputs import Frame
from mmengine_agent.predict.model import Predictor
from mmengine_agent.predict.tiles import Grid, Tile
from mmengine_agent.predict.writer import Gather, Writer

Item = TypeVar("Item")


class Cut(NamedTuple):
    """A tile of a frame, and where what is found in it goes."""

    frame: Frame
    tile: Tile
    gather: Gather
    number: int  # of the tile in its frame, from 1
    total: int  # of the frame's tiles


def predict(
    frames: Iterator[Frame],
    predictor: Predictor,
    writer: Writer,
    tile: int | None = None,
    overlap: int = 0,
    batch_size: int = 1,
    tick: Callable[[Cut], None] = lambda cut: None,
) -> Iterator[tuple[Frame, Any]]:
    """Each frame with what is predicted for it.

    Args:
        frames: the images, read one by one.
        predictor: the model.
        writer: of the model's task.
        tile: side of the tiles that images are cut into, in pixels; None takes them whole.
        overlap: of neighbouring tiles, in pixels.
        batch_size: how many tiles, or whole images, go through the model together.
        tick: called after each tile.

    Yields:
        The frame, and what the writer's gather makes of its tiles.
    """
    for batch in _batches(_cuts(frames, writer, tile, overlap), batch_size):
        samples = predictor([cut.frame.image[cut.tile.area] for cut in batch])
        while batch:  # dropped one by one, so that nothing is kept of what is done
            cut = batch.pop(0)
            cut.gather.add(cut.tile, samples.pop(0))
            tick(cut)
            if cut.number == cut.total:
                yield cut.frame, cut.gather.result()


def _cuts(frames: Iterator[Frame], writer: Writer, tile: int | None, overlap: int) -> Iterator[Cut]:
    for frame in frames:
        height, width = frame.image.shape[:2]
        grid = Grid.cover(height, width, tile, overlap)
        gather = writer.gather(grid)
        for number, each in enumerate(grid, 1):
            yield Cut(frame, each, gather, number, len(grid))


def _batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while batch := list(islice(items, size)):
        yield batch
