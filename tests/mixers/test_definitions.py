"""Agent attention, and softmax attention to a reduced map, against tests/definitions.py."""

from typing import Any

import pytest
import torch
from definitions import attend, definition
from helpers import TABLES, Largest, agent_attention, normal, seed_weights, tokens
from torch import nn

from agent_attention import AgentAttention
from agent_attention.compute.guard import using
from agent_attention.mixers.reduced import SpatialReductionAttention

pytestmark = pytest.mark.usefixtures("always_tiles")

Pair = tuple[int, int]
close = torch.testing.assert_close


# --- agent attention


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize(
    ("table", "size", "shape", "p"),
    [
        ((14, 14), (14, 14), (7, 7), 7),
        ((14, 14), (9, 21), (5, 3), 4),
        ((8, 6), (8, 6), (3, 3), 3),
        ((8, 6), (5, 3), (12, 10), 3),
        ((7, 7), (16, 4), (2, 9), 4),
        ((14, 14), (20, 28), (12, 12), 3),
        ((14, 14), (1, 6), (4, 4), 4),
    ],
)
def test_maps_and_gradients_are_those_of_the_definition(
    table: Pair, size: Pair, shape: Pair, p: int, heads: int, joint: bool
) -> None:
    attn = agent_attention(
        table_shape=table, agent_shape=shape, base_grid=p, num_heads=heads, joint_qkv=joint
    ).double()
    x = tokens(size).double().requires_grad_()
    wanted_from = [x, *attn.parameters()]
    weights = normal(9, tuple(x.shape)).double()

    found, wanted = attn(x, size), definition(attn, x, size)
    # the interpolation between agents is made in float32
    close(found, wanted, rtol=1e-6, atol=1e-6)
    close(
        torch.autograd.grad((found * weights).sum(), wanted_from),
        torch.autograd.grad((wanted * weights).sum(), wanted_from),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("joint", [False, True])
def test_projections_may_have_no_bias(joint: bool) -> None:
    attn = agent_attention(qkv_bias=False, joint_qkv=joint)
    names = {name for name, _ in attn.named_parameters() if name.startswith(("q", "k"))}
    assert names == ({"qkv.weight"} if joint else {"q.weight", "kv.weight"})
    x = tokens((5, 6))
    close(attn(x, (5, 6)), definition(attn, x, (5, 6)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("p", [3, 4, 7])
def test_tables_are_used_as_they_are_at_pretraining_size(p: int) -> None:
    attn = agent_attention(base_grid=p, agent_shape=(p, p))
    b1 = (attn.an_bias + attn.ah_bias[0] + attn.aw_bias[0]).flatten(2)
    cross = (attn.ha_bias + attn.wa_bias)[0].permute(0, 3, 1, 2)
    b2 = (attn.na_bias + cross).flatten(2).transpose(1, 2)
    x = tokens((7, 7))
    wanted = definition(attn, x, (7, 7), (b1, b2))
    close(attn(x, (7, 7)), wanted, rtol=1e-5, atol=1e-5)


def test_each_table_changes_the_outcome() -> None:
    attn, x = agent_attention(agent_shape=(4, 5)), tokens((6, 9))
    attn(x, (6, 9)).square().sum().backward()
    for name in TABLES:
        gradient = attn.get_parameter(name).grad
        assert gradient is not None and gradient.isfinite().all() and gradient.any(), name


def test_tables_have_the_published_shapes() -> None:
    attn = AgentAttention(8, 2, base_grid=4, agent_shape=(5, 6), table_shape=(9, 11))
    shapes = {name: tuple(attn.get_parameter(name).shape) for name in TABLES}
    assert shapes == {
        "an_bias": (2, 16, 7, 7),
        "na_bias": (2, 16, 7, 7),
        "ah_bias": (1, 2, 16, 9, 1),
        "aw_bias": (1, 2, 16, 1, 11),
        "ha_bias": (1, 2, 9, 1, 16),
        "wa_bias": (1, 2, 1, 11, 16),
    }


def constant_values(attn: AgentAttention) -> AgentAttention:
    """Make v the same at each token and let it reach the output through the attention alone."""
    with torch.no_grad():
        attn.kv.weight[attn.proj.in_features :] = 0
        attn.dwc.weight.zero_()
        attn.dwc.bias.zero_()
        nn.init.eye_(attn.proj.weight)
        attn.proj.bias.zero_()
    return attn


def test_equal_values_come_back() -> None:
    attn = constant_values(agent_attention(agent_shape=(4, 2)))
    out = attn(tokens((5, 8)), (5, 8))
    close(out, attn.kv.bias[8:].expand_as(out), rtol=1e-5, atol=1e-5)


def test_training_drops_from_both_attention_maps() -> None:
    attn = constant_values(agent_attention(num_heads=1, agent_shape=(1, 1), attn_drop=0.5)).train()
    torch.manual_seed(0)
    out, value = attn(tokens((9, 9), batch=1), (9, 9))[0], attn.kv.bias[8:]
    # one agent: broadcast gives a token either nothing or twice what the agent has gathered
    dropped = (out == 0).all(-1)
    assert 0.2 < dropped.float().mean() < 0.8
    gathered = out[~dropped] / 2
    close(gathered, gathered[:1].expand_as(gathered))
    assert not torch.allclose(gathered[0], value, rtol=0.01)


def test_training_drops_after_the_projection() -> None:
    torch.manual_seed(0)
    size = (9, 9)
    out = agent_attention(proj_drop=0.5).train()(tokens(size), size)
    kept = out != 0
    assert 0.4 < kept.float().mean() < 0.6
    close(out[kept], 2 * agent_attention()(tokens(size), size)[kept])


def test_evaluation_drops_nothing() -> None:
    x = tokens((6, 5))
    found = agent_attention(attn_drop=0.5, proj_drop=0.5)(x, (6, 5))
    close(found, agent_attention()(x, (6, 5)), rtol=0, atol=0)


@pytest.mark.parametrize("training", [False, True])
def test_bfloat16_autocast_is_finite_and_close(training: bool) -> None:
    attn = agent_attention(dim=32, agent_shape=(4, 5)).train(training)
    x = tokens((10, 12), dim=32)
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        out = attn(x, (10, 12))
    assert out.dtype is torch.bfloat16 and out.isfinite().all()
    wanted = attn(x, (10, 12))
    assert (out - wanted).abs().max() < 0.03 * wanted.abs().max()
    out.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in attn.parameters())


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (13, 2)])
@pytest.mark.parametrize("batch", [1, 3])
def test_tokens_keep_their_shape_and_the_input_its_values(size: Pair, batch: int) -> None:
    x = tokens(size, batch=batch)
    before = x.clone()
    out = agent_attention(agent_shape=(3, 5))(x, size)
    assert out.shape == x.shape and out.isfinite().all()
    assert torch.equal(x, before)


