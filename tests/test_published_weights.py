"""Published weights, those of another model, and those of plain PVT and Swin."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import small_pvt
from published_files import (
    COUNTS,
    INDICES,
    MODEL,
    NOISE,
    State,
    build,
    classifier,
    counts,
    detector,
    fabricate,
    is_table,
    official_file,
    refusal,
    shapes,
    small_swin,
    variants,
    without,
)
from torch import Tensor, nn
from torch.nn import functional as F

from agent_attention import AgentPVT, AgentSwinTransformer
from agent_attention.weights.fit import Fit, backbone_weights, unwrap
from agent_attention.weights.read import load_file
from agent_attention.weights.recognise import build_like


@pytest.fixture
def quick_building(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large weights, of values that nobody reads, are not drawn at random."""
    for name in ("trunc_normal_", "kaiming_uniform_", "uniform_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)


@variants
def test_published_classifiers_are_loaded_in_full(
    variant: str, quick_building: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weights = fabricate(variant)
    official_file(weights, tmp_path / "official.pth", monkeypatch)
    checkpoint = load_file(tmp_path / "official.pth")
    assert checkpoint["config"]["DATA"] == {"IMG_SIZE": 224} and checkpoint["epoch"] == 299

    matched, resized, dropped, new = COUNTS[variant]
    expected = {False: COUNTS[variant], True: (matched + resized, 0, dropped, new)}
    for own_size in (False, True):
        model = build(variant, own_size)
        before = model.state_dict()
        if own_size:
            alike = build_like(unwrap(checkpoint))
            assert shapes(alike.state_dict()) == shapes(before)
        fit = backbone_weights(checkpoint, model)
        assert counts(fit) == expected[own_size]
        assert shapes(fit.weights) == shapes(before)
        assert all(torch.equal(fit.weights[key], weights[key]) for key in fit.matched)
        kept = fit.new + [key for key in before if key.endswith(INDICES)]
        assert all(torch.equal(fit.weights[key], before[key]) for key in kept)
        assert {*fit.matched, *fit.resized, *kept} == before.keys()
        computed = {key for key in weights if key in before and key.endswith(INDICES)}
        assert {*fit.matched, *fit.resized, *fit.dropped, *computed} == weights.keys()
        assert all(
            key.startswith(("head.", "norm.")) or key.endswith(INDICES) for key in fit.dropped
        )
        assert fit.new == [
            key for key in before if variant.startswith("swin") and key[:4] == "norm"
        ]
        check_resized(fit, weights)


def check_resized(fit: Fit, old: State) -> None:
    """Resized tables are those that resizing the sum of rows and columns gives."""
    for key in fit.resized:
        table, (start, _, last) = fit.weights[key], key.rpartition(".")
        if last.startswith("pos_embed"):
            wanted = resize(square(old[key][0]), square(table[0]).shape[1:], "bilinear")
            torch.testing.assert_close(square(table[0]), wanted)
        elif last == "relative_position_bias_table":
            wanted = resize(square(old[key]), square(table).shape[1:], "bicubic")
            torch.testing.assert_close(square(table), wanted)
        elif last in ("ah_bias", "ha_bias"):
            names = [f"{start}.{last}", f"{start}.{last.replace('h', 'w')}"]
            new, before = (spatial_sum(*map(state.get, names)) for state in (fit.weights, old))
            torch.testing.assert_close(new, resize(before, new.shape[1:], "bilinear"))
        else:
            assert last in ("aw_bias", "wa_bias")
            assert f"{start}.{last.replace('w', 'h')}" in fit.resized


def square(tokens: Tensor) -> Tensor:
    """(S*S, C) as a map (C, S, S)."""
    side = round(tokens.shape[0] ** 0.5)
    return tokens.t().unflatten(1, (side, side))


def spatial_sum(rows: Tensor, columns: Tensor) -> Tensor:
    """Row and column tables of either kind as one map (h*P, Hs, Ws)."""
    total = (rows + columns)[0]
    return (total if rows.shape[-1] == 1 else total.permute(0, 3, 1, 2)).flatten(0, 1)


def resize(x: Tensor, size: Any, mode: str) -> Tensor:
    return F.interpolate(x[None], size=tuple(size), mode=mode, align_corners=False)[0]


def test_old_files_are_loaded_as_new_ones_are(
    quick_building: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "old.pth"
    weights = small_pvt().state_dict()
    official_file(classifier(weights), path, monkeypatch, _use_new_zipfile_serialization=False)
    fit = backbone_weights(load_file(path), MODEL)
    assert all(torch.equal(fit.weights[key], value) for key, value in weights.items())


def larger(model: type[nn.Module], **arguments: Any) -> State:
    """Weights for 288 pixels whose tables are constants."""
    state = (small_swin if model is AgentSwinTransformer else small_pvt)(
        pretrain_img_size=288, **arguments
    ).state_dict()
    return {key: torch.full_like(v, 0.3) if is_table(key) else v for key, v in state.items()}


def test_a_resized_constant_stays_constant() -> None:
    for model, weights in [
        (MODEL, larger(AgentPVT)),
        (small_swin(), larger(AgentSwinTransformer, window_size=72)),
    ]:
        fit = backbone_weights(weights, model)
        assert fit.resized
        for key in fit.resized:
            torch.testing.assert_close(fit.weights[key], torch.full_like(fit.weights[key], 0.3))


def test_resized_tables_keep_their_type() -> None:
    half = {key: v.half() if is_table(key) else v for key, v in larger(AgentPVT).items()}
    fit = backbone_weights(half, MODEL)
    assert {fit.weights[key].dtype for key in fit.resized} == {torch.float16}


def test_the_report_counts_and_names() -> None:
    shown = str(backbone_weights(classifier(larger(AgentPVT)), MODEL))
    count = sum(is_table(key) and "an_" not in key and "na_" not in key for key in without())
    matched = len(without()) - count
    assert shown.startswith(f"{matched} tensors matched, {count} resized (block1.0.attn.ah_bias, ")
    assert f" and {count - 4} more), 2 dropped (head.bias, head.weight), 0 new" in shown


# --- weights of another model


@pytest.mark.parametrize(
    ("variant", "other", "looks"),
    [
        ("pvt_s", "pvt_t", "AgentPVT 'small' pre-trained at 224 pixels"),
        ("pvt_t", "pvt_s", "AgentPVT 'tiny' pre-trained at 224 pixels"),
        ("pvt_m_256", "pvt_l", "AgentPVT 'medium' pre-trained at 256 pixels"),
        ("swin_t", "pvt_t", "AgentSwinTransformer 'tiny' pre-trained at 224 pixels"),
        ("swin_s_288", "swin_t", "AgentSwinTransformer 'small' pre-trained at 288 pixels"),
        ("swin_b_384", "swin_s", "AgentSwinTransformer 'base' pre-trained at 384 pixels"),
        ("pvt_l", "swin_t", "AgentPVT 'large' pre-trained at 224 pixels"),
    ],
)
def test_a_file_for_another_model_is_recognised(
    variant: str, other: str, looks: str, quick_building: None
) -> None:
    model = build(other)
    with pytest.raises(ValueError) as error:
        backbone_weights({"model": fabricate(variant)}, model)
    message = str(error.value)
    assert message.startswith(f"these weights do not fit this {type(model).__name__}: ")
    assert f"The file looks like {looks}." in message and len(message) < 1500


@pytest.mark.parametrize("variant", ["pvt_t", "swin_t"])
def test_one_key_missing_or_too_many_is_named(variant: str, quick_building: None) -> None:
    model, weights = build(variant), fabricate(variant)
    key = next(key for key in weights if key.endswith("1.norm2.bias"))
    faults = {
        f"1 missing ({key})": {k: v for k, v in weights.items() if k != key},
        "1 left over (stem.bias)": {**weights, "stem.bias": NOISE},
        f"1 of another shape ({key} (2, 3) instead of ": {**weights, key: NOISE},
    }
    for fault, changed in faults.items():
        with pytest.raises(ValueError) as error:
            backbone_weights({"model": changed}, model)
        assert f": {fault}" in str(error.value)
        assert "'tiny' pre-trained at 224 pixels" in str(error.value)


def test_what_is_in_no_model_here_is_described_by_its_keys() -> None:
    assert "no backbone known here (its first keys: conv1.weight)" in refusal(
        {"conv1.weight": NOISE}
    )


def test_sizes_of_no_published_model_are_told() -> None:
    assert "The file looks like AgentPVT of unknown sizes (1, 2, 1, 1)" in refusal(
        without("block1.0.norm1.bias")
    )


def test_later_stages_of_the_file_are_dropped_where_the_model_ends_earlier() -> None:
    short = small_pvt(out_indices=(0, 1))
    fit = backbone_weights(MODEL.state_dict(), short)
    assert fit.weights.keys() == short.state_dict().keys()
    assert {*fit.dropped} == without().keys() - short.state_dict().keys()
    swin = small_swin()
    part = small_swin(out_indices=(1,))
    fit = backbone_weights(swin.state_dict(), part)
    assert {*fit.dropped} >= swin.state_dict().keys() - part.state_dict().keys()


def test_a_trained_detector_brings_its_output_norms() -> None:
    wanted = small_swin()
    fit = backbone_weights({"state_dict": detector(wanted.state_dict())}, small_swin())
    assert not fit.new and "norm0.weight" in fit.matched


# --- weights of the plain softmax models


def plain_pvt() -> State:
    """Names and shapes of a PVT classifier, with a class token in the last stage."""
    state = dict(small_pvt(attn_types="BBBB").state_dict())
    state["pos_embed4"] = torch.cat([torch.full((1, 1, 32), 9.0), state["pos_embed4"]], dim=1)
    more = {"cls_token": torch.zeros(1, 1, 32), "norm.weight": NOISE, "norm.bias": NOISE}
    return classifier({**state, **more})


def plain_swin() -> State:
    """Names and shapes of a Swin classifier."""
    state = small_swin(attn_types="BBBB").state_dict()
    kept = {key: v for key, v in state.items() if not key.startswith("norm")}
    more = {"layers.2.blocks.1.attn_mask": torch.zeros(4, 49, 49), "norm.weight": NOISE}
    return classifier({**kept, **more, "norm.bias": NOISE})


AGENT = ("an_bias", "na_bias", "ah_bias", "aw_bias", "ha_bias", "wa_bias", "dwc.weight", "dwc.bias")


@pytest.mark.parametrize("types", ["AAAA", "AABB", "BBBB"])
def test_weights_of_plain_pvt_are_accepted_when_asked_for(types: str) -> None:
    model = small_pvt(attn_types=types)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7)
    weights = plain_pvt()
    before = model.state_dict()
    fit = backbone_weights({"state_dict": weights}, model, new_attention=True)
    assert fit.resized == ["pos_embed4"]
    assert torch.equal(fit.weights["pos_embed4"], weights["pos_embed4"][:, 1:])
    assert fit.new == [key for key in before if key.endswith(AGENT)]
    assert all(torch.equal(fit.weights[key], weights[key]) for key in fit.matched)
    assert {*fit.dropped} == weights.keys() - before.keys()
    assert fit.weights.keys() == before.keys()


def test_a_class_token_is_taken_off_before_resizing() -> None:
    fit = backbone_weights(plain_pvt(), small_pvt(pretrain_img_size=288), new_attention=True)
    wanted = resize(square(plain_pvt()["pos_embed4"][0, 1:]), (9, 9), "bilinear")
    torch.testing.assert_close(square(fit.weights["pos_embed4"][0]), wanted)


@pytest.mark.parametrize("types", [("A", "A", "1A1B", "B"), "AAAA", "BBBB"], ids=str)
def test_weights_of_plain_swin_are_accepted_when_asked_for(types: Any) -> None:
    model = small_swin(attn_types=types)
    before = model.state_dict()
    fit = backbone_weights({"model": plain_swin()}, model, new_attention=True)
    assert not fit.resized
    assert {*fit.new} == {k for k in before if k.endswith(AGENT) or k.startswith("norm")}
    assert all(torch.equal(fit.weights[key], plain_swin()[key]) for key in fit.matched)
    assert {*fit.dropped} == plain_swin().keys() - before.keys()


@pytest.mark.parametrize(
    ("weights", "model"), [(plain_pvt(), MODEL), (plain_swin(), small_swin())], ids=["pvt", "swin"]
)
def test_weights_of_plain_models_are_refused_unless_asked_for(weights: State, model: Any) -> None:
    with pytest.raises(ValueError) as error:
        backbone_weights(weights, model)
    for part in ("missing (", "an_bias", "left over (", "without agent attention", "new_attention"):
        assert part in str(error.value)


def test_plain_weights_still_have_to_be_complete() -> None:
    for key in ("block2.0.attn.q.weight", "patch_embed1.proj.bias", "pos_embed2"):
        rest = {name: value for name, value in plain_pvt().items() if name != key}
        with pytest.raises(ValueError, match=rf"1 missing \({key}\)"):
            backbone_weights(rest, MODEL, new_attention=True)
    key = "layers.3.blocks.0.attn.relative_position_bias_table"
    rest = {name: value for name, value in plain_swin().items() if name != key}
    with pytest.raises(ValueError, match=rf"1 missing \({key}\)"):
        backbone_weights(rest, small_swin(), new_attention=True)
