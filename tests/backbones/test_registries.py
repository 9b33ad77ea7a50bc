"""A mixer is one file and one line, and so is a backbone: all else finds them by name."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers import (
    SMALL_ARCHS,
    blocks_of,
    in_all_stages,
    mixers_of,
    seed_weights,
    seeded_input,
    weighted,
)
from helpers import small_backbone as small
from torch import Tensor, nn
from toys.mean import MeanMixer
from toys.toy_vit import ToyViT

import agent_attention
from agent_attention import AgentAttention, backbones
from agent_attention.backbones import BACKBONES
from agent_attention.mixers import MIXERS, Mixer, build_mixer
from agent_attention.weights.fit import backbone_weights
from agent_attention.weights.recognise import build_like, looks_like

Pair = tuple[int, int]
families = pytest.mark.parametrize("family", BACKBONES)
OF_LETTERS = ("pvt", "swin")  # which take ``attn_types`` too


def kinds(model: nn.Module) -> list[list[type]]:
    """Classes of the mixers of each block."""
    return [[*map(type, mixers_of(block))] for block in blocks_of(model)]


# --- mixers


class RowMixer(Mixer):
    """Takes an option that only the backbone knows, and a layer of its own."""

    def __init__(self, dim: int, num_heads: int, table_shape: Pair, **shared: Any) -> None:
        super().__init__(dim, num_heads, **shared)
        self.table_shape = table_shape
        self.gate = nn.Linear(dim, dim)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
        """(B, N, C)."""
        rows = v.unflatten(1, size).mean(2, keepdim=True)
        return self.gate(q).sigmoid() * rows.expand(-1, -1, size[1], -1).flatten(1, 2)


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MIXERS, "mean", MeanMixer)
    monkeypatch.setitem(MIXERS, "rows", RowMixer)


def refusal(family: str, name: str) -> str | None:
    """What a backbone says of a mixer that cannot be in it."""
    if family in ("cswin", "flatten_cswin") and name in ("windows", "reduced", "aft_conv"):
        return "cannot be in CSwin; mixers are .*'agent', 'softmax', 'stripes', 'focused'"
    return None


EVEN = {"num_heads": (2, 2, 2, 4)}  # of heads, so that stripes are allowed in the first stage


@families
@pytest.mark.usefixtures("toys")
def test_every_mixer_stands_in_every_stage_of_every_backbone(family: str) -> None:
    arch = {**SMALL_ARCHS[family], **({} if family == "vit" else EVEN)}
    if "mlp_ratios" in arch:
        arch["embed_dims"] = (8, 16, 24, 32)
    x = seeded_input(1, 40, 66)
    for name in MIXERS:
        options = {"arch": arch, **in_all_stages(family, name)}
        if fault := refusal(family, name):
            with pytest.raises(ValueError, match=fault):
                small(family, **options)
            continue
        model = small(family, **options)
        weighted(model(x)).backward()
        for key, parameter in model.named_parameters():
            gradient = parameter.grad
            assert gradient is not None and gradient.isfinite().all(), (name, key)
        wanted = model.eval()(x)
        with torch.no_grad():
            torch.testing.assert_close(model(x), wanted, rtol=1e-4, atol=1e-5)


class OwnProjections(MeanMixer):
    """Its constructor hands on no ``projections``, so it always makes its own."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__(dim, num_heads)


@pytest.mark.parametrize("family", ["cswin", "flatten_cswin"])
def test_blocks_with_projections_refuse_a_mixer_that_makes_its_own(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MIXERS, "own", OwnProjections)
    with pytest.raises(ValueError, match="OwnProjections cannot be in CSwin"):
        small(family, **in_all_stages(family, "own"))
    assert small("pvt", **in_all_stages("pvt", "own"))


@pytest.mark.parametrize("family", OF_LETTERS)
def test_letters_are_names(family: str) -> None:
    other = {"pvt": "reduced", "swin": "windows"}[family]
    letters, names = (
        small(family, attn_types="ABAB"),
        small(family, mixers=["agent", other, "agent", other]),
    )
    assert kinds(letters) == kinds(names)
    assert letters.state_dict().keys() == names.state_dict().keys()


def with_depth_four(family: str) -> dict[str, Any]:
    """An architecture whose second stage, or only one, has four blocks."""
    arch = SMALL_ARCHS[family]
    return arch if family == "vit" else {**arch, "depths": (1, 4, 1, 1)}


@families
@pytest.mark.usefixtures("toys")
def test_runs_choose_the_mixer_of_each_block(family: str) -> None:
    arch, run = with_depth_four(family), "1 agent, 2 mean, 1 softmax"
    runs = run if family == "vit" else ("mean", run, "agent", "mean")
    agent, mean, softmax = ([MIXERS[name]] for name in ("agent", "mean", "softmax"))
    wanted = [agent, mean, mean, softmax]
    if family != "vit":
        wanted = [mean, *wanted, agent, mean]
    assert kinds(small(family, arch=arch, mixers=runs)) == wanted


@pytest.mark.parametrize("family", OF_LETTERS)
def test_runs_of_letters_choose_the_mixer_of_each_block(family: str) -> None:
    model = small(family, arch=with_depth_four(family), attn_types=("A", "1B3A", "A", "B"))
    assert kinds(model)[2:6] == [[AgentAttention]] * 4


