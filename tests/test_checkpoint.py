"""Weights of a backbone out of the wrappings they are published in, in full or with an error."""

import json
import sys
import types
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SMALL, normal, seed_weights, small_pvt
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from agent_attention import AgentPVT, AgentSwinTransformer
from agent_attention.weights.fit import Fit, backbone_weights, unwrap
from agent_attention.weights.read import Inert, load_file
from agent_attention.weights.recognise import build_like

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


def refusal(checkpoint: dict[str, Any]) -> str:
    with pytest.raises(ValueError) as error:
        backbone_weights(checkpoint, MODEL)
    return str(error.value)


def without(*keys: str) -> State:
    return {key: value for key, value in MODEL.state_dict().items() if key not in keys}


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
    assert f"{count - 1} missing (" in message and f" and {count - 6} more)" in message
    assert len(message) < 500


@pytest.mark.parametrize("content", [{}, {"state_dict": {}}, {"model": {"epoch": 3}}, [], None, 3])
def test_a_checkpoint_without_tensors_is_refused(content: Any) -> None:
    assert "a checkpoint is a dict of tensors, " in refusal(content)


def test_a_checkpoint_within_itself_is_refused() -> None:
    inner: dict[str, Any] = {}
    inner["model"] = inner
    assert "dict of tensors" in refusal(inner)
    assert "dict of tensors" in refusal({"model": {"state_dict": {"state_dict": inner}}})


def test_a_checkpoint_that_comes_round_to_itself_is_refused() -> None:
    first: dict[str, Any] = {}
    first["model"] = {"state_dict": {"model": first}}
    assert "dict of tensors" in refusal(first)


def test_weights_may_lie_deeper_than_python_can_call() -> None:
    checkpoint: dict[str, Any] = {"a": NOISE}
    for _ in range(2 * sys.getrecursionlimit()):
        checkpoint = {"model": checkpoint}
    assert unwrap(checkpoint)["a"] is NOISE


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


# --- the published ImageNet files

GOLDEN = Path(__file__).parent / "golden"
BACKBONES = json.loads((GOLDEN / "backbone_keys.json").read_text())
PUBLISHED = json.loads((GOLDEN / "classification_keys.json").read_text())
ARCHS = {"t": "tiny", "s": "small", "m": "medium", "l": "large", "b": "base"}
# tensors matched, resized, dropped and new, for a backbone of the default size
COUNTS = {
    "pvt_t": (196, 0, 2, 0),
    "pvt_s": (372, 0, 2, 0),
    "pvt_m": (636, 0, 2, 0),
    "pvt_l": (922, 0, 2, 0),
    "pvt_m_256": (520, 116, 2, 0),
    "swin_t": (239, 0, 4, 8),
    "swin_s": (353, 0, 13, 8),
    "swin_b": (367, 0, 12, 8),
    "swin_s_288": (317, 36, 13, 8),
    "swin_b_384": (325, 42, 12, 8),
}
INDICES = ("relative_position_index", "attn_mask")
variants = pytest.mark.parametrize("variant", PUBLISHED)


def published_shapes(variant: str) -> dict[str, list[int]]:
    """The names and shapes of a published classifier."""
    changes = PUBLISHED[variant]
    base = BACKBONES[changes["backbone"]]
    kept = {key: shape for key, shape in base.items() if key not in changes["without"]}
    return {**kept, **changes["with"]}


def is_table(key: str) -> bool:
    last = key.rpartition(".")[2]
    return last.endswith("_bias") or last.startswith(("pos_embed", "relative_position_bias"))


def fabricate(variant: str) -> State:
    """Tensors as published; all but the tables hold one value, and so take no room in a file."""
    found = {}
    for key, shape in published_shapes(variant).items():
        seed = zlib.crc32(key.encode()) % 2**31
        if key.endswith("relative_position_index"):
            found[key] = torch.zeros(1, dtype=torch.int64).expand(shape)
        else:
            found[key] = (
                normal(seed, tuple(shape)) if is_table(key) else normal(seed, (1,)).expand(shape)
            )
    return found


def small_swin(**arguments: Any) -> AgentSwinTransformer:
    arch = {"embed_dim": 8, "depths": (1, 1, 2, 1), "num_heads": (1, 1, 2, 2)}
    return seed_weights(AgentSwinTransformer(**{"arch": arch, **arguments}))


def build(variant: str, own_size: bool = False) -> Any:
    """The backbone of a published classifier, for 224 pixels or for the file's own size."""
    family, letter, *size = variant.split("_")
    options: dict[str, Any] = {}
    if size and own_size:
        options["pretrain_img_size"] = int(size[0])
        if family == "swin":
            options["window_size"] = int(size[0]) // 4
    return {"pvt": AgentPVT, "swin": AgentSwinTransformer}[family](ARCHS[letter], **options)


@pytest.fixture
def quick_building(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large weights, of values that nobody reads, are not drawn at random."""
    for name in ("trunc_normal_", "kaiming_uniform_", "uniform_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)


class CfgNode(dict):  # type: ignore[type-arg]
    """Stands for yacs's, which has both items and attributes."""


def official_file(
    weights: State, path: Path, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> None:
    """A file like the published ones; the class of its config is gone when this returns."""
    with monkeypatch.context() as patch:
        module = types.ModuleType("yacs.config")
        module.CfgNode = CfgNode  # type: ignore[attr-defined]
        patch.setattr(CfgNode, "__module__", "yacs.config")
        patch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
        patch.setitem(sys.modules, "yacs.config", module)
        config = CfgNode(MODEL=CfgNode(TYPE="agent"), DATA={"IMG_SIZE": 224})
        config.frozen = True  # type: ignore[attr-defined]
        more = {"optimizer": {"state": {0: {"step": 5, "exp_avg": NOISE}}, "param_groups": [{}]}}
        training = {"lr_scheduler": {"t": 3}, "max_accuracy": 78.5, "epoch": 299}
        torch.save({"model": weights, **more, **training, "config": config}, path, **options)
    assert "yacs.config" not in sys.modules


def counts(fit: Fit) -> tuple[int, ...]:
    return tuple(map(len, (fit.matched, fit.resized, fit.dropped, fit.new)))


def shapes(state: State) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


@variants
def test_published_classifiers_are_loaded_in_full(
    variant: str, quick_building: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weights = fabricate(variant)
    official_file(weights, tmp_path / "official.pth", monkeypatch)
    checkpoint = load_file(tmp_path / "official.pth")
    assert isinstance(checkpoint["config"], Inert) and checkpoint["epoch"] == 299

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
        without("pos_embed1")
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


# --- kinds of files


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
