"""Published files of the further backbones: recognised, loaded in full, resized, or refused."""

import re
from typing import Any

import pytest
import torch
from golden_cases import architecture, published_keys
from helpers import SMALL_BACKBONES
from torch import Tensor
from torch.nn import functional as F

from agent_attention.backbones import Backbone
from agent_attention.weights.fit import backbone_weights, resize_table, unwrap
from agent_attention.weights.recognise import build_like, looks_like, recognise

State = dict[str, Tensor]
KEYS = published_keys()
FURTHER = ["vit", "cswin", "flatten_pvt", "flatten_pvt_v2", "flatten_swin", "flatten_cswin"]
close = torch.testing.assert_close


def published(variant: str) -> State:
    """Tensors without numbers, by the names and of the shapes of a file."""
    return {key: torch.empty(shape, device="meta") for key, shape in KEYS[variant].items()}


@pytest.mark.parametrize("variant", KEYS)
def test_every_published_file_is_recognised_and_loaded(variant: str) -> None:
    name, _, last = variant.rpartition("_")
    name, size = (name, int(last)) if last in ("448", "384") else (variant, 224)
    cls, arch = architecture(name)
    weights = published(variant)
    assert looks_like(weights) == f"{cls.__name__} {arch!r} pre-trained at {size} pixels"
    with torch.device("meta"):
        own = build_like(weights)
        default = cls(arch)  # type: ignore[arg-type, call-arg]
    for model in (own, default):
        fit = backbone_weights({"model": weights, "config": None}, model)
        assert all(re.match(r"norm\d\.", key) for key in fit.new)
        computed = r"head\.|norm\.|.*attn_mask$|.*relative_position_index$"
        assert all(re.match(computed, key) for key in fit.dropped)
        assert bool(fit.resized) == (model is default and size != 224)


def small(family: str) -> tuple[Backbone, State]:
    model = SMALL_BACKBONES[family]()
    return model, dict(model.state_dict())


@pytest.mark.parametrize("family", FURTHER)
def test_a_file_with_one_key_or_shape_changed_is_refused_and_names_it(family: str) -> None:
    model, weights = small(family)
    assert backbone_weights(weights, model).matched
    assert recognise(weights).family is type(model)  # type: ignore[union-attr]
    key = next(key for key in weights if re.search(r"attns?\.(\d\.)?\w+\.weight", key))
    without = {k: v for k, v in weights.items() if k != key}
    wrong: list[tuple[State, str]] = [
        (without, "1 missing"),
        ({**without, f"{key}s": weights[key]}, "1 left over"),
        ({**weights, key: torch.cat([weights[key]] * 2)}, "1 of another shape"),
    ]
    for changed, fault in wrong:
        with pytest.raises(ValueError, match=fault) as error:
            backbone_weights(changed, model)
        assert key in str(error.value)


def test_averaged_weights_come_first() -> None:
    tensors = {"w": torch.zeros(1)}
    wrapped: dict[str, Any] = {"model": {"w": torch.ones(1)}, "state_dict_ema": tensors}
    assert unwrap(wrapped) == tensors


@pytest.mark.parametrize("family", FURTHER)
def test_another_mixer_s_model_starts_its_own_anew(family: str) -> None:
    model, weights = small(family)
    own = re.compile(r"\.attns\.\d\.(?!get_v)|\.attn\.(?!(q|kv|qkv|proj)\.|relative_position)")
    plain = {key: value for key, value in weights.items() if not own.search(key)}
    plain["block1.0.attn.sr.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match="missing"):
        backbone_weights(plain, model)
    fit = backbone_weights(plain, model, new_attention=True)
    assert fit.dropped == ["block1.0.attn.sr.weight"]
    assert {*fit.new} == {key for key in weights if own.search(key)}


def test_positions_are_resized_in_the_way_of_their_authors() -> None:
    table = torch.randn(1, 1 + 36, 4)
    square = table[0, 1:].t().unflatten(1, (6, 6))[None]
    for name, mode in (("pos_embed", "bicubic"), ("positional_encoding", "bicubic"),
                       ("pos_embed2", "bilinear")):  # fmt: skip
        wanted = F.interpolate(square, size=(8, 8), mode=mode).flatten(2).mT
        close(resize_table(f"a.{name}", table[:, 1:], torch.Size((1, 64, 4))), wanted)
    wanted = F.interpolate(square, size=(8, 8), mode="bicubic").flatten(2).mT
    with_token = resize_table("pos_embed", table, torch.Size((1, 65, 4)))
    close(with_token, torch.cat([table[:, :1], wanted], 1))
    close(resize_table("pos_embed", table, torch.Size((1, 64, 4))), wanted)
    assert resize_table("pos_embed", table[:, 1:], torch.Size((1, 65, 4))) is None
