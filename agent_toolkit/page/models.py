"""The models of the page: loaded once, and run for one user at a time."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmengine_agent.errors import UserError
from mmengine_agent.predict.classes import classes_of
from mmengine_agent.predict.model import Predictor, choose_device, load_model
from mmengine_agent.predict.sliding_window import Tile, cover
from mmengine_agent.predict.writer import Writer
from mmengine_agent.run.setup import read_config
from mmengine_agent.task import task_of

LEAST_SCORE = 0.05  # of objects that are kept; the page's threshold starts there
WAYS = ("automatic", "whole", "tiles")  # in which an image is predicted
_WHOLE = 2  # an image longer than so many tiles is cut up
_MOST = 24_000_000  # pixels that a model may see at once
Progress = Callable[[int, int], None]  # tiles that are done, of how many


class PageModel:
    """A model with its classes.

    Args:
        config: a file or a name.
        checkpoint: a file, or 'none' for random weights.
        device: 'auto', 'cpu', 'cuda' ...
        tile: side of tiles in pixels.

    Raises:
        UserError: if it cannot be built or loaded.
    """

    def __init__(self, config: str, checkpoint: str, device: str, tile: int) -> None:
        self.cfg = read_config(config)
        known = None if checkpoint == "none" else checkpoint
        self.model, meta = load_model(self.cfg, known, choose_device(device))
        self.classes = classes_of(self.cfg, meta, None)
        self.task = task_of(self.cfg)
        self.task.save_memory(self.model)
        self.predictor = Predictor(self.model, self.cfg)
        self.tile = tile
        weights = Path(checkpoint).stem if known else "random weights"
        self.title = f"{Path(config).stem} · {weights}"  # neither has a folder in it

    @property
    def has_objects(self) -> bool:
        """Whether it predicts objects with scores, not a label for each pixel."""
        return not self.writer().needs_legend

    def writer(self) -> Writer:
        """What puts tiles together and saves results; it collects, so one for each image."""
        writer: Writer = self.task.writer(self.classes, self.model, LEAST_SCORE)
        return writer

    def predict(self, image: np.ndarray, way: str, progress: Progress) -> tuple[Any, int]:
        """What ``Writer.merge`` makes of an image (H, W, 3) uint8 BGR, and of how many tiles.

        Args:
            image: the image.
            way: one of ``WAYS``; 'automatic' cuts up what is longer than two tiles.
            progress: called before each tile; what it raises ends the prediction.

        Raises:
            UserError: if memory runs out, or would.
        """
        height, width = image.shape[:2]
        writer = self.writer()
        tiles = cover(height, width, self._side(height, width, way, writer), self.tile // 8)

        def samples() -> Iterator[tuple[Tile, Any]]:
            for number, tile in enumerate(tiles):
                progress(number, len(tiles))
                yield tile, self._run(image[tile.area])

        return writer.merge((height, width), samples()), len(tiles)

    def _side(self, height: int, width: int, way: str, writer: Writer) -> int | None:
        """The side of tiles; None for an image that is predicted as a whole."""
        large = max(height, width) > _WHOLE * self.tile
        if writer.joins_tiles and (way == "tiles" or (way == "automatic" and large)):
            return self.tile
        if large and (seen := self.predictor.pixels(height, width)) > _MOST:
            how = "choose tiles" if writer.joins_tiles else "take a smaller one"
            raise UserError(
                f"As a whole this picture is too large: the model would see {seen / 1e6:.0f} "
                f"megapixels at once, and the page lets it see {_MOST / 1e6:.0f}; {how}."
            )
        return None

    def _run(self, image: np.ndarray) -> Any:
        try:
            return self.predictor([image])[0]
        except UserError as error:  # whose text is about flags
            raise UserError(
                "Memory ran out on the server: choose tiles, or take a smaller picture."
            ) from error
