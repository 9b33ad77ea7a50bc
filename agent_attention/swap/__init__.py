"""Softmax attention of trained models swapped for cheaper forms, without training.

with swap_attention(model, Agent((12, 12))) as swap:
    maps = model(images)
    print(swap)
"""

from agent_attention.swap.adapter import Adapter, Row
from agent_attention.swap.clusters import Clusters, MergedSoftmax
from agent_attention.swap.diffusion import agent_sd
from agent_attention.swap.families import FAMILIES
from agent_attention.swap.forms import Agent, Nystrom, PooledKeys
from agent_attention.swap.handle import Swap, find_swap, swap_attention

__all__ = [
    "FAMILIES",
    "Adapter",
    "Agent",
    "Clusters",
    "MergedSoftmax",
    "Nystrom",
    "PooledKeys",
    "Row",
    "Swap",
    "agent_sd",
    "find_swap",
    "swap_attention",
]
