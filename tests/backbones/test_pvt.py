"""The Agent-PVT backbone: its names, its maps, how it trains and what it refuses."""

import json
from pathlib import Path

import pytest
import torch
from helpers import SMALL, normal, seeded_input, small_pvt
from torch import nn
from torch.nn import functional as F

from agent_attention import AgentAttention, AgentPVT
from agent_attention.layers import DropPath, Mlp
from agent_attention.mixers.reduced import SpatialReductionAttention

KEYS = json.loads((Path(__file__).parents[1] / "golden" / "backbone_keys.json").read_text())
TYPES = ["AAAA", "BBBB", "ABAB"]
STRIDES = (4, 8, 16, 32)
RATES = ["drop_rate", "attn_drop_rate", "drop_path_rate"]
close = torch.testing.assert_close


def blocks(model: nn.Module) -> list[nn.Module]:
    """All blocks of the four stages, in order."""
    return [block for i in range(1, 5) for block in getattr(model, f"block{i}", ())]


def silence_blocks(model: nn.Module) -> None:
    """Make every block an identity, so that only the embeddings are left."""
    for block in blocks(model):
        for layer in (block.attn.proj, block.mlp.fc2):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)


# --- names and initial values


def test_a_larger_pretraining_image_makes_larger_tables() -> None:
    shapes = {
        key: tuple(value.shape) for key, value in AgentPVT(pretrain_img_size=256).named_parameters()
    }
    for stage, (side, dim, heads, agents) in enumerate(
        [(64, 64, 1, 9), (32, 128, 2, 16), (16, 320, 5, 49), (8, 512, 8, 49)], 1
    ):
        attn = f"block{stage}.0.attn"
        assert shapes[f"pos_embed{stage}"] == (1, side * side, dim)
        assert shapes[f"{attn}.ah_bias"] == (1, heads, agents, side, 1)
        assert shapes[f"{attn}.aw_bias"] == (1, heads, agents, 1, side)
        assert shapes[f"{attn}.ha_bias"] == (1, heads, side, 1, agents)
        assert shapes[f"{attn}.wa_bias"] == (1, heads, 1, side, agents)
        assert shapes[f"{attn}.an_bias"] == shapes[f"{attn}.na_bias"] == (heads, agents, 7, 7)


def test_defaults_are_agent_attention_on_the_published_grids() -> None:
    model = AgentPVT()
    attention = [model.get_submodule(f"block{i}.0.attn") for i in range(1, 5)]
    assert all(isinstance(attn, AgentAttention) for attn in attention)
    assert [attn.agent_shape for attn in attention] == [(12, 12), (16, 16), (28, 28), (28, 28)]


def test_letters_choose_the_attention_of_each_stage() -> None:
    model = small_pvt(attn_types="ABBA")
    kinds = [type(getattr(model, f"block{i}")[0].attn) for i in range(1, 5)]
    reduction = SpatialReductionAttention
    assert kinds == [AgentAttention, reduction, reduction, AgentAttention]
    ratios = [block.attn.sr_ratio for block in blocks(small_pvt(attn_types="BBBB"))]
    assert ratios == [8, 4, 4, 2, 1]


def test_initial_values_are_small_and_zero_where_they_should_be() -> None:
    torch.manual_seed(0)
    for name, value in AgentPVT().named_parameters():
        last = name.rpartition(".")[2]
        if last.endswith("_bias") or last.startswith("pos_embed"):
            assert value.std().item() == pytest.approx(0.02, rel=0.15), name
        elif "norm" in name:
            assert torch.all(value == (last == "weight")), name
        elif not name.endswith(("dwc.weight", "dwc.bias")) and "patch_embed" not in name:
            if last == "weight":
                assert value.std().item() == pytest.approx(0.02, rel=0.05), name
            else:
                assert not value.any(), name


def test_the_same_seed_builds_the_same_model() -> None:
    models = []
    for _ in range(2):
        torch.manual_seed(5)
        models.append(AgentPVT(SMALL).state_dict())
    close(models[0], models[1], rtol=0, atol=0)


# --- maps


def test_pixels_that_fill_no_patch_do_not_count() -> None:
    model = small_pvt().eval()
    image = seeded_input(1, 71, 99)
    with torch.no_grad():
        whole, cropped = model(image), model(image[:, :, :68, :96])
        last_row = model(image[:, :, :67, :96])
    close(whole, cropped)
    assert whole[0].shape[2] == last_row[0].shape[2] + 1


@pytest.mark.parametrize("size", [(224, 224), (448, 448), (112, 448), (64, 97), (256, 128)])
def test_position_embeddings_are_resized_to_each_stages_own_map(size: tuple[int, int]) -> None:
    # 448 and 112x448: a later stage has as many tokens as the table of another stage, or as its own
    model = small_pvt().eval()
    silence_blocks(model)
    with torch.no_grad():
        x = seeded_input(1, *size)
        outs = model(x)
        for i, out in enumerate(outs, 1):
            embed = getattr(model, f"patch_embed{i}")
            stride = 4 if i == 1 else 2
            x = F.conv2d(x, embed.proj.weight, embed.proj.bias, stride=stride)
            x = x.permute(0, 2, 3, 1)
            x = F.layer_norm(x, x.shape[-1:], embed.norm.weight, embed.norm.bias, 1e-5)
            side = 224 // STRIDES[i - 1]
            table = getattr(model, f"pos_embed{i}").unflatten(1, (side, side)).permute(0, 3, 1, 2)
            x = x.permute(0, 3, 1, 2) + F.interpolate(table, x.shape[1:3], mode="bilinear")
            close(out, x, rtol=1e-5, atol=1e-5)


# --- training


def test_training_drops_after_the_position_embedding() -> None:
    model = small_pvt(drop_rate=0.5, out_indices=(0,))
    silence_blocks(model)
    image = seeded_input(1, 64, 96)
    torch.manual_seed(0)
    with torch.no_grad():
        (wanted,), (found,) = model.eval()(image), model.train()(image)
    kept = found != 0
    assert 0.4 < kept.float().mean() < 0.6
    close(found[kept], 2 * wanted[kept])


def test_training_drops_twice_in_an_mlp() -> None:
    mlp = Mlp(8, 8, drop=0.5).train()
    for layer in (mlp.fc1, mlp.fc2):
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
    torch.manual_seed(0)
    x = 1 + normal(3, (50, 8)).abs()
    out = mlp(x)
    kept = out != 0
    assert 0.15 < kept.float().mean() < 0.35  # a quarter
    close(out[kept], 4 * F.gelu(x)[kept])


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.ones(4000, 3, 2)
    out = DropPath(0.2).train()(x)
    assert torch.equal(out, out[:, :1, :1].expand_as(out))
    assert out.unique().tolist() == [0.0, 1.25]
    assert out.mean().item() == pytest.approx(1, abs=0.03)
    assert DropPath(0.2).eval()(x) is x
