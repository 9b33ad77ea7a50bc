"""Agent Attention (arXiv 2312.08874) for dense prediction, on torch alone."""

from agent_attention.backbones.pvt import AgentPVT
from agent_attention.backbones.swin import AgentSwinTransformer
from agent_attention.mixers.agent import AgentAttention
from agent_attention.weights.load import load_backbone

__version__ = "0.1.0"
__all__ = ["AgentAttention", "AgentPVT", "AgentSwinTransformer", "__version__", "load_backbone"]
