"""Maps, gradients and names of the further backbones are those of their authors' code.

Where the authors' code takes no such map (golden/README.md), those of an independent
implementation.
"""

from typing import Any

import pytest
import torch
from golden_cases import (
    FAMILIES,
    Case,
    architecture,
    build,
    check_gradients,
    check_summary,
    published_keys,
    read,
    spread_norms,
)
from helpers import normal, seed_weights, seeded_input

from agent_attention.backbones import BACKBONES

CASES: list[Case] = read("families")
KEYS = published_keys()


def title(case: Case) -> str:
    return f"{case['variant']}-{case['height']}x{case['width']}"


def model_of(case: Case, **options: Any) -> Any:
    """The backbone of a case, with seeded weights."""
    if case["agent_shapes"] is not None:
        one = case["variant"].startswith("agent_deit")
        shapes = case["agent_shapes"]
        options |= {"agent_shape": shapes[0]} if one else {"agent_shapes": shapes}
    model = build(case["variant"], pretrain_img_size=case["weights_size"], **options)
    return seed_weights(model).eval()


def image_of(case: Case) -> torch.Tensor:
    return seeded_input(case["batch"], case["height"], case["width"])


@pytest.mark.parametrize("case", CASES, ids=title)
def test_maps_are_those_of_the_reference(case: Case) -> None:
    with torch.no_grad():
        outs = model_of(case)(image_of(case))
    for out, want in zip(outs, case["outs"], strict=True):
        check_summary(out, want, 2e-4)


@pytest.mark.parametrize("case", [c for c in CASES if "grad_norms" in c], ids=title)
def test_gradients_are_those_of_the_reference(case: Case) -> None:
    model = model_of(case)
    outs = model(image_of(case))
    losses = [(out * normal(13 + i, tuple(out.shape))).mean() for i, out in enumerate(outs)]
    torch.stack(losses).sum().backward()
    for out, want in zip(outs, case["outs"], strict=True):  # with gradients other code runs
        check_summary(out, want, 2e-4)
    check_gradients(model.named_parameters(), spread_norms(case["grad_norms"]))


@pytest.mark.parametrize("case", [c for c in CASES if "normed" in c], ids=title)
@torch.no_grad()
def test_the_last_map_may_be_normed_as_the_classifier_does(case: Case) -> None:
    model = model_of(case, final_norm=True, out_indices=(11,))
    check_summary(model(image_of(case))[0], case["normed"], 2e-4)


@pytest.mark.parametrize("case", [c for c in CASES if "raw_outs" in c], ids=title)
@torch.no_grad()
def test_maps_before_the_output_norms_are_those_of_the_reference(case: Case) -> None:
    model, raw = model_of(case), []
    first = 0 if "swin_" in case["variant"] and "cswin" not in case["variant"] else 1
    for i in range(4):
        norm = getattr(model, f"norm{first + i}")
        norm.register_forward_pre_hook(lambda _, args: raw.append(args[0]))
    outs = model(image_of(case))
    for x, out, want in zip(raw, outs, case["raw_outs"], strict=True):
        check_summary(x.mT.unflatten(2, out.shape[2:]), want, 2e-4)


def test_every_family_has_its_cases() -> None:
    assert {case["variant"].rpartition("_")[0] for case in CASES} == {*FAMILIES}


# --- names


def variant_and_size(name: str) -> tuple[str, int]:
    """'agent_deit_s_448' -> ('agent_deit_s', 448)."""
    start, _, last = name.rpartition("_")
    return (start, int(last)) if last in ("384", "448") else (name, 224)


def is_beside_the_backbone(key: str) -> bool:
    """The classifier's head, and masks that are made here when they are needed."""
    return key.startswith("head.") or key.endswith(".attn_mask")


@pytest.mark.parametrize("name", KEYS)
def test_names_and_shapes_are_those_of_published_checkpoints(name: str) -> None:
    variant, img_size = variant_and_size(name)
    with torch.device("meta"):
        model = build(variant, pretrain_img_size=img_size)
    state = {key: list(value.shape) for key, value in model.state_dict().items()}
    file = KEYS[name]
    assert {key: file[key] for key in state.keys() & file} == {
        key: state[key] for key in state.keys() & file
    }
    assert all(model.is_optional_key(key) for key in state.keys() - file)
    assert all(
        model.is_unused_key(key) or is_beside_the_backbone(key) for key in file.keys() - state
    )


def test_all_variants_have_their_names() -> None:
    named = {variant_and_size(name)[0] for name in KEYS}
    assert {architecture(variant) for variant in named} == {
        (BACKBONES[family], arch)
        for family in FAMILIES.values()
        for arch in BACKBONES[family].ARCHS
    }
    assert len(KEYS) == 25
