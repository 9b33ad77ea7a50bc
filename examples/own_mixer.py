"""A token mixer of your own in one file, in stages of Agent-PVT.

    python examples/own_mixer.py

A config takes it just so, if this file can be imported (PYTHONPATH=examples):

    custom_imports = dict(imports=["mmseg_agent", "own_mixer"], allow_failed_imports=False)
    model = dict(backbone=dict(mixers=("pool", "pool", "agent", "agent")))
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from agent_attention import MIXERS, AgentPVT
from agent_attention.mixers.base import Mixer, to_map, to_tokens


class PoolMixer(Mixer):
    """O = mean of V over 3 x 3 places (PoolFormer, arXiv 2111.11418), gated by the queries."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor, size: tuple[int, int]) -> Tensor:
        """Queries, keys and values (B, N, C) of a map of ``size`` (H, W) to tokens (B, N, C)."""
        mean = F.avg_pool2d(to_map(v, size), 3, stride=1, padding=1, count_include_pad=False)
        return torch.sigmoid(q) * to_tokens(mean)


MIXERS["pool"] = PoolMixer


def main() -> None:
    torch.manual_seed(0)
    backbone = AgentPVT("tiny", mixers=("pool", "pool", "agent", "agent"))
    maps = backbone(torch.randn(2, 3, 96, 128))
    print([tuple(each.shape) for each in maps])
    sum(each.mean() for each in maps).backward()
    without = [name for name, weight in backbone.named_parameters() if weight.grad is None]
    print("parameters without a gradient:", *without or ["none"])
    mixers = [type(module).__name__ for module in backbone.modules() if isinstance(module, Mixer)]
    print("mixers:", *mixers)


if __name__ == "__main__":
    main()
