"""Products of linear layers, whichever kernels compute them."""

import pytest
import torch
from helpers import normal
from torch import nn
from torch.nn import functional as F

from agent_attention.compute.guard import using
from agent_attention.compute.patches import embed_patches
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


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("bias", [True, False])
def test_patches_of_images_are_a_convolution(bias: bool, dtype: torch.dtype) -> None:
    conv = nn.Conv2d(3, 8, kernel_size=(4, 2), stride=(4, 2), bias=bias).to(dtype)
    for shape in ((2, 3, 8, 6), (1, 3, 11, 9), (0, 3, 4, 4)):
        x = normal(1, shape).to(dtype).requires_grad_()
        found, wanted = embed_patches(conv, x), conv(x).permute(0, 2, 3, 1)
        assert found is not None
        leaves, grad = [x, *conv.parameters()], normal(2, wanted.shape).to(dtype)
        gradients = [torch.autograd.grad(each, leaves, grad) for each in (found, wanted)]
        close([found, *gradients[0]], [wanted, *gradients[1]], **CLOSE[dtype])


def test_other_convolutions_are_left_alone() -> None:
    x = normal(1, (1, 3, 8, 8))
    for layer in (
        nn.Conv2d(3, 8, 4, 2),
        nn.Conv2d(3, 8, 4, 4, padding=1),
        nn.Conv2d(3, 6, 4, 4, groups=3),
        nn.Conv2d(3, 8, 2, 2, dilation=2),
        nn.Conv1d(3, 8, 2, 2),
    ):
        assert embed_patches(layer, x) is None
    assert embed_patches(nn.Conv2d(8, 8, 4, 4), normal(1, (1, 8, 8, 8))) is None
    conv = nn.Conv2d(3, 8, 4, 4)
    with using(way="plain"):
        assert embed_patches(conv, x) is None
    conv.register_forward_hook(lambda *_: None)
    assert embed_patches(conv, x) is None
