"""A mixer is one file and one line, and so is a backbone: all else finds them by name."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from helpers import SMALL, SMALL_SWIN, seed_weights, seeded_input, weighted
from torch import Tensor, nn

from agent_attention import AgentAttention, AgentPVT, AgentSwinTransformer
from agent_attention.arguments import check_agent_shapes, reject_unknown, resolve_arch
from agent_attention.backbones import BACKBONES, Backbone
from agent_attention.backbones.block import Block
from agent_attention.backbones.features import Feature, FeatureInfo
from agent_attention.backbones.recognised import Recognised, count_of
from agent_attention.layers import PatchEmbed
from agent_attention.mixers import MIXERS, Mixer, build_mixer
from agent_attention.weights.fit import backbone_weights
from agent_attention.weights.recognise import build_like, looks_like

Pair = tuple[int, int]
ARCHS = {"pvt": SMALL, "swin": SMALL_SWIN}
families = pytest.mark.parametrize("family", ARCHS)


def small(family: str, **options: Any) -> Any:
    return seed_weights(BACKBONES[family](ARCHS[family], **options))  # type: ignore[arg-type]


def kinds(model: nn.Module) -> list[type]:
    return [type(module.attn) for module in model.modules() if isinstance(module, Block)]


# --- mixers


class MeanMixer(Mixer):
    """Each token gets the mean of all keys and values."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
        """(B, N, C)."""
        return q + (k + v).mean(1, keepdim=True)


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
    depths = {"depths": (1, 4, 1, 1)}
    model = BACKBONES[family](
        {**ARCHS[family], **depths}, mixers=("mean", "1 agent, 2 mean, 1 windows", "agent", "mean")
    )  # type: ignore[call-arg, arg-type]
    agent, mean = AgentAttention, MeanMixer
    assert kinds(model) == [mean, agent, mean, mean, MIXERS["windows"], agent, mean]
    letters = BACKBONES[family]({**ARCHS[family], **depths}, attn_types=("A", "1B3A", "A", "B"))  # type: ignore[call-arg, arg-type]
    assert kinds(letters)[2:6] == [agent] * 4


@families
@pytest.mark.parametrize(
    "mixers",
    ["agent", ("agent",) * 3, ("agent", "agent", "agent", "none"), (), 5, ("agent", 2, "agent", 1),
     ("agent", "1 agent, 7 softmax", "agent", "agent"), ("agent", "agent,", "agent", "agent")],
)  # fmt: skip
def test_other_mixers_are_refused_with_the_names_of_the_known(family: str, mixers: Any) -> None:
    with pytest.raises(ValueError, match=r"mixers must be four names or runs.*'agent', 'softmax'"):
        BACKBONES[family](ARCHS[family], mixers=mixers)  # type: ignore[call-arg, arg-type]


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


class ToyViT(Backbone):
    """One stage, at stride 16."""

    ARCHS = {"tiny": {"embed_dim": 8, "depth": 2, "num_heads": 2}}  # noqa: RUF012

    def __init__(
        self,
        arch: Any = "tiny",
        agent_shapes: Sequence[Pair] = ((3, 3),),
        out_indices: Sequence[int] = (0,),
        frozen_stages: int = -1,
        with_cp: bool = False,
        pretrain_img_size: int = 224,
        **unknown: Any,
    ) -> None:
        reject_unknown(type(self), ToyViT, unknown)
        sizes = resolve_arch(arch, self.ARCHS)
        grids = check_agent_shapes(agent_shapes, 1)
        super().__init__((16,), out_indices, frozen_stages, with_cp, {})
        dim = sizes["embed_dim"]
        self.patch_embed = PatchEmbed(3, dim, 16)
        self.blocks = nn.ModuleList(
            Block(dim, build_mixer("agent", dim, 2, agent_shape=grids[0]), 16, 0.0, 0.0, 1e-6)
            for _ in range(sizes["depth"])
        )
        self.feature_info = FeatureInfo([Feature(dim, 16, "blocks")])
        self.freeze()

    def maps(self, x: Tensor) -> list[Tensor]:
        x, size = self.patch_embed(x)
        x = self.run(self.blocks, x, size)
        return [x.mT.unflatten(2, size)]

    def stage_modules(self, stage: int) -> list[nn.Module | nn.Parameter]:
        return [self.blocks] if stage else [self.patch_embed]

    def is_unused_key(self, key: str) -> bool:
        return key.startswith("norm.")

    @classmethod
    def recognise(cls, weights: Mapping[str, Tensor]) -> Recognised | None:
        if "blocks.0.attn.an_bias" not in weights:
            return None
        depth = count_of(weights, r"blocks\.(\d+)\.")
        arch = {2: "tiny"}.get(depth)
        return Recognised(cls, (depth,), arch, 224, cls.options_at(224))


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
    with pytest.raises(ValueError, match="agent_shapes must be one pair of"):
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
