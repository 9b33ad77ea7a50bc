"""Agent grids by a rule: those published at the published settings, bounded ones everywhere."""

import random
from typing import Any

import pytest
import torch
from helpers import small_backbone

from agent_attention import AgentPVT, AgentSwinTransformer
from agent_attention.backbones import pvt, pyramid, swin
from agent_attention.mixers import AgentAttention
from agent_attention.mixers.grids import GridRule, agent_grids

DENSE = [(800, 1333), (800, 1344), (512, 512), (512, 683), (512, 2048)]
STRIDES, DIMS, RATIOS = (4, 8, 16, 32), (64, 128, 320, 512), (8, 8, 4, 4)
LINEAR = [(1 + ratio / 2) * dim for ratio, dim in zip(RATIOS, DIMS, strict=True)]


def grids(shapes: Any, height: int, width: int, family: Any = pvt, pretrained: int = 224) -> Any:
    """Of each stage, for an image of these sides."""
    rules = agent_grids(shapes, family.AGENT_SHAPES, family.CAPS, LINEAR)
    bases = [stage.base_grid for stage in pyramid.STAGES]
    return tuple(
        rule.grid((height // stride, width // stride), base, pretrained // stride)
        for rule, base, stride in zip(rules, bases, STRIDES, strict=True)
    )


@pytest.mark.parametrize("size", DENSE)
def test_the_rule_gives_the_published_grids(size: tuple[int, int]) -> None:
    assert grids("rule", *size) == ((12, 12), (16, 16), (28, 28), (28, 28))
    assert grids("rule", *size, swin) == ((9, 9), (12, 12), (14, 14), (7, 7))


@pytest.mark.parametrize("side", [224, 256, 384])
def test_the_rule_gives_the_grids_of_classification(side: int) -> None:
    for pretrained in (224, side):
        rule = {"type": "rule", "cap": 1}
        assert grids(rule, side, side, pretrained=pretrained) == pyramid.BASE_GRIDS
    assert grids("rule", 224, 224) == pyramid.BASE_GRIDS


def test_aspect_makes_cells_square() -> None:
    wanted = ((9, 16), (12, 21), (22, 36), (22, 36))
    assert grids({"type": "rule", "aspect": True}, 800, 1344) == wanted


@pytest.mark.parametrize("family", [AgentPVT, AgentSwinTransformer])
def test_bounded_grids_keep_to_tokens_aspect_and_cost(family: type[torch.nn.Module]) -> None:
    with torch.device("meta"):
        model = family(agent_shapes="bounded")
    blocks = [m for m in model.modules() if isinstance(getattr(m, "attn", None), AgentAttention)]
    draw = random.Random(0)
    sizes = [(draw.randint(1, 300), draw.randint(1, 300)) for _ in range(1000)]
    sizes += [(7, 50), (50, 7), (6, 171), (1, 240)]  # where rounding goes furthest
    for block in {block.attn.table_shape: block for block in blocks}.values():
        dim, hidden = block.attn.proj.in_features, block.mlp.fc1.out_features
        most = (4 * dim**2 + 2 * dim * hidden) / (2 * 4 * dim)  # half of the linear layers' cost
        for height, width in sizes:
            rows, columns = block.attn.grid((height, width))
            assert 1 <= rows <= height and 1 <= columns <= width
            assert rows * columns <= most
            if max(height, width) / min(height, width) <= 1.5 * int(most):  # one row has as many
                assert 1 / 1.5 <= (rows / columns) / (height / width) <= 1.5


def test_a_map_longer_than_agents_are_many_keeps_the_bound() -> None:
    assert GridRule(aspect=True, within=True, most=160).grid((1, 900), 3, 56) == (1, 160)


def test_a_number_of_agents_has_the_shape_of_the_map() -> None:
    assert grids(49, 320, 320) == ((7, 7),) * 4
    assert grids(48, 256, 768) == ((4, 12),) * 4
    assert grids(400, 96, 96)[-1] == (3, 3)


def test_backbones_hand_their_caps_and_costs_on() -> None:
    stages = [small_backbone(family, agent_shapes="rule") for family in ("pvt", "swin")]
    caps = [[m.agent_shape.cap for m in agents_of(model)] for model in stages]
    assert caps == [[4] * 5, [3, 3]]  # blocks of the small ones with agents
    bounded = small_backbone("pvt", agent_shapes="bounded")
    assert [m.agent_shape.most for m in agents_of(bounded)] == [8, 16, 16, 24, 32]


def agents_of(model: torch.nn.Module) -> list[Any]:
    return [m for m in model.modules() if isinstance(m, AgentAttention)]


@pytest.mark.parametrize("family", ["pvt", "swin", "vit", "cswin"])
@torch.no_grad()
def test_a_rule_is_the_fixed_grid_of_each_size(family: str) -> None:
    key = "agent_shape" if family == "vit" else "agent_shapes"
    model = small_backbone(family, **{key: "bounded"}).eval()
    mixers = agents_of(model)
    rules = [m.agent_shape for m in mixers]
    assert all(isinstance(rule, GridRule) for rule in rules)
    for size in ((96, 160), (128, 64), (96, 160)):
        x = torch.randn(1, 3, *size)
        found = model(x)
        hooks = [m.register_forward_pre_hook(fix) for m in mixers]
        for one, other in zip(found, model(x), strict=True):
            assert torch.allclose(one, other, atol=1e-5)
        for m, rule, hook in zip(mixers, rules, hooks, strict=True):
            assert not isinstance(m.agent_shape, GridRule)
            m.agent_shape = rule
            hook.remove()


def fix(module: Any, args: tuple[object, tuple[int, int]]) -> None:
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
        agent_grids(wrong, pvt.AGENT_SHAPES, pvt.CAPS, LINEAR)
