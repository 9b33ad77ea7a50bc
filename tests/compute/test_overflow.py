"""Softmax scores that leave a type's range."""

import pytest
import torch
from helpers import normal, seeded_input, small_backbone

from agent_attention.compute.attend import attend
from agent_attention.compute.guard import using

close = torch.testing.assert_close
LARGE = {torch.float16: 6e4, torch.bfloat16: 1e30, torch.float32: 1e30}


@pytest.mark.parametrize("way", ["plain", "fused", "tiled", None])
@pytest.mark.parametrize("dtype", LARGE, ids=str)
def test_no_finite_queries_and_keys_overflow(dtype: torch.dtype, way: str | None) -> None:
    few = torch.zeros(2, 2, 9, 16)
    few[:, :, 3], few[:, :, 4, :1] = 1, -1
    for x in (normal(3, (2, 2, 9, 16)).clamp(-1, 1), torch.ones(2, 2, 9, 16), few):
        q, k = ((LARGE[dtype] * each).to(dtype).requires_grad_() for each in (x, x.flip(2)))
        v = normal(4, (2, 2, 9, 16)).to(dtype)
        for bias in (None, normal(5, (2, 9, 9))):
            out = attend(q, k, v, bias, way=way)
            assert out.isfinite().all() and out.dtype == dtype
            if dtype != torch.float16:  # whose gradients are of the numbers themselves
                grads = torch.autograd.grad(out.float().sum(), (q, k))
                assert all(grad.isfinite().all() for grad in grads)


def test_scores_that_are_held_back_choose_the_largest() -> None:
    q, k = torch.full((1, 1, 1, 4), 1e25), torch.tensor([[[[1.0] * 4, [2.0] * 4]]]) * 1e10
    v = torch.tensor([[[[1.0] * 4, [5.0] * 4]]])
    close(attend(q, k, v), v[:, :, 1:])


@torch.no_grad()
def test_large_images_overflow_in_no_executor() -> None:
    model = small_backbone("pvt").eval()
    for name, parameter in model.named_parameters():
        if name.endswith(("attn.q.weight", "attn.kv.weight")):
            parameter[: parameter.shape[1]].mul_(1e22)  # queries, and keys
    x = seeded_input(1, 64, 96)
    with using(way="plain"):
        wanted = model(x)
    assert all(out.isfinite().all() for out in wanted)
    close(model(x), wanted, rtol=1e-3, atol=1e-3)
