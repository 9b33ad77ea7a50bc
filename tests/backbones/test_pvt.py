"""The Agent-PVT backbone: its names, its maps, how it trains and what it refuses."""

import json
import re
from pathlib import Path

import pytest
import torch
from helpers import SMALL, SMALL_GRIDS, normal, seeded_input, small_pvt
from torch import Tensor, nn
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


def loss_of(outs: tuple[Tensor, ...]) -> Tensor:
    """A loss that depends on each value of each map, with a weight of its own."""
    losses = [(out * normal(13 + i, tuple(out.shape))).mean() for i, out in enumerate(outs)]
    return torch.stack(losses).sum()


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def train_once(model: nn.Module, seed: int = 3) -> tuple[Tensor, ...]:
    """Maps of two images in training mode, and gradients left in the parameters."""
    torch.manual_seed(seed)
    outs = model.train()(seeded_input(2, 64, 96))
    loss_of(outs).backward()
    return outs


# --- names and initial values


@pytest.mark.parametrize(
    ("arch", "variant"),
    [("tiny", "pvt_t"), ("small", "pvt_s"), ("medium", "pvt_m"), ("large", "pvt_l")],
)
def test_names_and_shapes_are_those_of_published_checkpoints(arch: str, variant: str) -> None:
    state = AgentPVT(arch).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == KEYS[variant]


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


@pytest.mark.parametrize(
    "size",
    [(32, 32), (63, 97), (112, 137), (33, 47), (896, 64), (64, 896), (224, 224), (448, 448)],
    ids=lambda size: "x".join(map(str, size)),
)
@pytest.mark.parametrize("types", ["AAAA", "BBBB"])
def test_every_size_gives_finite_maps_of_floored_shapes(types: str, size: tuple[int, int]) -> None:
    with torch.no_grad():
        outs = small_pvt(attn_types=types).eval()(seeded_input(1, *size))
    height, width = size
    wanted = [
        (1, dim, height // stride, width // stride)
        for dim, stride in zip(SMALL["embed_dims"], STRIDES, strict=True)
    ]
    assert [tuple(out.shape) for out in outs] == wanted
    assert all(out.isfinite().all() and out.is_contiguous() for out in outs)


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


@pytest.mark.parametrize("types", TYPES)
def test_a_batch_gives_what_its_images_give_alone(types: str) -> None:
    model = small_pvt(attn_types=types).eval()
    images = seeded_input(3, 64, 97)
    with torch.no_grad():
        together, alone = model(images), [model(image[None]) for image in images]
    for i, out in enumerate(together):
        close(out, torch.cat([maps[i] for maps in alone]), rtol=1e-5, atol=2e-5)


def test_maps_do_not_depend_on_the_memory_format() -> None:
    model = small_pvt().eval()
    image = seeded_input(2, 64, 96)
    with torch.no_grad():
        close(
            model(image.to(memory_format=torch.channels_last)), model(image), rtol=1e-5, atol=2e-5
        )


def test_evaluation_is_deterministic_and_free_of_dropout() -> None:
    image = seeded_input(2, 64, 96)
    model = small_pvt(**dict.fromkeys(RATES, 0.5)).eval()
    with torch.no_grad():
        first = model(image)
        close(model(image), first, rtol=0, atol=0)
        close(small_pvt().eval()(image), first)


@pytest.mark.parametrize("indices", [(0,), (1,), (0, 2), (1, 3), (3,)])
def test_out_indices_choose_maps_and_later_stages_are_not_built(indices: tuple[int, ...]) -> None:
    full, part = small_pvt().eval(), AgentPVT(SMALL, [*map(list, SMALL_GRIDS)], out_indices=indices)
    last = indices[-1] + 1
    wanted = {
        key: value
        for key, value in full.state_dict().items()
        if int(re.match(r"[a-z_]+(\d)", key)[1]) <= last  # type: ignore[index]
    }
    part.load_state_dict(wanted)  # strict: the part has just these keys
    image = seeded_input(1, 64, 96)
    with torch.no_grad():
        maps = full(image)
        close(part.eval()(image), tuple(maps[i] for i in indices))


# --- training


@pytest.mark.parametrize("types", TYPES)
def test_every_parameter_gets_a_gradient(types: str) -> None:
    model = small_pvt(attn_types=types)
    train_once(model)
    for name, gradient in gradients(model).items():
        assert gradient is not None and gradient.isfinite().all() and gradient.any(), name


@pytest.mark.parametrize("frozen", [-1, 2])
def test_train_and_eval_return_the_model(frozen: int) -> None:
    model = small_pvt(frozen_stages=frozen)
    assert model.eval() is model
    assert not any(module.training for module in model.modules())
    assert model.train() is model and model.training
    assert model.train(False) is model and not model.training


@pytest.mark.parametrize("name", RATES)
def test_each_rate_drops_in_training_only(name: str) -> None:
    model = small_pvt(**{name: 0.5})
    with torch.no_grad():
        torch.manual_seed(1)
        image = seeded_input(2, 64, 96)
        first, second = model.train()(image), model(image)
        assert not torch.equal(first[-1], second[-1])
        close(model.eval()(image), small_pvt().eval()(image))


@pytest.mark.parametrize("types", ["AAAA", "BBBB"])
def test_dropout_rates_reach_their_layers(types: str) -> None:
    for block in blocks(small_pvt(attn_types=types, attn_drop_rate=0.2, drop_rate=0.3)):
        rates = (block.attn.attn_drop, block.attn.proj_drop.p, block.mlp.drop.p)
        assert rates == (0.2, 0.3, 0.3)


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


@pytest.mark.parametrize("indices", [(0, 1, 2, 3), (0, 1)])
def test_stochastic_depth_grows_linearly_over_all_blocks(indices: tuple[int, ...]) -> None:
    model = small_pvt(drop_path_rate=0.4, out_indices=indices)
    rates = [block.drop_path.rate for block in blocks(model)]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4][: len(rates)])
    assert len(rates) == sum(SMALL["depths"][: len(indices)])


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.ones(4000, 3, 2)
    out = DropPath(0.2).train()(x)
    assert torch.equal(out, out[:, :1, :1].expand_as(out))
    assert out.unique().tolist() == [0.0, 1.25]
    assert out.mean().item() == pytest.approx(1, abs=0.03)
    assert DropPath(0.2).eval()(x) is x


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("types", TYPES)
def test_checkpointing_changes_neither_maps_nor_gradients(types: str, rate: float) -> None:
    options = {"attn_types": types, **dict.fromkeys(RATES, rate)}
    plain, saving = small_pvt(**options), small_pvt(**options, with_cp=True)
    close(train_once(saving), train_once(plain))
    close(gradients(saving), gradients(plain))


