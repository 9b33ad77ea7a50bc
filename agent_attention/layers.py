"""Layers that the backbones share. Shape letters: see ``agent_attention.mixers.agent``."""

import torch
from torch import Tensor, nn

from agent_attention.arguments import Pair


def init_table(*shape: int) -> nn.Parameter:
    """A learned table of the given shape, truncated normal with std 0.02."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02))


def init_linear_and_norm(module: nn.Module) -> None:
    """Initialise one module, for ``Module.apply``: linear layers and norms as in PVT and Swin."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


class Mlp(nn.Module):
    """Two linear layers with GELU between them: (..., C) -> (..., C)."""

    def __init__(self, dim: int, hidden_dim: int, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): drops a sample's whole residual branch in training."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        factor = self.factor(x)
        return x if factor is None else x * factor

    def factor(self, x: Tensor) -> Tensor | None:
        """What the samples of ``x`` (B, ...) are multiplied by, (B, 1, ...); None for 1."""
        if not self.training or self.rate == 0.0:
            return None
        keep = 1.0 - self.rate
        return x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(keep) / keep

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"


def linear_rates(last: float, count: int) -> list[float]:
    """Stochastic depth rates of ``count`` blocks, growing linearly from 0 to ``last``."""
    return [last * i / max(count - 1, 1) for i in range(count)]


class PatchEmbed(nn.Module):
    """Patches: a convolution, then LayerNorm; with a ``kernel`` wider than the stride they overlap.

    Those that overlap reach over the map's border, in which there are zeros.
    """

    def __init__(self, in_dim: int, dim: int, stride: int, kernel: int | None = None) -> None:
        super().__init__()
        side, padding = (kernel, kernel // 2) if kernel else (stride, 0)
        self.proj = nn.Conv2d(in_dim, dim, side, stride, padding)
        self.norm = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, x: Tensor) -> tuple[Tensor, Pair]:
        """(B, C_in, H, W) -> tokens (B, N, C) and the new (H, W).

        Of patches that do not overlap, rows and columns that fill none are dropped, as the
        published scores assume.
        """
        x = self.proj(x)
        return self.norm(x.permute(0, 2, 3, 1).flatten(1, 2)), (x.shape[2], x.shape[3])
