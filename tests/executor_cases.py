"""Cases of executors, each beside its definition: what runs with ``using(way="plain")``."""

from collections.abc import Callable
from typing import Any

import torch
from helpers import agent_attention, normal, weighted
from torch import Tensor

from agent_attention.compute.guard import using
from agent_attention.mixers import Mixer, build_mixer

Pair = tuple[int, int]
WAYS: dict[str, dict[str, Any]] = {
    "fused": {"way": "fused"},
    "kept": {"way": "kept"},
    "tiled": {"way": "tiled"},
    "tiled, four tokens a chunk": {"way": "tiled", "chunk": 4},
    "chosen": {},
}
EXACT = {"rtol": 1e-10, "atol": 1e-10}  # in float64
CLOSE = {"rtol": 2e-5, "atol": 2e-5}  # in float32


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    return EXACT if dtype == torch.float64 else CLOSE


def same(function: Callable[[], Tensor], leaves: list[Tensor], settings: dict[str, Any]) -> None:
    """What a function gives, and the gradients of its leaves, are those of the definition."""
    found, wanted = [], []
    for into, changes in ((found, settings), (wanted, {"way": "plain"})):
        with using(**changes):
            out = function()
            into += [out, *torch.autograd.grad(weighted([out]), leaves, materialize_grads=True)]
    torch.testing.assert_close(found, wanted, **tolerance(leaves[0].dtype))


def numbers(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return normal(seed, shape).to(dtype).requires_grad_()


MIXER_CASES: dict[str, Callable[[], Mixer]] = {
    "agent": agent_attention,
    "agent, joint projection": lambda: agent_attention(joint_qkv=True, agent_shape=(4, 5)),
    "agent, no bias": lambda: agent_attention(agent_bias=False),
    "agent, no detail": lambda: agent_attention(detail=False),
    "agent, nothing but agents": lambda: agent_attention(agent_bias=False, detail=False),
    "agent, projections without bias": lambda: agent_attention(qkv_bias=False),
    "softmax": lambda: build_mixer("softmax", 8, 2),
    "reduced": lambda: build_mixer("reduced", 8, 2, sr_ratio=2),
    "reduced by 1": lambda: build_mixer("reduced", 8, 2),
    "windows": lambda: build_mixer("windows", 8, 2, window=3),
    "windows, shifted": lambda: build_mixer("windows", 8, 2, window=3, shift=1),
    "stripes": lambda: build_mixer("stripes", 8, 2, window=3),
    "focused": lambda: build_mixer("focused", 8, 2, table_shape=(7, 7)),
    "focused, reduced keys": lambda: build_mixer("focused", 8, 2, table_shape=(8, 8), reduction=2),
    "norm": lambda: build_mixer("norm", 8, 2),
    "norm, elu and detail": lambda: build_mixer("norm", 8, 2, kernel="elu", detail=True),
    "diag": lambda: build_mixer("diag", 8, 2, window=3),
    "diag, relu": lambda: build_mixer("diag", 8, 2, window=4, kernel="relu"),
    "aft_full": lambda: build_mixer("aft_full", 8, 2, table_shape=(7, 7), rank=4),
    "aft_local": lambda: build_mixer("aft_local", 8, 1, table_shape=(7, 7), rank=4, window=3),
    "aft_conv": lambda: build_mixer("aft_conv", 8, 2, kernel=5),
    "aft_conv, a head a channel": lambda: build_mixer("aft_conv", 8, 8, kernel=3),
    "aft_simple": lambda: build_mixer("aft_simple", 8, 1, joint_qkv=True),
}
