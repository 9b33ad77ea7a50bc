"""A mixer is one file and one line, and so is a backbone: all else finds them by name."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers import SMALL_ARCHS, seed_weights, seeded_input, weighted
from torch import Tensor, nn
from toys.mean import MeanMixer
from toys.vit import ToyViT

from agent_attention import AgentAttention, AgentPVT, AgentSwinTransformer
from agent_attention.backbones import BACKBONES
from agent_attention.backbones.block import Block
from agent_attention.mixers import MIXERS, Mixer, build_mixer
from agent_attention.weights.fit import backbone_weights
from agent_attention.weights.recognise import build_like, looks_like

Pair = tuple[int, int]
families = pytest.mark.parametrize("family", BACKBONES)


def small(family: str, **options: Any) -> Any:
    return seed_weights(BACKBONES[family](SMALL_ARCHS[family], **options))  # type: ignore[arg-type]


def kinds(model: nn.Module) -> list[type]:
    return [type(module.attn) for module in model.modules() if isinstance(module, Block)]


# --- mixers


class StripeMixer(Mixer):
    """Takes an option that only the backbone knows, and a layer of its own."""

    def __init__(self, dim: int, num_heads: int, table_shape: Pair, attn_drop: float) -> None:
        super().__init__(dim, num_heads, attn_drop=attn_drop)
        self.table_shape = table_shape
        self.gate = nn.Linear(dim, dim)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
        """(B, N, C)."""
        rows = v.unflatten(1, size).mean(2, keepdim=True)
        return self.gate(q).sigmoid() * rows.expand(-1, -1, size[1], -1).flatten(1, 2)


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MIXERS, "mean", MeanMixer)
    monkeypatch.setitem(MIXERS, "stripe", StripeMixer)


@families
@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("name", ["agent", "softmax", "reduced", "windows", "mean", "stripe"])
def test_every_mixer_stands_in_every_backbone(family: str, name: str) -> None:
    model = small(family, mixers=("agent", name, name, "agent"))
    assert kinds(model).count(MIXERS[name]) >= 3
    x = seeded_input(2, 70, 99)
    weighted(model(x)).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
    wanted = model.eval()(x)
    with torch.no_grad():
        torch.testing.assert_close(model(x), wanted, rtol=1e-4, atol=1e-5)


@families
def test_letters_are_names(family: str) -> None:
    other = {"pvt": "reduced", "swin": "windows"}[family]
    letters, names = (
        small(family, attn_types="ABAB"),
        small(family, mixers=["agent", other, "agent", other]),
    )
    assert kinds(letters) == kinds(names)
    assert letters.state_dict().keys() == names.state_dict().keys()


@families
@pytest.mark.usefixtures("toys")
def test_runs_choose_the_mixer_of_each_block(family: str) -> None:
    arch = {**SMALL_ARCHS[family], "depths": (1, 4, 1, 1)}
    runs = ("mean", "1 agent, 2 mean, 1 windows", "agent", "mean")
    agent, mean = AgentAttention, MeanMixer
    wanted = [mean, agent, mean, mean, MIXERS["windows"], agent, mean]
    assert kinds(BACKBONES[family](arch, mixers=runs)) == wanted  # type: ignore[call-arg, arg-type]
    letters = BACKBONES[family](arch, attn_types=("A", "1B3A", "A", "B"))  # type: ignore[call-arg, arg-type]
    assert kinds(letters)[2:6] == [agent] * 4


@families
@pytest.mark.parametrize(
    "mixers",
    ["agent", ("agent",) * 3, ("agent", "agent", "agent", "none"), (), 5, ("agent", 2, "agent", 1),
     ("agent", "1 agent, 7 softmax", "agent", "agent"), ("agent", "agent,", "agent", "agent")],
)  # fmt: skip
def test_other_mixers_are_refused_with_the_names_of_the_known(family: str, mixers: Any) -> None:
    with pytest.raises(ValueError, match=r"mixers must be, .*, one of .*agent, softmax"):
        BACKBONES[family](SMALL_ARCHS[family], mixers=mixers)  # type: ignore[call-arg, arg-type]


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
    monkeypatch.setitem(BACKBONES, "vit", ToyViT)
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
    with pytest.raises(ValueError, match="agent_shapes must be a pair of"):
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


def test_families_know_their_own_files_alone() -> None:
    for name, family in BACKBONES.items():
        weights = small(name).state_dict()
        assert [each for each in BACKBONES.values() if each.recognise(weights)] == [family]


def test_the_public_classes_are_in_the_table() -> None:
    assert [*BACKBONES.values()] == [AgentPVT, AgentSwinTransformer]
    assert {each.__name__ for each in BACKBONES.values()} <= set(dir(__import__("agent_attention")))
