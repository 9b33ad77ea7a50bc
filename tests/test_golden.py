"""Features and gradients are those of the method's reference implementation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import normal, seed_weights, seeded_input
from torch import Tensor, nn

from agent_attention import AgentPVT, AgentSwinTransformer

pytestmark = pytest.mark.usefixtures("always_tiles")

GOLDEN = Path(__file__).parent / "golden"
# one row a variant; its cases are in golden/features_<variant>.json
VARIANTS: dict[str, Callable[..., nn.Module]] = {
    "pvt_t": lambda **options: AgentPVT("tiny", **options),
    "swin_t": lambda **options: AgentSwinTransformer("tiny", **options),
}
Case = dict[str, Any]
CASES: list[Case] = [
    case
    for variant in VARIANTS
    for case in json.loads((GOLDEN / f"features_{variant}.json").read_text())
]


def title(case: Case) -> str:
    return f"{case['variant']}-{case['batch']}x{case['height']}x{case['width']}"


def run(case: Case) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The backbone of a case and its maps."""
    options = {"agent_shapes": case["agent_shapes"]} if case["agent_shapes"] else {}
    model = seed_weights(VARIANTS[case["variant"]](**options)).eval()
    return model, model(seeded_input(case["batch"], case["height"], case["width"]))


@pytest.mark.parametrize("case", CASES, ids=title)
def test_features_are_those_of_the_reference(case: Case) -> None:
    with torch.no_grad():
        outs = run(case)[1]
    assert [list(out.shape) for out in outs] == [want["shape"] for want in case["outs"]]
    for out, want in zip(outs, case["outs"], strict=True):
        values = out.double().flatten().cpu().numpy()
        samples = values[np.random.RandomState(11).randint(0, values.size, 48)]
        assert samples == pytest.approx(want["samples"], rel=0, abs=2e-4)
        found = [values.mean(), values.std(), np.abs(values).max()]
        wanted = [want["mean"], want["std"], want["absmax"]]
        assert found == pytest.approx(wanted, rel=0, abs=2e-4)


@pytest.mark.parametrize("case", [c for c in CASES if "grad_norms" in c], ids=title)
def test_gradients_are_those_of_the_reference(case: Case) -> None:
    model, outs = run(case)
    weighted = [(out * normal(13 + i, tuple(out.shape))).mean() for i, out in enumerate(outs)]
    torch.stack(weighted).sum().backward()

    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    without = {name for name, gradient in gradients.items() if gradient is None}
    assert without == set(case["no_grad"])
    assert gradients.keys() - without == case["grad_norms"].keys()
    norms = {name: gradients[name].norm().item() for name in case["grad_norms"]}
    assert norms == pytest.approx(case["grad_norms"], rel=1e-3, abs=0)


def test_every_file_of_features_is_tested() -> None:
    files = {path.stem for path in GOLDEN.glob("features_*.json")}
    assert files == {f"features_{variant}" for variant in VARIANTS}
