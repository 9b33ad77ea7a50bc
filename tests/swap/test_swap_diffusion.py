"""Denoising steps, on a stand-in that is diffusers' by name; the UNet itself: ``make clients``."""

from typing import Any

import pytest
import torch
from helpers import normal
from swap_cases import prepare
from torch import Tensor, nn
from torch.nn import functional as F

from agent_attention.swap import Agent, Clusters, MergedSoftmax, agent_sd, swap_attention


class Attention(nn.Module):
    """Self-attention by a processor, or cross-attention."""

    __module__ = "diffusers.models.attention_processor"

    def __init__(self, is_cross_attention: bool) -> None:
        super().__init__()
        self.qkv, self.is_cross_attention = nn.Linear(8, 24), is_cross_attention
        self.processor: Any = None

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(hidden_states).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attn1, self.attn2 = nn.LayerNorm(8), Attention(False), Attention(True)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn1(self.norm(x))
        return x + self.attn2(x)


class UNet2DConditionModel(nn.Module):
    """A latent of 9 x 12, and its half, rounded up."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.small, self.down = Block(), Block(), nn.Conv2d(8, 8, 3, 2, 1)

    def forward(self, sample: Tensor, timestep: Any) -> Tensor:
        large = self.large(sample.flatten(2).mT)
        half = self.down(large.mT.unflatten(2, sample.shape[2:]))
        return torch.cat([large, self.small(half.flatten(2).mT)], 1)


LATENT = normal(1, (2, 8, 9, 12)).double()


@pytest.fixture
def unet() -> nn.Module:
    return prepare(UNet2DConditionModel())


def test_the_map_is_the_latent_or_its_half(unet: nn.Module) -> None:
    with swap_attention(unet, Agent((2, 3)), min_tokens=0) as swap:
        unet(LATENT, 981)
    assert [row[:5] for row in swap.report] == [
        ("large.attn1", 108, 108, (9, 12), (2, 3)),  # and no cross-attention
        ("small.attn1", 30, 30, (5, 6), (2, 3)),
    ]


def test_clusters_are_of_what_comes_before_the_norm(unet: nn.Module) -> None:
    seen = []

    class Form(MergedSoftmax):
        def __call__(self, *args: Any, tokens: Any = None) -> Tensor:
            seen.append(tokens)
            return super().__call__(*args, tokens=tokens)

    with swap_attention(unet, Form(Clusters(cell=2, ratio=0.3)), where=[0], min_tokens=0) as swap:
        unet(LATENT, 981)
        assert torch.equal(seen[0], LATENT.flatten(2).mT)
        assert swap._adapters[0].tokens is None  # and then nothing is held


def test_steps(unet: nn.Module) -> None:
    times = (981, 961, 961, 941, 981)
    with torch.no_grad():
        plain = [unet(LATENT, time) for time in times]
        with swap_attention(unet, None, min_tokens=50, steps=agent_sd(0, until=2)) as swap:
            found = [unet(LATENT, torch.tensor(time)) for time in times]
            assert swap.step == 0 and swap.report[1].why == "30 tokens are fewer than min_tokens=50"
        is_plain = [torch.equal(a, b) for a, b in zip(found, plain, strict=True)]
        assert is_plain == [False, False, False, True, False]
        with swap_attention(unet, None, min_tokens=50, steps=agent_sd(0.4, until=2)):
            merged = [unet(LATENT, time) for time in times]
        assert not any(torch.equal(a, b) for a, b in zip(merged, plain, strict=True))
        with swap_attention(unet, Agent((2, 3)), min_tokens=50, steps=1) as swap:
            assert not torch.equal(unet(LATENT, 981), plain[0])
            assert torch.equal(unet(LATENT, 961), plain[1])
            assert swap.report[0].why == "softmax at step 1"


def test_keys_that_are_given_are_refused(unet: nn.Module) -> None:
    x = LATENT.flatten(2).mT
    with swap_attention(unet, Agent((2, 3)), min_tokens=0):
        with pytest.raises(ValueError, match=r"large.attn1 .*cross-attention"):
            unet.large.attn1(x, x)
        with pytest.raises(ValueError, match=r"small.attn1 .*not known"):
            unet.small.attn1(x)


def test_steps_are_counted_by_the_time_that_falls() -> None:
    attn = nn.MultiheadAttention(8, 2).eval()
    swap = swap_attention(attn, Agent(), size=(4, 6))
    swap.steps = {0: Agent(), 2: None}
    counted = []
    for time in (981, 961, 961, 941, 921, 981, 961):
        swap.count_step(time)
        counted.append((swap.step, swap.form_for("attn", 5000)[0] is not None))
    steps = [(0, True), (1, True), (1, True), (2, False), (3, False), (0, True), (1, True)]
    assert counted == steps
    assert swap.form_for("attn", 10)[1].startswith("10 tokens are fewer")
