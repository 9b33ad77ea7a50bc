"""Models behind the test pipelines of their configs, to be compared with files that resize."""

from typing import Any

from mmengine.config import Config
from torch import Tensor

from mmengine_agent.predict.model import Predictor


class PipedModel:
    """In the place of a model, one that is given the pixels of a picture by its config's pipeline.

    Args:
        model: mmdet's or mmseg's.
        cfg: its config.
        picture: uint8 (1, H, W, 3), RGB.
    """

    def __init__(self, model: Any, cfg: Config, picture: Tensor) -> None:
        self.model, self.run = model, Predictor(model, cfg)
        self.picture = picture[0].flip(2).contiguous().numpy()  # pipelines take BGR

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["model"], name)

    def predict(self, *unused: Any, **how: Any) -> list[Any]:
        """The predictions for the picture, whatever an exported model made of it."""
        return self.run([self.picture])
