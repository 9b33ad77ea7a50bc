"""Checkpoints in the wrappings and shapes that they are published in, made up."""

import json
import sys
import types
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import normal, seed_weights, small_pvt
from torch import Tensor

from agent_attention import AgentPVT, AgentSwinTransformer
from agent_attention.weights.fit import Fit, backbone_weights

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


def refusal(checkpoint: dict[str, Any]) -> str:
    with pytest.raises(ValueError) as error:
        backbone_weights(checkpoint, MODEL)
    return str(error.value)


def without(*keys: str) -> State:
    return {key: value for key, value in MODEL.state_dict().items() if key not in keys}


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
