"""Agent grids by a rule: those published at the published settings, bounded ones everywhere."""

import inspect
import random

import pytest
import torch

from agent_attention import AgentPVT, AgentSwinTransformer
from agent_attention.backbones import BACKBONES
from agent_attention.mixers import AgentAttention
from agent_attention.mixers.grids import GridRule

PVT = ((12, 12), (16, 16), (28, 28), (28, 28))
SWIN = ((9, 9), (12, 12), (14, 14))
BASE = ((3, 3), (4, 4), (7, 7), (7, 7))
DENSE = [(800, 1333), (800, 1344), (512, 512), (512, 683), (512, 2048)]


def grids(model: torch.nn.Module, height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Of the first agent attention of each stage, for an image."""
    found = {m.table_shape[0]: m for m in model.modules() if isinstance(m, AgentAttention)}
    sizes = [(height // stride, width // stride) for stride in (4, 8, 16, 32)]
    return tuple(m.grid(size) for m, size in zip(found.values(), sizes, strict=False))


@pytest.mark.parametrize("size", DENSE)
def test_the_rule_gives_the_published_grids(size: tuple[int, int]) -> None:
    assert grids(AgentPVT(agent_shapes="rule"), *size) == PVT
    assert grids(AgentSwinTransformer(agent_shapes="rule"), *size) == SWIN


@pytest.mark.parametrize("side", [224, 256, 384])
def test_the_rule_gives_the_grids_of_classification(side: int) -> None:
    rule = {"type": "rule", "cap": 1}
    for pretrained in (224, side):
        model = AgentPVT(agent_shapes=rule, pretrain_img_size=pretrained)
        assert grids(model, side, side) == BASE
    assert grids(AgentPVT(agent_shapes="rule"), 224, 224) == BASE


def test_aspect_makes_cells_square() -> None:
    wide = AgentPVT(agent_shapes={"type": "rule", "aspect": True})
    assert grids(wide, 800, 1344) == ((9, 16), (12, 21), (22, 36), (22, 36))


def test_bounded_grids_keep_to_tokens_aspect_and_cost() -> None:
    model = AgentPVT(agent_shapes="bounded")
    mixers = [block[0].attn for block in (model.block1, model.block2, model.block3, model.block4)]
    draw = random.Random(0)
    for _ in range(1000):
        height, width = draw.randint(1, 300), draw.randint(1, 300)
        for mixer, ratio in zip(mixers, (8, 8, 4, 4), strict=True):
            rows, columns = mixer.grid((height, width))
            assert 1 <= rows <= height and 1 <= columns <= width
            # 4 N n C of the agents is at most half of (4 + 2 ratio) N C^2
            dim = mixer.proj.in_features
            assert 4 * rows * columns <= (4 + 2 * ratio) * dim / 2
            if max(height, width) <= 40 * min(height, width):
                assert 1 / 1.5 <= (rows / columns) / (height / width) <= 1.5


def test_a_map_longer_than_agents_are_many_keeps_the_bound() -> None:
    assert GridRule(aspect=True, within=True, most=160).grid((1, 900), 3, 56) == (1, 160)


def test_a_number_of_agents_has_the_shape_of_the_map() -> None:
    assert grids(AgentPVT(agent_shapes=49), 320, 320) == ((7, 7),) * 4
    assert grids(AgentPVT(agent_shapes=48), 256, 768) == ((4, 12),) * 4
    assert grids(AgentPVT(agent_shapes=400), 96, 96)[-1] == (3, 3)


@pytest.mark.parametrize("kind", [cls for cls in BACKBONES.values() if "Agent" in cls.__name__])
@torch.no_grad()
def test_a_rule_is_the_fixed_grid_of_each_size(kind: type[torch.nn.Module]) -> None:
    name = next(each for each in inspect.signature(kind).parameters if "agent_shape" in each)
    torch.manual_seed(0)
    model = kind(**{name: "bounded"}).eval()
    for size in ((96, 160), (128, 64), (96, 160)):
        x = torch.randn(1, 3, *size)
        found = model(x)
        fixed = [m for m in model.modules() if isinstance(m, AgentAttention)]
        rules = [m.agent_shape for m in fixed]
        hooks = [m.register_forward_pre_hook(fix) for m in fixed]
        for one, other in zip(found, model(x), strict=True):
            assert torch.allclose(one, other, atol=1e-5)
        for m, rule, hook in zip(fixed, rules, hooks, strict=True):
            assert isinstance(rule, GridRule) and not isinstance(m.agent_shape, GridRule)
            m.agent_shape = rule
            hook.remove()


def fix(module: torch.nn.Module, args: tuple[object, tuple[int, int]]) -> None:
    module.agent_shape = module.grid(args[1])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        *(
            (each, "agent_shapes must be 'published', 'rule'")
            for each in ("all", 0, True, ((1, 2),))
        ),
        ({"type": "rule", "side": 3}, "got {'type': 'rule', 'side': 3}"),
        ({"type": "rules"}, "with the type 'rule'"),
        ({"type": "rule", "cap": 0}, "cap of a rule for agent_shapes must be positive, got 0"),
        ({"type": "rule", "budget": "a"}, "budget of a rule for agent_shapes must be positive"),
    ],
)
def test_what_is_no_rule_is_refused(wrong: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AgentPVT(agent_shapes=wrong)
