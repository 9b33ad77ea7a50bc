"""What a user calls: the toolkit from Python, and its console command.

    from agent_toolkit import Predictor, test, train

These are imported when they are asked for; until then nothing but this file is.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent_toolkit.api import Prediction, Predictor, Trained, test, train
    from mmengine_agent.errors import UserError

__all__ = ["Prediction", "Predictor", "Trained", "UserError", "test", "train"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("agent_toolkit.api"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