FIT_NOT: list[Any] = [
    ("agent",) * 3, ("agent", "agent", "agent", "none"), (), 5, ("agent", 2, "agent", 1),
    ("agent", "1 agent, 7 softmax", "agent", "agent"), ("agent", "agent,", "agent", "agent"),
    ("agent", {"type": "none"}, "agent", "agent"), ("agent", {"kernel": 3}, "agent", "agent"),
]  # fmt: skip


@families
def test_other_mixers_are_refused_with_the_names_of_the_known(family: str) -> None:
    wrong, count = [*FIT_NOT, "agent"], 4
    if family == "vit":
        wrong, count = [*FIT_NOT, "none", "1 agent, 7 softmax", "agent,", {"kernel": 3}], 1
    if family not in (*OF_LETTERS, "vit", "flatten_pvt", "flatten_swin"):
        wrong.append(None)
    for mixers in wrong:
        got = re.escape(repr(mixers))
        fault = (
            rf"mixers must be, for each of {count} stages, one of .*agent, softmax.*got \[?{got}"
        )
        with pytest.raises(ValueError, match=fault):
            small(family, mixers=mixers)


@families
def test_a_mixer_may_be_given_with_options(family: str) -> None:
    for item in (
        {"type": "diag", "window": 3, "kernel": "relu"},
        {"type": "aft_local", "window": 2, "rank": 5},
        {"type": "norm", "kernel": "elu", "detail": True},
    ):
        options = {key: value for key, value in item.items() if key not in ("type", "rank")}
        model = small(family, mixers=item if family == "vit" else ["agent", item, item, "agent"])
        kind = MIXERS[str(item["type"])]
        found = [each for each in model.modules() if type(each) is kind]
        assert len(found) >= 2
        for mixer in found:
            named = {**vars(mixer), "detail": mixer.has_detail}
            assert {key: named[key] for key in options} == options
        with pytest.raises(TypeError, match="kernels"):
            small(family, mixers=[{**item, "kernels": 3}] * (1 if family == "vit" else 4))


def test_a_mixer_gets_the_options_that_it_names() -> None:
    mixer = build_mixer("windows", 8, 2, window=5, shift=2, sr_ratio=8, agent_shape=(3, 3))
    assert (mixer.window, mixer.shift) == (5, 2)
    with pytest.raises(ValueError, match="dim=8 is not a multiple of num_heads=3"):
        build_mixer("softmax", 8, 3)


def test_agents_serve_a_map_beside_other_tokens() -> None:
    """A class token, as a plain transformer has one: it is a key and a query, and no agent."""

    class WithClassToken(AgentAttention):
        def mix(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
            a = self.agents(q[:, 1:], size)
            o = self.attend(q, a, self.attend(a, k, v))
            return torch.cat([o[:, :1], o[:, 1:] + self.detail(v[:, 1:], size)], 1)

    attn = seed_weights(WithClassToken(8, 2, agent_bias=False))
    out = attn(torch.randn(2, 1 + 5 * 6, 8), (5, 6))
    assert out.shape == (2, 31, 8) and out.isfinite().all()


# --- backbones


@pytest.fixture
def toy_vit(monkeypatch: pytest.MonkeyPatch) -> Iterator[ToyViT]:
    monkeypatch.setitem(BACKBONES, "toy", ToyViT)
    yield seed_weights(ToyViT())


@pytest.mark.parametrize("gradients", [False, True])
def test_a_backbone_of_one_stage_works(toy_vit: ToyViT, gradients: bool) -> None:
    with torch.set_grad_enabled(gradients):
        (out,) = toy_vit.eval()(seeded_input(2, 40, 64))
    assert out.shape == (2, 8, 2, 4) and toy_vit.feature_info.reduction() == [16]
    with pytest.raises(ValueError, match="at least 16x16"):
        toy_vit(torch.zeros(1, 3, 15, 64))
    with pytest.raises(ValueError, match="increasing stage numbers from 0 to 0"):
        ToyViT(out_indices=(0, 1))
    with pytest.raises(ValueError, match="frozen_stages must be an integer from -1 to 1"):
        ToyViT(frozen_stages=2)
    with pytest.raises(ValueError, match="a pair of positive integers"):
        ToyViT(agent_shapes=((3, 3), (3, 3)))
    assert not any(p.requires_grad for p in ToyViT(frozen_stages=1).parameters())
    assert any(p.requires_grad for p in ToyViT(frozen_stages=0).parameters())


def test_a_new_family_is_recognised_and_loads(toy_vit: ToyViT) -> None:
    weights = {**toy_vit.state_dict(), "norm.weight": torch.zeros(8)}
    assert looks_like(weights) == "ToyViT 'tiny' pre-trained at 224 pixels"
    model = build_like(weights)
    fit = backbone_weights({"model": weights}, model)
    assert type(model) is ToyViT and fit.dropped == ["norm.weight"] and not fit.new
    assert "blocks" in looks_like({"blocks.0.x": torch.zeros(1)})


def test_families_know_their_own_files_first() -> None:
    for name, family in BACKBONES.items():
        weights = small(name).state_dict()
        known = [each for each in BACKBONES.values() if each.recognise(weights)]
        assert known[0] is family, name


def test_the_public_classes_are_in_the_table() -> None:
    names = {each.__name__ for each in BACKBONES.values()}
    assert len(names) == len(BACKBONES) == len(SMALL_ARCHS)
    assert names <= {*agent_attention.__all__} and names <= {*backbones.__all__}
