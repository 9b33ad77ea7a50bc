"""Agent Attention (arXiv 2312.08874) for dense prediction, on torch alone."""

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
