"""The golden files of the further backbones and of the mixers: how they are read and compared."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from agent_attention.backbones import BACKBONES, Backbone

GOLDEN = Path(__file__).parent / "golden"
Case = dict[str, Any]
# of each variant's name in the files, before the last part: the name in ``BACKBONES``
FAMILIES = {
    "agent_deit": "vit",
    "agent_cswin": "cswin",
    "flatten_pvt": "flatten_pvt",
    "flatten_pvt_v2": "flatten_pvt_v2",
    "flatten_swin": "flatten_swin",
    "flatten_cswin": "flatten_cswin",
}


def read(name: str) -> Any:
    """The content of a file of tests/golden."""
    return json.loads((GOLDEN / f"{name}.json").read_text())


def architecture(variant: str) -> tuple[type[Backbone], str]:
    """The class and ``arch`` of a variant such as 'agent_deit_t' or 'flatten_pvt_v2_b0'."""
    family, _, last = variant.rpartition("_")
    cls = BACKBONES[FAMILIES[family]]
    (arch,) = (arch for arch in cls.ARCHS if last in (arch, arch[0]))
    return cls, arch


def build(variant: str, **options: Any) -> Any:
    """The backbone of a variant."""
    cls, arch = architecture(variant)
    return cls(arch, **options)  # type: ignore[arg-type, call-arg]


def spread(patterns: Mapping[str, Any], depths: Mapping[str, int]) -> dict[str, Any]:
    """Values by name, of values by pattern: 'blocks.*.norm1.bias' stands for that of each block.

    Args:
        patterns: '*' is every block, 'odd' every second one, '0-3' the first four.
        depths: blocks by what comes before their number.
    """
    found = {}
    for pattern, value in patterns.items():
        match = re.fullmatch(r"(.*)\.(\*|odd|\d+-\d+)\.(.*)", pattern)
        if match is None:
            found[pattern] = value
            continue
        before, which, after = match.groups()
        blocks = range(depths[before])
        if which == "odd":
            blocks = blocks[1::2]
        elif which != "*":
            first, last = map(int, which.split("-"))
            blocks = blocks[first : last + 1]
        found |= {f"{before}.{block}.{after}": value for block in blocks}
    return found


def published_keys() -> dict[str, dict[str, list[int]]]:
    """Names and shapes of the classifiers' files, by variant."""
    files = read("families_keys")

    def patterns(variant: str) -> dict[str, list[int]]:
        entry = files[variant]
        return {**(patterns(entry["like"]) if "like" in entry else {}), **entry["keys"]}

    return {variant: spread(patterns(variant), each["depths"]) for variant, each in files.items()}


def spread_norms(patterns: Mapping[str, Any]) -> dict[str, float]:
    """Norms by name, of lists with one for each block by pattern, as 'blocks.*.norm1.bias'."""
    found = {}
    for pattern, value in patterns.items():
        for i, norm in enumerate(value if isinstance(value, list) else [value]):
            found[pattern.replace("*", str(i), 1)] = norm
    return found


def check_summary(out: Tensor, want: Mapping[str, Any], tolerance: float) -> None:
    """A tensor has the shape, the statistics and the 48 samples of a summary."""
    assert list(out.shape) == want["shape"]
    values = out.detach().double().flatten().cpu().numpy()
    samples = values[np.random.RandomState(11).randint(0, values.size, 48)]
    assert samples == pytest.approx(want["samples"], rel=0, abs=tolerance)
    found = [values.mean(), values.std(), np.abs(values).max()]
    wanted = [want["mean"], want["std"], want["absmax"]]
    assert found == pytest.approx(wanted, rel=1e-6, abs=tolerance)


def check_gradients(
    named: Iterable[tuple[str, nn.Parameter]], wanted: Mapping[str, float], rel: float = 1e-3
) -> None:
    """The norms of the gradients of named parameters, all of which have one."""
    norms = {
        name: float("nan") if p.grad is None else p.grad.double().norm().item() for name, p in named
    }
    assert norms == pytest.approx(dict(wanted), rel=rel, abs=1e-9)