@pytest.mark.parametrize(
    ("with_cp", "training", "runs"), [(True, True, 2), (True, False, 1), (False, True, 1)]
)
def test_checkpointing_runs_blocks_again_in_training(
    with_cp: bool, training: bool, runs: int
) -> None:
    model = small_pvt(with_cp=with_cp).train(training)
    started: list[nn.Module] = []
    for block in blocks(model):
        block.register_forward_pre_hook(lambda module, _: started.append(module))
    loss_of(model(seeded_input(1, 64, 64))).backward()
    assert [started.count(block) for block in blocks(model)] == [runs] * 5


def frozen_parts(stages: int) -> tuple[str, ...]:
    """Beginnings of the names of what ``frozen_stages`` freezes."""
    if stages == 0:
        return ("patch_embed1", "pos_embed1")
    parts = ("patch_embed", "pos_embed", "block")
    return tuple(f"{part}{i}" for part in parts for i in range(1, stages + 1))


@pytest.mark.parametrize("stages", range(-1, 5))
def test_frozen_stages_do_not_train(stages: int) -> None:
    model = small_pvt(frozen_stages=stages)
    parts = frozen_parts(stages)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith(parts)}
    if stages < 4:
        train_once(model)
        assert {name for name, gradient in gradients(model).items() if gradient is None} == frozen


@pytest.mark.parametrize("stages", range(-1, 5))
def test_frozen_modules_stay_in_evaluation_mode(stages: int) -> None:
    model = small_pvt(frozen_stages=stages)
    for _ in range(2):
        model.eval()
        model.train()
        owned = [(name, m) for name, m in model.named_modules() if re.match(r"(patch|block)", name)]
        for name, module in owned:
            assert module.training is not name.startswith(frozen_parts(stages)), name


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("stages", [1, 2, 4])
def test_frozen_stages_drop_nothing_in_training(stages: int, rate: str) -> None:
    model = small_pvt(frozen_stages=stages, **{rate: 0.5})
    image = seeded_input(2, 64, 96)
    with torch.no_grad():
        wanted = model.eval()(image)
        torch.manual_seed(0)
        found = model.train()(image)
    close(found[:stages], wanted[:stages])
    assert not any(map(torch.equal, found[stages:], wanted[stages:]))
