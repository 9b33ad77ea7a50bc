"""What mmdet's and mmseg's parts of the toolkit share, and the toolkit from Python.

    from mmengine_agent import Predictor, test, train

These are imported when they are asked for; until then nothing but this file is.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmengine_agent.api import Prediction, Predictor, Trained, test, train
    from mmengine_agent.errors import UserError

__all__ = ["Prediction", "Predictor", "Trained", "UserError", "test", "train"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("mmengine_agent.api"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
