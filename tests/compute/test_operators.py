"""Steps as operators of compiled graphs: results, and gradients that are the transposed maps."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import TABLES, agent_attention, normal, tokens
from torch import Tensor
from torch.autograd import grad
from torch.nn import functional as F

from agent_attention.compute import stripes, symbolic, window_cut
from agent_attention.compute.attend import attend_plain
from agent_attention.compute.attend_operator import attend_compiled

close = torch.testing.assert_close
Case = tuple[Any, Callable[[Tensor], Tensor], tuple[int, ...], tuple[int, ...]]
SIZE = (15, 22)
TOKENS = (2, 15 * 22, 8)
CASES: dict[str, Case] = {  # operator, the same without a compiler, shape, numbers
    "windows": (
        *(window_cut._cut, lambda x: window_cut.cut_windows(x, SIZE, 7, 3)),
        *(TOKENS, (2, *SIZE, 7, 3)),
    ),
    "one window": (
        *(window_cut._cut, lambda x: window_cut.cut_windows(x, (7, 7), 7, 0)),
        *((2, 49, 8), (2, 7, 7, 7, 0)),
    ),
    "joined": (
        *(window_cut._join, lambda x: window_cut.join_windows(x, SIZE, 7, 3, 2)),
        *((24, 49, 8), (2, *SIZE, 7, 3)),
    ),
    "columns": (
        *(stripes._cut_one, lambda x: stripes._cut(x, SIZE, 7, True).flatten(1, 2)),
        *(TOKENS, (2, *SIZE, 7, 1)),
    ),
    "rows": (
        *(stripes._cut_one, lambda x: stripes._cut(x, SIZE, 7, False).flatten(1, 2)),
        *(TOKENS, (2, *SIZE, 7, 0)),
    ),
    "bilinear": (
        *(symbolic._resize, lambda x: symbolic.resize(x, (13, 5))),
        *((2, 3, 7, 9), (7, 9, 13, 5, 0)),
    ),
    "bicubic": (
        *(symbolic._resize, lambda x: symbolic.resize(x, (13, 5), "bicubic")),
        *((2, 3, 7, 9), (7, 9, 13, 5, 1)),
    ),
    "pool": (
        symbolic._pool,
        lambda x: F.adaptive_avg_pool2d(x.mT.unflatten(2, SIZE), (4, 5)).flatten(2).mT,
        *(TOKENS, (*SIZE, 4, 5)),
    ),
    "padding": (
        *(symbolic._pad, lambda x: F.pad(x, (0, 10, 0, 1))),
        *((2, 3, *SIZE), (2, 3, 1, 10, *SIZE)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_operator_is_the_step_and_its_gradient_the_transposed(name: str) -> None:
    operator, step, shape, numbers = CASES[name]
    x = normal(1, shape).double().requires_grad_()
    out = operator(x, numbers)
    close(out, step(x).contiguous(), rtol=0, atol=1e-12)
    assert out.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()
    slope = normal(2, tuple(out.shape)).double().requires_grad_()
    (of_x,) = grad(out, x, slope, create_graph=True)
    close(of_x, grad(step(x), x, slope.detach())[0], rtol=0, atol=1e-12)
    (again,) = grad(of_x, slope, x.detach())
    close(again, out, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tokens_first", [False, True])
def test_attention_as_an_operator_is_the_definition(tokens_first: bool) -> None:
    module, size = agent_attention(dim=8).double(), (9, 6)
    x = tokens(size).double().requires_grad_()
    q, k, v = (module.split_heads(t) for t in module.project(x, size))
    bias = module.b2(size) if tokens_first else module.b1(size)
    q, k, v = (q, k[:, :, :9], v[:, :, :9]) if tokens_first else (q[:, :, :9], k, v)
    assert bias is not None
    leaves = [x, *(getattr(module, name) for name in TABLES[3 * tokens_first :][:3])]
    outs = attend_compiled(q, k, v, bias), attend_plain(q, k, v, bias.dense())
    close(*outs, rtol=1e-8, atol=1e-10)
    slope = normal(3, tuple(outs[0].shape)).double()
    found, wanted = (grad(out, leaves, slope, retain_graph=True) for out in outs)
    close(found, wanted, rtol=1e-8, atol=1e-10)
