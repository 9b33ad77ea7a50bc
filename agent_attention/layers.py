"""Layers that the backbones share. Shape letters: see ``agent_attention.mixers.agent``."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agent_attention.arguments import Pair


def resize(x: Tensor, size: Pair) -> Tensor:
    """Bilinear resize of (B, C, H, W) to ``size``, half-pixel centres, no antialias.

    The published weights were trained with exactly this kernel; an equal size is an identity.
    """
    if not is_open(size) and tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def pool(x: Tensor, grid: Pair) -> Tensor:
    """Means of (B, C, H, W) over the cells of a grid (a_h, a_w): (B, C, a_h, a_w).

    With an open size as two products: other runtimes' pooling needs to know the cells.
    """
    if not is_open(x.shape[-2:]):
        return F.adaptive_avg_pool2d(x, grid)
    rows, columns = (_cell_means(x.shape[axis], grid[axis], x) for axis in (-2, -1))
    return rows @ x @ columns.t()


def _cell_means(size: int, cells: int, like: Tensor) -> Tensor:
    """Matrix (cells, size) of means: of all from where a cell begins to where it ends."""
    place, cell = (torch.arange(count, device=like.device) for count in (size, cells))
    begin = (cell * size).div(cells, rounding_mode="floor").unsqueeze(1)
    end = ((cell + 1) * size + cells - 1).div(cells, rounding_mode="floor").unsqueeze(1)
    inside = ((place >= begin) & (place < end)).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)


def is_open(size: Sequence[int]) -> bool:
    """Whether a graph is being recorded for more than this size (``torch.export``).

    Such a size must not be compared with another: the graph would be right on one side alone.
    """
    return any(isinstance(side, torch.SymInt) for side in size)


def in_strides(x: Tensor, stride: int) -> Tensor:
    """The same (B, C, H, W), of open sizes that are known from then on to be multiples.

    Sizes that are none are refused where the graph is recorded, or where it is run.
    """
    for side in x.shape[2:]:
        torch._check(side % stride == 0)
    height, width = (side // stride * stride for side in x.shape[2:])
    return crop(x, (height, width))


def crop(x: Tensor, size: Pair) -> Tensor:
    """The first rows and columns of (..., H, W), also of open sizes.

    By index: a slice would be compared with the whole, which a graph could not do without.
    """
    for axis, side in zip((-2, -1), size, strict=True):
        x = x.index_select(axis, torch.arange(side, device=x.device))
    return x


def join_heads(x: Tensor) -> Tensor:
    """(B, h, N, d) as (B, N, C).

    With open sizes by a copy: a view would be recorded for the memory order of torch's own kernel.
    """
    return torch.cat(x.unbind(1), -1) if is_open(x.shape) else x.transpose(1, 2).flatten(2)


def add_into(memory: Tensor, x: Tensor) -> Tensor:
    """memory + x, in that memory unless the sum is of another type (residuals under autocast)."""
    fits = torch.promote_types(memory.dtype, x.dtype) == memory.dtype
    return memory.add_(x) if fits else memory + x


def pad_map(x: Tensor, multiple: int) -> Tensor:
    """A map (B, H, W, C) with zeros on the right and at the bottom, to multiples of a side."""
    right, bottom = (-x.shape[axis] % multiple for axis in (2, 1))
    if not is_open(x.shape[1:3]) and not right and not bottom:
        return x  # no padding would be a copy
    return F.pad(x, (0, 0, 0, right, 0, bottom))


def init_table(*shape: int) -> nn.Parameter:
    """A learned table of the given shape, truncated normal with std 0.02."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02))


def is_plain(module: nn.Module) -> bool:
    """Whether a module computes what its class does, so that its weights may be used directly.

    It does not with hooks on it, or with a subclass in its place, as adapters such as LoRA put.
    """
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    kinds = (nn.Linear, nn.LayerNorm, nn.GELU, nn.Dropout, Mlp)
    return type(module) in kinds and "forward" not in vars(module) and not any(hooks)


def may_overwrite(module: nn.Module) -> bool:
    """Whether nobody needs the tensors that were made on the way through a module.

    The backward pass does, and a hook on the module or inside may hold them.
    """
    if torch.is_grad_enabled() or torch.jit.is_tracing():
        return False
    return not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


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
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(keep)
        return x * mask / keep

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"


def linear_rates(last: float, count: int) -> list[float]:
    """Stochastic depth rates of ``count`` blocks, growing linearly from 0 to ``last``."""
    return [last * i / max(count - 1, 1) for i in range(count)]


class PatchEmbed(nn.Module):
    """Non-overlapping patches: a convolution with stride = kernel, then LayerNorm."""

    def __init__(self, in_dim: int, dim: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_dim, dim, kernel_size=stride, stride=stride)
        self.norm = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, x: Tensor) -> tuple[Tensor, Pair]:
        """(B, C_in, H, W) -> tokens (B, N, C) and the new (H, W).

        Rows and columns that fill no patch are dropped, as the published scores assume.
        """
        x = self.proj(x)
        return self.norm(x.permute(0, 2, 3, 1).flatten(1, 2)), (x.shape[2], x.shape[3])
