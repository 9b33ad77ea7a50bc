"""Agent Attention (arXiv 2312.08874) for dense prediction, on torch alone."""

from agent_attention.backbones import AgentPVT, AgentSwinTransformer
from agent_attention.mixers import AgentAttention
from agent_attention.weights.fit import load_backbone

__version__ = "0.1.0"
__all__ = ["AgentAttention", "AgentPVT", "AgentSwinTransformer", "__version__", "load_backbone"]