def test_memory_grows_linearly_with_the_tokens() -> None:
    attn = agent_attention(agent_shape=(4, 4))
    numels = []
    for size in [(32, 32), (32, 64), (64, 64)]:
        with using(way="tiled"), Largest() as largest:
            attn(tokens(size), size).sum().backward()
        numels.append(largest.numel)
    assert numels[0] >= 1024 * 8
    assert numels[1] <= 2 * numels[0] and numels[2] <= 4 * numels[0]


@pytest.mark.parametrize("joint", [False, True])
def test_channels_that_heads_cannot_share_are_refused(joint: bool) -> None:
    with pytest.raises(ValueError, match="dim=8 is not a multiple of num_heads=3"):
        agent_attention(num_heads=3, joint_qkv=joint)


# --- attention with spatial reduction


def spatial_reduction(ratio: int, **changes: Any) -> SpatialReductionAttention:
    """A seeded module in evaluation mode: 8 channels, 2 heads."""
    options = {"dim": 8, "num_heads": 2, "sr_ratio": ratio}
    return seed_weights(SpatialReductionAttention(**{**options, **changes})).eval()


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("ratio", [1, 2, 4])
@pytest.mark.parametrize("size", [(8, 8), (5, 11)])
def test_spatial_reduction_is_softmax_attention_to_a_reduced_map(
    size: Pair, ratio: int, heads: int
) -> None:
    attn = spatial_reduction(ratio, num_heads=heads).double()
    w = dict(attn.named_parameters())
    x = tokens(size).double()
    reduced = x
    if ratio > 1:
        (height, width), r = size, ratio
        cells = x.unflatten(1, size)[:, : height // r * r, : width // r * r]
        cells = cells.unflatten(2, (-1, r)).unflatten(1, (-1, r)).permute(0, 1, 3, 5, 2, 4)
        reduced = cells.flatten(3).flatten(1, 2) @ w["sr.weight"].flatten(1).T + w["sr.bias"]
        spread = reduced - reduced.mean(-1, keepdim=True)
        reduced = spread / (spread.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        reduced = reduced * w["norm.weight"] + w["norm.bias"]
    q = x @ w["q.weight"].T + w["q.bias"]
    k, v = (reduced @ w["kv.weight"].T + w["kv.bias"]).split(8, -1)
    wanted = attend(q, k, v, heads) @ w["proj.weight"].T + w["proj.bias"]
    close(attn(x, size), wanted, rtol=1e-9, atol=1e-9)


def test_spatial_reduction_drops_in_training_only() -> None:
    x = tokens((8, 8))
    wanted = spatial_reduction(2)(x, (8, 8))
    for name in ("attn_drop", "proj_drop"):
        attn = spatial_reduction(2, **{name: 0.5})
        close(attn(x, (8, 8)), wanted, rtol=0, atol=0)
        torch.manual_seed(0)
        assert not torch.allclose(attn.train()(x, (8, 8)), wanted)


def test_spatial_reduction_refuses_channels_that_heads_cannot_share() -> None:
    with pytest.raises(ValueError, match="dim=8 is not a multiple of num_heads=3"):
        spatial_reduction(2, num_heads=3)
