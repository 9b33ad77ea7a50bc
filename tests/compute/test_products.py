"""Products of linear layers, whichever kernels compute them."""

import pytest
import torch
from helpers import normal
from torch.nn import functional as F

from agent_attention.compute.products import add_linear, linear, linear_gelu

CLOSE = {
    torch.float32: {"rtol": 2e-5, "atol": 2e-5},
    torch.float64: {"rtol": 1e-10, "atol": 1e-10},
}
close = torch.testing.assert_close


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("rows", [0, 1, 37])
@torch.no_grad()
def test_products_of_linear_layers(rows: int, dtype: torch.dtype) -> None:
    x, to = normal(1, (rows, 24)).to(dtype), normal(2, (rows, 8)).to(dtype)
    bias = normal(3, (8,)).to(dtype)
    for weight in (normal(4, (8, 24)).to(dtype), normal(4, (24, 8)).to(dtype).t()):
        for b in (bias, None):
            wanted = x.double() @ weight.double().t() + (0 if b is None else b.double())
            copy = to.clone()
            for found, exact in (
                (linear(x, weight, b), wanted),
                (linear_gelu(x, weight, b), F.gelu(wanted)),
                (add_linear(x, weight, b, to), wanted + to),
            ):
                assert found.dtype == dtype
                close(found.double(), exact, **CLOSE[dtype])
            assert torch.equal(to, copy)
