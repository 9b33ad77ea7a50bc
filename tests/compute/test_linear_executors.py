"""What gives the numbers of linear mixers and of AFT-conv a chunk at a time."""

from typing import Any

import pytest
import torch
from helpers import tokens
from torch import Tensor, nn

from agent_attention.compute.guard import using
from agent_attention.mixers import build_mixer
from agent_attention.mixers.base import Mixer

EXACT = {"rtol": 1e-9, "atol": 1e-11}
KINDS: dict[str, dict[str, Any]] = {
    "1+elu": {"type": "norm"},
    "elu": {"type": "norm", "kernel": "elu", "detail": True},
    "focused": {"type": "focused"},
    "to the fourth": {"type": "focused", "factor": 4},
    "reduced": {"type": "focused", "reduction": 2},
    "kernel of 3": {"type": "aft_conv", "kernel": 3},
    "kernel of 7": {"type": "aft_conv", "kernel": 7},
}
every_kind = pytest.mark.parametrize("kind", KINDS)
SIZES = ((1, 1), (2, 3), (9, 20), (17, 8))


def mixer_of(kind: str, heads: int = 2) -> Mixer:
    """A mixer of 8 channels whose parameters are all drawn, in double precision."""
    torch.manual_seed(0)
    mixer = build_mixer(KINDS[kind], 8, heads, table_shape=(4, 4)).double()
    for parameter in mixer.parameters():
        nn.init.normal_(parameter, 0, 0.4)
    return mixer


def results(mixer: Mixer, x: Tensor, size: tuple[int, int], **changes: Any) -> list[Tensor]:
    """The output, and the gradients of tokens and parameters."""
    x = x.clone().requires_grad_()
    with using(**changes):
        out = mixer(x, size)
        weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out).cos()
        return [out.detach(), *torch.autograd.grad((out * weights).sum(), [x, *mixer.parameters()])]


def runs_in_chunks(mixer: Mixer, x: Tensor, size: tuple[int, int]) -> bool:
    with using(way="tiled"):
        return mixer.mix_in_chunks(*mixer.project(x, size), size) is not None


@every_kind
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("chunk", [64, 1 << 21])
def test_values_and_gradients_are_those_of_the_definition(
    kind: str, size: tuple[int, int], chunk: int
) -> None:
    if "reduced" in kind and 1 in size:
        size = (2, 2)
    mixer, x = mixer_of(kind), tokens(size).double()
    assert runs_in_chunks(mixer, x, size)
    wanted = results(mixer, x, size, way="plain")
    found = results(mixer, x, size, way="tiled", chunk=chunk)
    torch.testing.assert_close(found, wanted, **EXACT)


@every_kind
@pytest.mark.parametrize("heads", [1, 8])
def test_any_number_of_heads(kind: str, heads: int) -> None:
    mixer, x, size = mixer_of(kind, heads), tokens((6, 4)).double(), (6, 4)
    wanted = results(mixer, x, size, way="plain")
    torch.testing.assert_close(results(mixer, x, size, way="tiled"), wanted, **EXACT)


@every_kind
@torch.no_grad()
def test_no_sample_is_no_error(kind: str) -> None:
    assert mixer_of(kind)(torch.empty(0, 12, 8, dtype=torch.float64), (3, 4)).shape == (0, 12, 8)


@every_kind
@pytest.mark.parametrize("scale", [1e15, 1e30])
def test_large_numbers_are_left_to_the_definition(kind: str, scale: float) -> None:
    mixer, size = mixer_of(kind).float(), (3, 4)
    q, k, v = (t * scale for t in mixer.project(tokens(size), size))
    with using(way="tiled"):
        assert mixer.mix_in_chunks(q, k, v, size) is None
        assert mixer.mix_by_executor((q, k, v), size).isfinite().all()


@every_kind
def test_few_tokens_are_left_to_the_definition(kind: str) -> None:
    mixer, size = mixer_of(kind), (3, 4)
    assert mixer.mix_in_chunks(*mixer.project(tokens(size).double(), size), size) is None


def test_a_kernel_that_suppresses_is_left_to_the_definition() -> None:
    mixer, size = mixer_of("kernel of 3"), (5, 6)
    x = tokens(size).double()
    nn.init.constant_(mixer.place_shift, -9.0)
    assert not runs_in_chunks(mixer, x, size)
    assert mixer(x, size).isfinite().all()


@every_kind
def test_the_gradient_keeps_only_what_comes_in(kind: str) -> None:
    mixer, size = mixer_of(kind), (16, 16)
    kept: list[int] = []

    def note(x: Tensor) -> Tensor:
        kept.append(x.numel())
        return x

    q, k, v = (t.detach().requires_grad_() for t in mixer.project(tokens(size).double(), size))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x), using(way="tiled"):
        mixer.mix_in_chunks(q, k, v, size)
    inputs = sum(t.numel() for t in (q, k, v, *mixer.parameters()))
    # the convolution of values and the resized positions keep what autograd keeps for them
    assert sum(kept) <= inputs + 4 * q.numel()
