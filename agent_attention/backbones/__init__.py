"""Backbones: where mixers stand, one file a family."""

from agent_attention.backbones.base import Backbone
from agent_attention.backbones.cswin import AgentCSwin
from agent_attention.backbones.flatten_cswin import FLattenCSwin
from agent_attention.backbones.flatten_pvt import FLattenPVT
from agent_attention.backbones.flatten_pvt_v2 import FLattenPVTv2
from agent_attention.backbones.flatten_swin import FLattenSwin
from agent_attention.backbones.pvt import AgentPVT
from agent_attention.backbones.swin import AgentSwinTransformer
from agent_attention.backbones.vit import AgentViT

# A file's tensors are recognised by the first that knows them.
BACKBONES: dict[str, type[Backbone]] = {
    "flatten_pvt": FLattenPVT,
    "flatten_pvt_v2": FLattenPVTv2,
    "flatten_swin": FLattenSwin,
    "flatten_cswin": FLattenCSwin,
    "pvt": AgentPVT,
    "swin": AgentSwinTransformer,
    "cswin": AgentCSwin,
    "vit": AgentViT,
}

__all__ = [
    "BACKBONES",
    "AgentCSwin",
    "AgentPVT",
    "AgentSwinTransformer",
    "AgentViT",
    "Backbone",
    "FLattenCSwin",
    "FLattenPVT",
    "FLattenPVTv2",
    "FLattenSwin",
]
