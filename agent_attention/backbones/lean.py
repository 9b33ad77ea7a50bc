"""Blocks in inference, in little memory: the same numbers from the same weights.

New memory is slow on a CPU: for a map of 200 x 336 tokens, getting a tensor's pages from the system
takes as long as the arithmetic on it. Without gradients nobody needs what was made on the way, so
norms and projections work on a chunk of tokens at a time, residuals are added in place, and one
block's tensors become the next one's. The blocks know nothing of this, and where they are not
exactly what their classes say (``guard``), they run themselves.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agent_attention.arguments import Pair
from agent_attention.backbones.block import Block
from agent_attention.compute.attend import attend
from agent_attention.compute.chunks import row_chunks
from agent_attention.compute.guard import Part, define, is_exact, may_replace
from agent_attention.compute.norm_mlp import add_norm_mlp_
from agent_attention.compute.norm_project import parts_of
from agent_attention.compute.numerics import is_finite
from agent_attention.compute.products import add_linear, linear
from agent_attention.compute.symbolic import join_heads
from agent_attention.layers import DropPath
from agent_attention.mixers import MIXERS, WITH_CLASS_TOKEN
from agent_attention.mixers.agent import AgentAttention
from agent_attention.mixers.base import Mixer
from agent_attention.mixers.stripes import Stripes

for _kind in {*MIXERS.values(), *WITH_CLASS_TOKEN.values()}:
    define(_kind, "project", "mix", "mix_in_chunks", "attend", "branches")
define(Stripes, "mix", "attend")
define(nn.ModuleList)


def takes(blocks: Iterable[nn.Module], x: Tensor) -> bool:
    """Whether ``run`` may compute what the blocks do with tokens x (B, N, C)."""
    if torch.is_grad_enabled() or not may_replace(x):
        return False
    return all(_is_as_built(block) for block in blocks)


def _is_as_built(block: nn.Module) -> bool:
    """Whether a block, and all in it, is what its class says, in evaluation mode and unhooked."""
    if not isinstance(block, Block) or not isinstance(block.attn, Mixer):
        return False
    attn = block.attn
    parts: list[Part] = [(block.norm1, nn.LayerNorm), (block.drop_path, DropPath)]
    parts += [(attn.proj, nn.Linear), (attn.proj_drop, nn.Dropout)]
    parts += [(linear, nn.Linear) for linear in attn.projections()]
    parts += [(module, type(module)) for module in block.modules()]
    return all(not module.training and is_exact(module, kind) for module, kind in parts)


def run(blocks: Iterable[nn.Module], x: Tensor, size: Pair) -> Tensor:
    """Tokens (B, N, C) of a map of ``size`` (H, W) through blocks that ``takes`` has agreed to."""
    scratch: list[Tensor] = []  # tensors (B, N, C) that nobody needs any more
    for i, block in enumerate(blocks):
        assert isinstance(block, Block) and isinstance(block.attn, Mixer)
        if type(block.attn) is AgentAttention:
            out = _add_agent_attention(block.norm1, block.attn, x, size, scratch)
            if not is_finite(out):  # scores have overflowed, which the module itself mends
                out = block.attn(block.norm1(x), size).contiguous().add_(x)
        else:
            out = block.attn(block.norm1(x), size).contiguous().add_(x)
        if i and x.is_contiguous():  # the first is the caller's
            scratch.append(x)
        x = add_norm_mlp_(block.norm2, block.mlp, out)
    return x


def _add_agent_attention(
    norm: nn.LayerNorm, attn: AgentAttention, x: Tensor, size: Pair, scratch: list[Tensor]
) -> Tensor:
    """``x + attn(norm(x))``.

    Of a map that is one chunk in new memory; else in that of ``scratch``, as far as it goes, which
    is left there.
    """
    rows = x.flatten(0, 1)
    chunks = list(row_chunks(len(rows), 3 * x.shape[-1]))
    if len(chunks) == 1:
        normed = _normed(norm, rows)
        q, k, v = (linear(normed, *part).view(x.shape) for part in parts_of(attn.projections()))
        o = _mix(attn, q, k, v, size)
        return add_linear(o.flatten(0, 1), attn.proj.weight, attn.proj.bias, rows).view(x.shape)
    q, k, v = (scratch.pop() if scratch else x.new_empty(x.shape) for _ in range(3))
    parts = list(parts_of(attn.projections()))
    outs = [each.flatten(0, 1) for each in (q, k, v)]
    for some in chunks:
        normed = _normed(norm, rows[some])
        for (weight, bias), out in zip(parts, outs, strict=True):
            _write_linear(out[some], weight, bias, normed)
    o = _mix(attn, q, k, v, size)
    _write_linear(k.flatten(0, 1), attn.proj.weight, attn.proj.bias, o.flatten(0, 1))
    scratch += [each for each in (o, v) if each.is_contiguous()]
    return k.add_(x)


def _normed(norm: nn.LayerNorm, rows: Tensor) -> Tensor:
    return F.layer_norm(rows, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def _mix(attn: AgentAttention, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
    """``attn.mix``, for large maps in the memory of the queries."""
    a = attn.agents(q, size)
    v_a = attn.attend(a, k, v, attn.b1(size))
    q, a, v_a = (attn.split_heads(t) for t in (q, a, v_a))
    o = join_heads(attend(q, a, v_a, attn.b2(size), out=q))
    return o.add_(attn.detail(v, size)) if attn.has_detail else o


def _write_linear(out: Tensor, weight: Tensor, bias: Tensor | None, x: Tensor) -> None:
    """Write a linear layer's output for rows (T, C) to contiguous memory."""
    if bias is None:
        torch.mm(x, weight.t(), out=out)
    else:
        torch.addmm(bias, x, weight.t(), out=out)
