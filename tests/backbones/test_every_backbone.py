"""What every backbone of ``BACKBONES`` does: its names, its maps, and how it trains."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import (
    RATES,
    SMALL_ARCHS,
    blocks_of,
    gradients,
    in_all_stages,
    mixers_of,
    seeded_input,
    train_once,
)
from helpers import small_backbone as small
from torch import nn

from agent_attention.backbones import BACKBONES

KEYS = json.loads((Path(__file__).parents[1] / "golden" / "backbone_keys.json").read_text())
# of each family: options that choose its mixers, how sides are rounded, and what
# ``frozen_stages`` freezes
OTHERS: dict[str, list[Any]] = {
    "pvt": [{"attn_types": "AAAA"}, {"attn_types": "BBBB"}, {"attn_types": "ABAB"}],
    "swin": [{"attn_types": ("A", "1A1B", "B", "B")}, {"attn_types": "AAAA"},
             {"attn_types": "BBBB"}],
    "vit": [{}, {"mixers": "1 agent, 3 softmax"}, {"mixers": "2 diag, 1 norm, 1 aft_simple"}],
    "cswin": [{}, in_all_stages("cswin", "aft_full", "norm", "focused", "stripes")],
    "flatten_pvt": [{}, in_all_stages("flatten_pvt", "aft_conv", "aft_local", "norm", "diag")],
    "flatten_pvt_v2": [{}, in_all_stages("flatten_pvt_v2", "reduced", "windows")],
    "flatten_swin": [{}, in_all_stages("flatten_swin", "aft_simple", "stripes")],
    "flatten_cswin": [{}],
}  # fmt: skip


def round_down(side: int, stride: int) -> int:
    return side // stride


def round_up(side: int, stride: int) -> int:
    return -(-side // stride)


def round_first_to_nearest(side: int, stride: int) -> int:
    """Then up, as convolutions with padding do."""
    return round_up((side + 1) // 4, stride // 4)


ROUND: dict[str, Callable[[int, int], int]] = {
    "pvt": round_down,
    "flatten_pvt": round_down,
    "cswin": round_first_to_nearest,
    "flatten_cswin": round_first_to_nearest,
}  # and the others up
PVT = (["patch_embed1", "pos_embed1", "pos_drop1"],
       ["patch_embed{}", "pos_embed{}", "pos_drop{}", "block{}"])  # fmt: skip
SWIN = (["patch_embed", "pos_drop"], ["layers.{prev}.", "norm{prev}."])
CSWIN = (["stage1_conv_embed"], ["merge{prev}.", "stage{}.", "norm{}."])
FROZEN: dict[str, tuple[list[str], list[str]]] = {  # of the stem, of stage {} from 1, {prev} from 0
    "pvt": PVT,
    "swin": SWIN,
    "vit": (["patch_embed", "pos_embed", "cls_token", "pos_drop"], ["blocks.{prev}."]),
    "cswin": CSWIN,
    "flatten_pvt": PVT,
    "flatten_pvt_v2": (["patch_embed1"], ["patch_embed{}", "block{}", "norm{}"]),
    "flatten_swin": SWIN,
    "flatten_cswin": CSWIN,
}
# what the last block's class token has of its own changes no map
WITHOUT_EFFECT = {"vit": "blocks.3.attn.ca_bias"}
families = pytest.mark.parametrize("family", BACKBONES)
# each with code of its own; the others are made of the same stages
skeletons = pytest.mark.parametrize("family", ["pvt", "swin", "vit", "cswin", "flatten_pvt_v2"])
kinds = pytest.mark.parametrize(
    ("family", "options"), [(f, options) for f in BACKBONES for options in OTHERS[f]], ids=str
)
close = torch.testing.assert_close


# --- names


@pytest.mark.parametrize("variant", KEYS)
def test_names_and_shapes_are_those_of_published_checkpoints(variant: str) -> None:
    family, letter = variant.split("_")  # the others' are in test_golden_families.py
    cls = BACKBONES[family]
    (arch,) = (arch for arch in cls.ARCHS if arch[0] == letter)
    with torch.device("meta"):
        state = cls(arch).state_dict()  # type: ignore[arg-type, call-arg]
    assert {key: list(value.shape) for key, value in state.items()} == KEYS[variant]


def test_all_published_variants_are_tested() -> None:
    wanted = {f"{f}_{arch[0]}" for f in ("pvt", "swin") for arch in BACKBONES[f].ARCHS}
    assert {*KEYS} == wanted


@families
def test_sizes_of_an_architecture_may_come_in_any_order(family: str) -> None:
    arch = SMALL_ARCHS[family]  # configs that a training writes have them sorted
    models = [small(family, arch={key: arch[key] for key in keys}) for keys in (arch, sorted(arch))]
    one, other = ({k: v.shape for k, v in model.state_dict().items()} for model in models)
    assert one == other


# --- maps


@kinds
def test_every_size_gives_finite_maps(family: str, options: Any) -> None:
    model = small(family, **options).eval()
    for size in [(32, 32), (33, 47), (63, 97), (64, 448), (224, 224)]:
        with torch.no_grad():
            outs = model(seeded_input(1, *size))
        assert [tuple(out.shape) for out in outs] == [
            (1, channels, *(ROUND.get(family, round_up)(side, stride) for side in size))
            for channels, stride, _ in model.feature_info
        ]
        assert all(out.isfinite().all() and out.is_contiguous() for out in outs), size


@kinds
def test_a_batch_gives_what_its_images_give_alone(family: str, options: Any) -> None:
    model = small(family, **options).eval()
    images = seeded_input(3, 70, 99)
    with torch.no_grad():
        together, alone = model(images), [model(image[None]) for image in images]
    for i, out in enumerate(together):
        close(out, torch.cat([maps[i] for maps in alone]), rtol=1e-5, atol=1e-4)


@families
def test_maps_do_not_depend_on_the_memory_format(family: str) -> None:
    model, image = small(family).eval(), seeded_input(2, 64, 96)
    with torch.no_grad():
        found = model(image.to(memory_format=torch.channels_last))
        close(found, model(image), rtol=1e-5, atol=2e-5)


@families
def test_evaluation_is_deterministic_and_free_of_dropout(family: str) -> None:
    image = seeded_input(2, 64, 96)
    model = small(family, **dict.fromkeys(RATES, 0.5)).eval()
    with torch.no_grad():
        first = model(image)
        close(model(image), first, rtol=0, atol=0)
        close(small(family).eval()(image), first)


@skeletons
@pytest.mark.parametrize("indices", [(0,), (1,), (0, 2), (1, 3), (3,)])
def test_out_indices_choose_maps_and_later_stages_are_not_built(
    family: str, indices: tuple[int, ...]
) -> None:
    full, part = small(family).eval(), small(family, out_indices=list(indices))
    state = full.state_dict()
    wanted = {key: value for key, value in state.items() if not part.is_unused_key(key)}
    wanted |= {key: state[key] for key in part.state_dict() if part.is_optional_key(key)}
    part.load_state_dict(wanted)  # strict: the part has just these keys
    last = indices[-1]
    later = [part.format(i, prev=i - 1) for i in range(last + 2, 5) for part in FROZEN[family][1]]
    assert not [key for key in wanted if key.startswith((*later, f"layers.{last}.downsample"))]
    image = seeded_input(1, 64, 97)
    with torch.no_grad():
        maps = full(image)
        close(part.eval()(image), tuple(maps[i] for i in indices))


# --- training


@kinds
def test_every_parameter_gets_a_gradient(family: str, options: Any) -> None:
    model = small(family, **options)
    train_once(model)
    for name, gradient in gradients(model).items():
        assert gradient is not None and gradient.isfinite().all(), name
        assert gradient.any() != (name == WITHOUT_EFFECT.get(family)), name


@kinds
def test_rates_reach_their_layers(family: str, options: Any) -> None:
    model = small(family, **options, attn_drop_rate=0.2, drop_rate=0.3, drop_path_rate=0.6)
    blocks = blocks_of(model)
    for block in blocks:
        assert {mixer.attn_drop for mixer in mixers_of(block)} == {0.2}
        assert ((block.attn or block).proj_drop.p, block.mlp.drop.p) == (0.3, 0.3)
    paths = [block.drop_path.rate for block in blocks]
    assert paths == pytest.approx([0.6 * i / (len(blocks) - 1) for i in range(len(blocks))])
    drops = [m.p for name, m in model.named_modules() if re.fullmatch(r"pos_drop\d?", name)]
    assert set(drops) == ({0.3} if "pos_drop" in str(FROZEN[family]) else set())
    first = blocks_of(small(family, **options, drop_path_rate=0.6, out_indices=(0, 1)))
    assert [block.drop_path.rate for block in first] == pytest.approx(paths[: len(first)])


@kinds
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_checkpointing_changes_neither_maps_nor_gradients(
    family: str, options: Any, rate: float
) -> None:
    options = {**options, **dict.fromkeys(RATES, rate)}
    plain, saving = small(family, **options), small(family, **options, with_cp=True)
    close(train_once(saving), train_once(plain))
    close(gradients(saving), gradients(plain))


@skeletons
@pytest.mark.parametrize(
    ("with_cp", "training", "runs"), [(True, True, 2), (True, False, 1), (False, True, 1)]
)
def test_checkpointing_runs_blocks_again_in_training(
    family: str, with_cp: bool, training: bool, runs: int
) -> None:
    model = small(family, with_cp=with_cp).train(training)
    started: list[nn.Module] = []
    blocks = blocks_of(model)
    for block in blocks:
        block.register_forward_pre_hook(lambda module, _: started.append(module))
    sum(out.sum() for out in model(seeded_input(1, 64, 64))).backward()
    assert [started.count(block) for block in blocks] == [runs] * len(blocks)


def frozen_parts(family: str, stages: int) -> tuple[str, ...]:
    """Beginnings of the names of what ``frozen_stages`` freezes."""
    stem, stage = FROZEN[family]
    if stages < 0:
        return ("nothing",)
    counted = [each.format(i, prev=i - 1) for i in range(1, stages + 1) for each in stage]
    return (*stem, *counted)


@skeletons
@pytest.mark.parametrize("stages", range(-1, 5))
def test_frozen_stages_do_not_train_and_stay_in_evaluation_mode(family: str, stages: int) -> None:
    model = small(family, frozen_stages=stages)
    parts = frozen_parts(family, stages)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith(parts)}
    for _ in range(2):
        assert model.eval() is model and not any(module.training for module in model.modules())
        assert model.train() is model and model.training
        for name, module in model.named_modules():
            if name not in ("", "layers", "blocks"):
                assert module.training is not f"{name}.".startswith(parts), name
        assert model.train(False) is model and not model.training
    if stages < 4:
        train_once(model)
        assert {name for name, gradient in gradients(model).items() if gradient is None} == frozen


@skeletons
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("stages", [-1, 2, 4])
def test_each_rate_drops_in_training_and_behind_frozen_stages_only(
    family: str, stages: int, rate: str
) -> None:
    softmax = in_all_stages(family, "softmax")
    model = small(family, **softmax, frozen_stages=stages, **{rate: 0.5})
    image = seeded_input(2, 64, 96)
    with torch.no_grad():
        wanted = model.eval()(image)
        torch.manual_seed(0)
        found, again = model.train()(image), model(image)
    kept = max(stages, 0)
    close(found[:kept], wanted[:kept])
    first = max(kept, rate == "drop_path_rate")  # the first block drops no path
    assert not any(map(torch.equal, found[first:], wanted[first:]))
    assert stages == 4 or not torch.equal(found[-1], again[-1])
