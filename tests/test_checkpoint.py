"""Weights of a backbone out of the wrappings they are published in, in full or with an error."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SMALL, small_pvt
from published_files import (
    MODEL,
    NOISE,
    WRAPPINGS,
    State,
    classifier,
    detector,
    refusal,
    small_swin,
    without,
)
from safetensors.torch import save_file
from torch import Tensor

from agent_attention.weights.fit import backbone_weights
from agent_attention.weights.read import load_file


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_every_wrapping_gives_all_weights(wrap: Callable[[State], dict[str, Any]]) -> None:
    wanted = MODEL.state_dict()
    fit = backbone_weights(wrap(wanted), MODEL)
    assert fit.weights.keys() == wanted.keys()
    assert all(torch.equal(fit.weights[key], value) for key, value in wanted.items())
    assert sorted(fit.matched) == sorted(wanted) and not fit.resized and not fit.new


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


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_missing_weights_are_counted_and_named(wrap: Callable[[State], dict[str, Any]]) -> None:
    message = refusal(wrap(without("pos_embed2", "block1.0.attn.na_bias")))
    assert "do not fit this AgentPVT: 2 missing (block1.0.attn.na_bias, pos_embed2)." in message
    assert "left over" not in message and "shape" not in message


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_weights_left_over_are_counted_and_named(wrap: Callable[[State], dict[str, Any]]) -> None:
    message = refusal(wrap({**without(), "block1.1.norm1.bias": NOISE, "norm4.bias": NOISE}))
    assert "do not fit this AgentPVT: 2 left over (block1.1.norm1.bias, norm4.bias)." in message
    assert "missing" not in message and "shape" not in message


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_weights_of_another_shape_are_counted_and_named_with_both(
    wrap: Callable[[State], dict[str, Any]],
) -> None:
    message = refusal(wrap({**without(), "pos_embed2": torch.zeros(1, 784, 17)}))
    wanted = "do not fit this AgentPVT: 1 of another shape (pos_embed2 (1, 784, 17) instead of "
    assert wanted + "(1, 784, 16))." in message
    assert "missing" not in message and "left over" not in message


def test_all_faults_are_in_one_message() -> None:
    message = refusal(
        {**without("pos_embed1"), "norm.bias": NOISE, "pos_embed2": torch.zeros(1, 1, 1)}
    )
    for fault in ("1 missing (pos_embed1)", "1 left over (norm.bias)", "1 of another shape (pos_e"):
        assert fault in message


def test_a_long_list_is_cut_but_counted_in_full() -> None:
    count = len(MODEL.state_dict())
    message = refusal({"state_dict": {"pos_embed4": MODEL.state_dict()["pos_embed4"]}})
    assert f"{count - 1} missing (" in message and f" and {count - 5} more)" in message
    assert len(message) < 500


@pytest.mark.parametrize("content", [{}, {"state_dict": {}}, {"model": {"epoch": 3}}, [], None, 3])
def test_a_checkpoint_without_tensors_is_refused(content: Any) -> None:
    assert "a checkpoint is a dict of tensors, " in refusal(content)


def test_a_checkpoint_within_itself_is_refused() -> None:
    inner: dict[str, Any] = {}
    inner["model"] = inner
    assert "dict of tensors" in refusal(inner)
    assert "dict of tensors" in refusal({"model": {"state_dict": {"state_dict": inner}}})


@pytest.mark.parametrize(
    "shape", [(), (3,), (2, 3), (1, 0, 8), (2, 4, 8), (1, 1, 9, 0, 1), (1,) * 6]
)
@pytest.mark.parametrize("key", ["pos_embed1", "block1.0.attn.ah_bias", "block1.0.attn.wa_bias"])
def test_tables_that_are_no_tables_are_named(key: str, shape: tuple[int, ...]) -> None:
    message = refusal({**without(), key: torch.zeros(shape)})
    assert f"1 of another shape ({key} {shape} instead of " in message


@pytest.mark.parametrize("shape", [(), (3,), (169, 2, 1), (0, 2), (170, 2), (169, 3), (4, 2)])
def test_window_tables_of_no_window_are_named(shape: tuple[int, ...]) -> None:
    model = small_swin()
    key = "layers.3.blocks.0.attn.relative_position_bias_table"
    with pytest.raises(ValueError) as error:  # (4, 2): an even side is of no window
        backbone_weights({**model.state_dict(), key: torch.zeros(shape)}, model)
    assert f"1 of another shape ({key} {shape} instead of (169, 2))" in str(error.value)


@pytest.mark.parametrize("key", ["patch_embed.proj.weight", "layers.0.blocks.0.attn.ah_bias"])
def test_the_tensors_that_tell_the_arch_may_have_any_shape(key: str) -> None:
    model = small_swin()
    with pytest.raises(ValueError, match=r"1 of another shape \("):
        backbone_weights({**model.state_dict(), key: torch.zeros(())}, model)


@pytest.mark.parametrize(
    "wrap", [dict, detector, classifier], ids=["bare", "detector", "classifier"]
)
def test_safetensors_files_are_loaded(wrap: Callable[[State], State], tmp_path: Path) -> None:
    wanted = {key: value.contiguous() for key, value in without().items()}
    shared = {key: value.clone() for key, value in wrap(wanted).items()}
    save_file(shared, tmp_path / "weights.safetensors")
    fit = backbone_weights(load_file(tmp_path / "weights.safetensors"), MODEL)
    assert all(torch.equal(fit.weights[key], value) for key, value in wanted.items())


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_every_wrapping_may_come_from_a_file(
    wrap: Callable[[State], dict[str, Any]], tmp_path: Path
) -> None:
    torch.save(wrap(without()), tmp_path / "weights.pth")
    fit = backbone_weights(load_file(str(tmp_path / "weights.pth")), MODEL)
    assert all(torch.equal(fit.weights[key], value) for key, value in without().items())


def test_weights_of_another_arch_are_refused() -> None:
    deeper = small_pvt(arch={**SMALL, "depths": (2, 2, 1, 1)}).state_dict()
    added = [key for key in deeper if key not in MODEL.state_dict()]
    assert f"{len(added)} left over (block1.1.attn.ah_bias, " in refusal({"model": deeper})
    wider = small_pvt(arch={**SMALL, "embed_dims": (9, 16, 24, 32)}).state_dict()
    assert "(block1.0.attn.dwc.bias (9,) instead of (8,), " in refusal(wider)
