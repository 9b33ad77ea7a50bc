"""Weights of softmax models start every mixer that their backbone takes, in full."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from helpers import SMALL_ARCHS, in_all_stages, small_backbone
from torch import Tensor

from agent_attention.mixers import MIXERS
from agent_attention.weights.fit import backbone_weights

# the families of softmax models: PVT, PVTv2, Swin, CSwin, DeiT
PARENTS = {
    "pvt": ("reduced",),
    "flatten_pvt_v2": ("reduced",),
    "swin": ("windows",),
    "cswin": ("stripes", "stripes", "stripes", "softmax"),
    "vit": ("softmax",),
}
NOT_IN_CSWIN = {"windows", "reduced", "aft_conv"}
CHILDREN = [
    (family, mixer)
    for family in PARENTS
    for mixer in MIXERS
    if not (family == "cswin" and mixer in NOT_IN_CSWIN)
]


def small(family: str, *mixers: str) -> Any:
    """A small backbone with these mixers, whose heads are of an even number, as stripes want."""
    heads = {} if family == "vit" else {"num_heads": (2, 2, 4, 4)}
    arch = {**SMALL_ARCHS[family], **heads}
    return small_backbone(family, arch=arch, **in_all_stages(family, *mixers))


def projections(weights: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """The queries', keys' and values' weights or biases of all blocks, by place and letter."""
    found: dict[str, Tensor] = {}
    for key, value in weights.items():
        place, _, part = key.removesuffix(f".{kind}").rpartition(".")
        if key.endswith(f".{kind}") and part in ("q", "k", "v", "kv", "qkv"):
            parts = zip(part, value.chunk(len(part)), strict=True)
            found |= {f"{place} {letter}": each for letter, each in parts}
    return found


@pytest.mark.parametrize(("family", "mixer"), CHILDREN)
def test_a_softmax_model_starts_every_mixer(family: str, mixer: str) -> None:
    parent = small(family, *PARENTS[family]).state_dict()
    norms = ("norm0.", "norm1.", "norm2.", "norm3.", "norm4.")
    if family in ("swin", "cswin"):  # a classifier has none
        parent = {key: value for key, value in parent.items() if not key.startswith(norms)}
    model = small(family, mixer)
    own = model.state_dict()
    fit = backbone_weights({"model": parent}, model, new_attention=True)
    model.load_state_dict(fit.weights)
    for kind in ("weight", "bias"):
        mine, theirs = projections(fit.weights, kind), projections(parent, kind)
        for name, value in mine.items():
            anew = mixer == "aft_conv" and name[-1] in "qk"
            before = own[f"{name.replace(' ', '.')}.{kind}"] if anew else theirs[name]
            assert torch.equal(value, before), name
    for key in fit.weights.keys() & parent.keys():
        if "attn" not in key and fit.weights[key].shape == parent[key].shape:
            assert torch.equal(fit.weights[key], parent[key]), key
    for key in fit.new:
        assert ".attn" in key or key.startswith(norms), key
    for key in fit.dropped:
        assert ".attn" in key or key == "cls_token", key


def test_lepe_of_two_halves_becomes_that_of_all_channels() -> None:
    parent = small("cswin", "stripes")
    model = small("cswin", "softmax")
    fit = backbone_weights(parent.state_dict(), model, new_attention=True)
    halves = [parent.state_dict()[f"stage2.1.attns.{i}.get_v.weight"] for i in (0, 1)]
    assert torch.equal(fit.weights["stage2.1.attns.0.get_v.weight"], torch.cat(halves))
    back = backbone_weights(fit.weights, parent, new_attention=True).weights
    assert all(torch.equal(back[key], value) for key, value in parent.state_dict().items())


def test_what_the_file_has_in_other_blocks_must_be_there() -> None:
    for family, key in (
        ("swin", "layers.1.blocks.1.attn.relative_position_bias_table"),
        ("cswin", "stage2.1.attns.1.get_v.bias"),
        ("pvt", "block2.1.attn.kv.weight"),
    ):
        model = small(family, *PARENTS[family])
        weights = {name: value for name, value in model.state_dict().items() if name != key}
        with pytest.raises(ValueError, match=rf"missing \({key}\)"):
            backbone_weights(weights, model, new_attention=True)
