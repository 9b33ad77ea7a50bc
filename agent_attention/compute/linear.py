"""Linear attention on a CPU, a chunk of tokens at a time, forward and backward.

φ(K)ᵀ V is summed chunk by chunk, then each chunk of queries reads it. Of the size of the tokens
nothing is made but the output, and for the backward pass nothing is kept but what came in: φ is
made again. What differs between mixers is a ``Form``, see ``linear_forms``.

Shapes, of one sample: tokens of a chunk (T, C), of each head (h, T, d); the state that is read,
[φ(K)ᵀ V, φ(K)ᵀ 1] / n, is (h, d, d + 1).
Letters: see ``agent_attention.mixers.agent``.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from agent_attention.compute.chunks import row_chunks
from agent_attention.compute.guard import settings

LARGEST = 1e12  # of what is summed and divided by; above, a definition has to scale its factors
_TENSORS = 5  # (T, C) of a chunk


class Features(NamedTuple):
    """φ(x) = factor * w."""

    w: Tensor  # (T, C)
    factor: Tensor | None = None  # (T, 1), or one
    rest: tuple[Tensor, ...] = ()  # what the backward pass needs

    def phi(self) -> Tensor:
        """φ(x) (T, C), in the memory of w."""
        return self.w if self.factor is None else self.w.mul_(self.factor)


class Form(Protocol):
    """φ, and how what a query reads is normalised."""

    few: int  # numbers of a sample's tokens, below which the definition is quicker on a CPU

    def features(self, x: Tensor, scale: Tensor | None) -> Features:
        """φ(x) of tokens (T, C), with a parameter ``scale`` (C,)."""

    def features_backward(
        self,
        x: Tensor,
        made: Features,
        grad: Tensor,
        out: Tensor,
        scale: Tensor | None,
        of_scale: Tensor | None,
    ) -> None:
        """Write the gradient of x; add to that of the scale.

        ``grad`` is that of φ(x) times the factor, and may be written over.
        """

    def read(self, made: Features, state: Tensor, out: Tensor) -> Tensor:
        """Write what queries read (T, C); give what it was divided by."""

    def read_backward(
        self, made: Features, state: Tensor, grad: Tensor, of_state: Tensor
    ) -> Tensor:
        """The gradient of φ times the factor (T, C); adds to that of the state."""


class Inputs(NamedTuple):
    """Queries (B, N, C), keys and values (B, n, C), and parameters of the features."""

    q: Tensor
    k: Tensor
    v: Tensor
    positions: Tensor | None = None  # added to the keys (1, n, C)
    scale: Tensor | None = None  # (C,)

    def keys(self, b: int, part: slice) -> Tensor:
        """Keys (T, C) of a sample, with positions."""
        k = self.k[b, part]
        return k if self.positions is None else k + self.positions[0, part]


def attend_linearly(form: Form, num_heads: int, inputs: Inputs) -> Tensor | None:
    """What queries read (B, N, C); None if the definition is quicker, or needed for its care."""
    if not is_worth(inputs.q, form.few):
        return None
    out, is_safe = _Linear.apply(form, num_heads, *inputs)
    return out if is_safe else None


def is_worth(x: Tensor, few: int) -> bool:
    """Whether tokens (B, N, C) are so many that working in chunks is quicker than not."""
    return settings().way == "tiled" or x.shape[1] * x.shape[2] >= few


def chunk_width(tensors: int, channels: int) -> int:
    """Numbers a token, for ``row_chunks``. To wake threads for small operations takes longer."""
    shrink = 4 if torch.get_num_threads() > 1 else 1
    return max(1, tensors * channels // shrink)


def split(x: Tensor, num_heads: int) -> Tensor:
    """(T, C) as (h, T, d), in the same memory."""
    return x.unflatten(1, (num_heads, -1)).transpose(0, 1)


def write_product(out: Tensor, x: Tensor, by: Tensor) -> None:
    """Write x by in each head, for tokens (T, C) and matrices (h, d, d)."""
    split(out, len(by)).baddbmm_(split(x, len(by)), by, beta=0)


def add_product(out: Tensor, x: Tensor, y: Tensor) -> None:
    """Add xᵀ y of tokens (T, C) to matrices (h, d, d)."""
    out.baddbmm_(split(x, len(out)).mT, split(y, len(out)))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, form: Form, num_heads: int, *tensors: Tensor) -> tuple[Tensor, bool]:
        inputs = Inputs(*tensors)
        q, scale = inputs.q, inputs.scale
        out = torch.empty(q.shape, dtype=q.dtype)
        states = [_state(form, num_heads, inputs, b) for b in range(len(q))]
        is_safe = all(map(is_small, states))
        for b, state in enumerate(states):
            for part in _chunks(q):
                divisor = form.read(form.features(q[b, part], scale), state, out[b, part])
                is_safe = is_safe and is_small(divisor)
        ctx.save_for_backward(*inputs, *states)
        ctx.form = form
        return out, is_safe

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor | None, ...]:
        count = len(Inputs._fields)
        inputs, states = Inputs(*ctx.saved_tensors[:count]), ctx.saved_tensors[count:]
        of_q, of_k, of_v = (torch.empty(x.shape, dtype=x.dtype) for x in inputs[:3])
        of_scale = None if inputs.scale is None else torch.zeros_like(inputs.scale)
        grads = Inputs(of_q, of_k, of_v, None, of_scale)
        with torch.autocast("cpu", enabled=False):  # as in the forward pass
            for b, state in enumerate(states):
                of_state = torch.zeros_like(state)
                _read_backward(ctx.form, inputs, b, state, grad[b], grads, of_state)
                _state_backward(ctx.form, inputs, b, of_state.div_(inputs.k.shape[1]), grads)
        positions = None if inputs.positions is None else grads.k.sum(0, keepdim=True)
        return None, None, *grads._replace(positions=positions)


def _chunks(x: Tensor) -> Iterator[slice]:
    return row_chunks(x.shape[1], chunk_width(_TENSORS, x.shape[2]))


def is_small(x: Tensor) -> bool:
    """Whether all numbers are finite, and small enough for what is computed with them."""
    return not x.numel() or bool(torch.linalg.vector_norm(x) < LARGEST)


def _state(form: Form, num_heads: int, inputs: Inputs, b: int) -> Tensor:
    """[φ(K)ᵀ V, φ(K)ᵀ 1] / n of a sample."""
    k, v = inputs.k[b], inputs.v[b]
    d = v.shape[1] // num_heads
    product, total = v.new_zeros(num_heads, d, d), v.new_zeros(len(v[0]))
    for part in _chunks(inputs.k):
        phi = form.features(inputs.keys(b, part), inputs.scale).phi()
        add_product(product, phi, v[part])
        total.add_(phi.sum(0))
    return torch.cat([product, total.view(num_heads, d, 1)], -1).div_(len(k))


def _state_backward(form: Form, inputs: Inputs, b: int, of_state: Tensor, grads: Inputs) -> None:
    """Write the gradients of a sample's keys and values; add to that of the scale."""
    of_product, of_total = of_state[..., :-1].contiguous(), of_state[..., -1].flatten()
    v, of_k, of_v = inputs.v[b], grads.k[b], grads.v[b]
    for part in _chunks(inputs.k):
        keys = inputs.keys(b, part)
        made = form.features(keys, inputs.scale)
        write_product(of_v[part], made.w, of_product)
        of_phi = torch.empty_like(made.w)
        write_product(of_phi, v[part], of_product.mT)
        of_phi.add_(of_total)
        if made.factor is not None:
            of_v[part].mul_(made.factor)
            of_phi.mul_(made.factor)
        form.features_backward(keys, made, of_phi, of_k[part], inputs.scale, grads.scale)


def _read_backward(
    form: Form, inputs: Inputs, b: int, state: Tensor, grad: Tensor, grads: Inputs, of_state: Tensor
) -> None:
    """Write the gradient of a sample's queries; add to those of the scale and of the state."""
    q, of_q = inputs.q[b], grads.q[b]
    for part in _chunks(inputs.q):
        made = form.features(q[part], inputs.scale)
        of_phi = form.read_backward(made, state, grad[part], of_state)
        form.features_backward(q[part], made, of_phi, of_q[part], inputs.scale, grads.scale)
