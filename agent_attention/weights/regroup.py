"""The weights that another mixer shares, in the form in which a model has them."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_PROJECTION = re.compile(r"(.*\.attn)\.(?:qkv|q|kv|v)\.(weight|bias)")
_LEPE = re.compile(r"(.*\.attns)\.\d+\.get_v\.(weight|bias)")


def regroup(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a softmax model, with projections and LePE as another mixer has them.

    Projections may be ``q`` and ``kv`` (PVT), ``qkv`` (Swin, ViT), or ``q``, ``k`` and ``v``
    (AFT-conv, which takes over the values' alone: its keys have other channels, and its queries
    gate instead of asking). CSwin's convolution of the values is one of all channels, or one of
    each half.

    Args:
        found: weights by the names of a backbone.
        wanted: the model's own weights.

    Returns:
        The weights, those of another form under the model's names.
    """
    names, weights = wanted.keys(), dict(found)
    places = {match.groups() for key in names if (match := _PROJECTION.fullmatch(key))}
    for place, kind in places:
        q, k, v, qkv, kv = (f"{place}.{part}.{kind}" for part in ("q", "k", "v", "qkv", "kv"))
        if qkv in weights:
            parts = weights[qkv].chunk(3)
        elif q in weights and kv in weights:
            parts = (weights[q], *weights[kv].chunk(2))
        else:
            continue
        forms = {qkv: parts, q: parts[:1], kv: parts[1:], v: parts[2:]}
        if f"{place}.k.weight" in names:
            forms = {v: parts[2:]}
        elif qkv in names & weights.keys() or {q, kv} <= names & weights.keys():
            continue  # as it is
        weights = {key: each for key, each in weights.items() if key not in (q, k, v, qkv, kv)}
        weights |= {key: torch.cat(each) for key, each in forms.items() if key in names}
    for place, kind in {match.groups() for key in names if (match := _LEPE.fullmatch(key))}:
        first, second = (f"{place}.{branch}.get_v.{kind}" for branch in (0, 1))
        if first not in weights:
            continue
        if second in weights and second not in names:
            weights[first] = torch.cat([weights[first], weights.pop(second)])
        elif second in names and len(weights[first]) == 2 * len(wanted[first]):
            weights[first], weights[second] = weights[first].chunk(2)
    return weights
