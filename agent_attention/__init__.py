"""Agent Attention (arXiv 2312.08874) for dense prediction, on torch alone.

What is public is imported when it is asked for, so that ``agent_attention.runtime`` needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent_attention.backbones import (
        AgentCSwin,
        AgentPVT,
        AgentSwinTransformer,
        AgentViT,
        FLattenCSwin,
        FLattenPVT,
        FLattenPVTv2,
        FLattenSwin,
    )
    from agent_attention.mixers import MIXERS, AgentAttention
    from agent_attention.weights.fit import load_backbone

__version__ = "0.1.0"
__all__ = [
    "MIXERS",
    "AgentAttention",
    "AgentCSwin",
    "AgentPVT",
    "AgentSwinTransformer",
    "AgentViT",
    "FLattenCSwin",
    "FLattenPVT",
    "FLattenPVTv2",
    "FLattenSwin",
    "__version__",
    "load_backbone",
]

if not TYPE_CHECKING:  # a type checker would take any name for one that is there
    _MODULES = ("arguments", "backbones", "compute", "layers", "mixers", "weights")
    _HOMES = {"MIXERS": "mixers", "AgentAttention": "mixers", "load_backbone": "weights.fit"}

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = import_module(f"{__name__}.{_HOMES.get(name, 'backbones')}")
        globals()[name] = getattr(home, name)
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_MODULES})
