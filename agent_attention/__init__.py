"""Agent Attention (arXiv 2312.08874) for dense prediction, on torch alone."""

from agent_attention.attention import AgentAttention
from agent_attention.load import load_backbone
from agent_attention.pvt import AgentPVT
from agent_attention.swin import AgentSwinTransformer

__version__ = "0.1.0"
__all__ = ["AgentAttention", "AgentPVT", "AgentSwinTransformer", "__version__", "load_backbone"]
