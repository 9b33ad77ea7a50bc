"""Backbones: where mixers stand, one file a family."""

from agent_attention.backbones.base import Backbone
from agent_attention.backbones.pvt import AgentPVT
from agent_attention.backbones.swin import AgentSwinTransformer

BACKBONES: dict[str, type[Backbone]] = {
    "pvt": AgentPVT,
    "swin": AgentSwinTransformer,
}

__all__ = ["BACKBONES", "AgentPVT", "AgentSwinTransformer", "Backbone"]
