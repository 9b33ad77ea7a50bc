"""Weights of a backbone out of the wrappings they are published in, in full or with an error."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import SMALL, small_pvt
from torch import Tensor

from agent_attention.checkpoint import backbone_weights

State = dict[str, Tensor]
MODEL = small_pvt()
NOISE = torch.zeros(2, 3)


def below(prefix: str, weights: State) -> State:
    return {prefix + key: value for key, value in weights.items()}


def detector(weights: State) -> State:
    heads = {"neck.convs.0.weight": NOISE, "bbox_head.cls.bias": NOISE, "head.weight": NOISE}
    return {**below("backbone.", weights), **heads}


def classifier(weights: State) -> State:
    return {**weights, "head.weight": NOISE, "head.bias": NOISE}


def imagenet(weights: State) -> dict[str, Any]:
    more = {"optimizer": {"state": {}}, "lr_scheduler": {}, "max_accuracy": 78.5, "epoch": 299}
    return {"model": classifier(weights), **more, "config": None}


WRAPPINGS: dict[str, Callable[[State], dict[str, Any]]] = {
    "bare": dict,
    "bare of a classifier": classifier,
    "bare of a detector": detector,
    "bare, of several processes": lambda weights: below("module.", weights),
    "state_dict": lambda weights: {"state_dict": weights},
    "state_dict of a detector": lambda weights: {
        "meta": {"epoch": 12},
        "state_dict": detector(weights),
        "optimizer": {},
    },
    "state_dict of a detector of several processes": lambda weights: {
        "state_dict": below("module.", detector(weights))
    },
    "model": lambda weights: {"model": weights},
    "model of a classifier": imagenet,
    "model of a classifier of several processes": lambda weights: {
        "model": below("module.", classifier(weights)),
        "optimizer": {},
    },
    "state_dict in a model": lambda weights: {"model": {"state_dict": weights}},
}


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_every_wrapping_gives_all_weights(wrap: Callable[[State], dict[str, Any]]) -> None:
    wanted = MODEL.state_dict()
    found = backbone_weights(wrap(wanted), MODEL)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], value) for key, value in wanted.items())


def snapshot(checkpoint: Any) -> Any:
    """A copy that shares nothing."""
    if isinstance(checkpoint, dict):
        return {key: snapshot(value) for key, value in checkpoint.items()}
    return checkpoint.clone() if isinstance(checkpoint, Tensor) else checkpoint


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_the_checkpoint_and_the_model_are_left_as_they_are(
    wrap: Callable[[State], dict[str, Any]],
) -> None:
    other = small_pvt().requires_grad_(False)
    for parameter in other.parameters():
        parameter.zero_()
    checkpoint = wrap(MODEL.state_dict())
    before = snapshot(checkpoint)
    backbone_weights(checkpoint, other)
    torch.testing.assert_close(checkpoint, before, rtol=0, atol=0)
    assert list(checkpoint) == list(before)
    assert not any(parameter.any() for parameter in other.parameters())


def refusal(checkpoint: dict[str, Any]) -> str:
    with pytest.raises(ValueError) as error:
        backbone_weights(checkpoint, MODEL)
    return str(error.value)


def without(*keys: str) -> State:
    return {key: value for key, value in MODEL.state_dict().items() if key not in keys}


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_missing_weights_are_counted_and_named(wrap: Callable[[State], dict[str, Any]]) -> None:
    message = refusal(wrap(without("pos_embed2", "block1.0.attn.na_bias")))
    assert "do not fit AgentPVT: 2 missing (block1.0.attn.na_bias, pos_embed2)." in message
    assert "left over" not in message and "shape" not in message


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_weights_left_over_are_counted_and_named(wrap: Callable[[State], dict[str, Any]]) -> None:
    message = refusal(wrap({**without(), "block1.1.norm1.bias": NOISE, "norm4.bias": NOISE}))
    assert "do not fit AgentPVT: 2 left over (block1.1.norm1.bias, norm4.bias)." in message
    assert "missing" not in message and "shape" not in message


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_weights_of_another_shape_are_counted_and_named_with_both(
    wrap: Callable[[State], dict[str, Any]],
) -> None:
    message = refusal(wrap({**without(), "pos_embed2": torch.zeros(1, 1024, 16)}))
    wanted = "do not fit AgentPVT: 1 of another shape (pos_embed2 (1, 1024, 16) instead of "
    assert wanted + "(1, 784, 16))." in message
    assert "missing" not in message and "left over" not in message


def test_all_faults_are_in_one_message() -> None:
    message = refusal(
        {**without("pos_embed1"), "norm.bias": NOISE, "pos_embed2": torch.zeros(1, 1, 1)}
    )
    for fault in ("1 missing (pos_embed1)", "1 left over (norm.bias)", "1 of another shape (pos_e"):
        assert fault in message
    assert "arch" in message and "pretrain_img_size" in message


def test_a_long_list_is_cut_but_counted_in_full() -> None:
    count = len(MODEL.state_dict())
    message = refusal({"state_dict": {}})
    assert f"{count} missing (" in message and f" and {count - 5} more)" in message
    assert len(message) < 500


def test_weights_of_another_arch_are_refused() -> None:
    deeper = small_pvt(arch={**SMALL, "depths": (2, 2, 1, 1)}).state_dict()
    added = [key for key in deeper if key not in MODEL.state_dict()]
    assert f"{len(added)} left over (block1.1.attn.ah_bias, " in refusal({"model": deeper})
    wider = small_pvt(pretrain_img_size=256).state_dict()
    assert "of another shape (block1.0.attn.ah_bias (1, 1, 9, 64, 1) instead of" in refusal(wider)
