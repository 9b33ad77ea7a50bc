"""What all token mixers share: projections, heads, the output. Letters: see ``agent``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from agent_attention.arguments import Pair, check_heads
from agent_attention.compute import attend as compute
from agent_attention.compute.guard import may_replace
from agent_attention.compute.symbolic import join_heads


class Mixer(nn.Module):
    """Mixes the tokens of a map. A mixer of your own writes ``mix`` and nothing else.

    Its name in ``MIXERS`` then stands for it in every backbone. A backbone passes those of its
    options that the constructor names, see ``build_mixer``.

    Args:
        dim: channels C; a multiple of ``num_heads``.
        num_heads: heads h.
        qkv_bias: learn a bias in the query, key and value projections.
        attn_drop: dropout rate on attention weights, where a mixer has them.
        proj_drop: dropout rate after the output projection.
        joint_qkv: one projection ``qkv`` (Swin's key names) instead of ``q`` and ``kv`` (PVT's).
        detail: have a depth-wise 3x3 convolution ``dwc`` of the values, for ``add_detail``.
        projections: False for a mixer whose block has the projections; see ``forward``.
        before: layers that come before the projections in published state dicts.

    Raises:
        ValueError: if ``dim`` is not a multiple of ``num_heads``.
    """

    fixed_options: ClassVar[frozenset[str]] = frozenset()  # which backbones do not choose
    takes_projections: ClassVar[bool] = True  # whether ``mix`` is all that is its own

    def __init__(
        self,
        dim: int,
        num_heads: int = 1,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        joint_qkv: bool = False,
        detail: bool = False,
        projections: bool = True,
        before: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.attn_drop = attn_drop
        for name, layer in (before or {}).items():
            self.add_module(name, layer)
        self.joint_qkv = joint_qkv
        if projections:
            self.add_projections(dim, qkv_bias)
            self.proj_drop = nn.Dropout(proj_drop)
        self.has_detail = detail
        if detail:
            self.dwc = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim)

    def add_projections(self, dim: int, qkv_bias: bool) -> None:
        """Make the linear layers that ``project`` calls, and ``proj``."""
        if self.joint_qkv:
            self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        else:
            self.q = nn.Linear(dim, dim, bias=qkv_bias)
            self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor | tuple[Tensor, ...], size: Pair) -> Tensor:
        """Tokens (B, N, C), row by row, of a map of ``size`` (H, W) -> tokens (B, N, C).

        Without projections ``x`` are the queries, keys and values, each (B, N, C).
        """
        if not isinstance(x, Tensor):
            return self.mix_by_executor(x, size)
        return self.proj_drop(self.proj(self.mix_by_executor(self.project(x, size), size)))

    def project(self, x: Tensor, size: Pair) -> Sequence[Tensor]:
        """Queries, keys and values (B, N, C) of tokens (B, N, C)."""
        if self.joint_qkv:
            return self.qkv(x).chunk(3, -1)
        return self.q(x), *self.kv(x).chunk(2, -1)

    def projections(self) -> list[nn.Linear]:
        """The linear layers that ``project`` calls, in order."""
        return [self.qkv] if self.joint_qkv else [self.q, self.kv]

    def branches(self) -> "list[Mixer]":
        """Mixers of a share of the channels each, in order; most mixers are one."""
        return [self]

    def mix_by_executor(self, projected: Sequence[Tensor], size: Pair) -> Tensor:
        """``mix``, or what gives the same in less time or memory where that may be used."""
        q, k, v = projected
        out = self.mix_in_chunks(q, k, v, size) if may_replace(q, (self, type(self))) else None
        return self.mix(q, k, v, size) if out is None else out

    def mix_in_chunks(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor | None:
        """``mix`` without large tensors on the way, for a CPU; None where there is no such way."""
        return None

    def mix(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
        """The equation: queries, keys and values, each (B, N, C), to tokens (B, N, C)."""
        raise NotImplementedError

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: compute.Bias = None) -> Tensor:
        """softmax(q kᵀ / √d + bias) v in each head: q (B, Q, C), k and v (B, K, C) -> (B, Q, C)."""
        dropout = self.attn_drop if self.training else 0.0
        q, k, v = (self.split_heads(t) for t in (q, k, v))
        return join_heads(compute.attend(q, k, v, bias, dropout))

    def detail(self, v: Tensor, size: Pair) -> Tensor:
        """DWC(V) (B, N, C): a depth-wise convolution, for what a map of low rank cannot tell."""
        detail: Tensor = self.dwc(to_map(v, size))
        return to_tokens(detail)

    def add_detail(self, out: Tensor, v: Tensor, size: Pair) -> Tensor:
        """``out`` (B, N, C), plus DWC(V) with the option ``detail``."""
        return out + self.detail(v, size) if self.has_detail else out

    def split_heads(self, x: Tensor) -> Tensor:
        """(B, N, C) as (B, h, N, d), in the same memory."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # memory_format=torch.channels_last is for maps, and refuses the five axes of a bias table
        def of_four_axes(x: Tensor) -> Tensor:
            return fn(x.flatten(0, 1)).unflatten(0, x.shape[:2]) if x.dim() == 5 else fn(x)

        return super()._apply(of_four_axes, recurse)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}"


def to_map(x: Tensor, size: Pair) -> Tensor:
    """Tokens (B, N, C) as a map (B, C, H, W), in the same memory: channels last."""
    return x.unflatten(1, tuple(size)).permute(0, 3, 1, 2)


def to_tokens(x: Tensor) -> Tensor:
    """A map (B, C, H, W) as tokens (B, N, C)."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)
