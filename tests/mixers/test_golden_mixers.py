"""Values and gradients of single mixers are those of the reference implementations."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from golden_cases import Case, check_gradients, check_summary, read
from helpers import normal, seed_weights
from torch import Tensor, nn

from agent_attention.backbones.cswin import CSwinBlock
from agent_attention.mixers import MIXERS, AgentAttention, Mixer
from agent_attention.mixers.class_token import ClassTokenAgentAttention
from agent_attention.mixers.focused import FocusedAttention
from agent_attention.mixers.stripes import Stripes

MIXED: list[Case] = read("mixers")
MODULES: list[Case] = read("modules")


def title(case: Case) -> str:
    options = case["options"] if "mixer" in case else case["args"]
    values = [f"{value}" for value in options.values()]
    return "-".join([case.get("mixer") or case["module"], *values])


def parameters(module: nn.Module) -> dict[str, list[int]]:
    return {name: list(p.shape) for name, p in module.named_parameters()}


# --- as ``MIXERS`` has them


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("case", MIXED, ids=title)
def test_mixers_are_those_of_the_reference(case: Case, dtype: torch.dtype) -> None:
    exact = dtype == torch.float64
    mixer = seed_weights(MIXERS[case["mixer"]](**case["options"])).to(dtype)
    assert parameters(mixer) == case["parameters"]
    size = (case["height"], case["width"])
    x = normal(7, (case["batch"], size[0] * size[1], case["options"]["dim"])).to(dtype)
    out = mixer(x, size)
    check_summary(out, case, 1e-7 if exact else 1e-5)
    (out * normal(13, tuple(out.shape)).to(dtype)).mean().backward()
    check_gradients(mixer.named_parameters(), case["grad_norms"], rel=1e-4)


def test_every_mixer_of_afts_and_transnormers_has_a_case() -> None:
    wanted = {name for name in MIXERS if name.startswith(("aft", "norm", "diag"))}
    assert {case["mixer"] for case in MIXED} == wanted


# --- as the backbones have them


def mixer_of(case: Case) -> Mixer:
    """The mixer of a case, by the authors' arguments."""
    args, dim = dict(case["args"]), case["input"][-1]
    module, heads, side = case["module"], args.pop("num_heads"), args.get("side", 0)
    grid = (math.isqrt(args.get("agent_num", 0)),) * 2
    agents = {"base_grid": grid[0], "agent_shape": grid}
    if module == "agent_deit":
        table = (args["window"], args["window"])
        return ClassTokenAgentAttention(dim, heads, **agents, table_shape=table, joint_qkv=True)
    table = (side, side)
    if module == "agent_cswin":
        agents |= {"table_shape": table, "detail": False, "projections": False}
        return AgentAttention(dim, heads, **agents)  # type: ignore[arg-type]
    if module == "cswin_lepe":
        return Stripes(dim, heads, args["split"], args["stripe"] == "vertical", 0.0)
    changes = {
        "focused_pvt": {"reduction": args.get("sr_ratio", 1)},
        "focused_swin": {"joint_qkv": True},
        "focused_cswin": {"projections": False},
    }[module]
    options = {"table_shape": table, "factor": args["factor"], "kernel": args["kernel"]}
    return FocusedAttention(dim, heads, **options, **changes)


class InBlock(nn.Module):
    """A mixer in a block of CSwin whose own projections change nothing."""

    def __init__(self, mixer: Mixer, dim: int) -> None:
        super().__init__()
        self.block: Any = CSwinBlock(dim, mixer, 4, 0.0, 0.0, 1e-5)
        self.block.norm1 = self.block.qkv = self.block.proj = nn.Identity()

    def forward(self, qkv: Tensor, size: tuple[int, int]) -> Tensor:
        """q, k and v (3, B, N, C) -> (B, N, C)."""
        out: Tensor = self.block.mix(torch.cat(qkv.unbind(), -1), size)
        return out


@pytest.mark.parametrize("case", MODULES, ids=title)
def test_modules_are_those_of_the_reference(case: Case) -> None:
    mixer = mixer_of(case)
    forward: Callable[..., Tensor] = mixer
    if case["module"] == "cswin_lepe":  # one of the two branches of a block
        forward = lambda qkv, size: mixer.mix(*qkv, size)  # noqa: E731
    elif len(case["input"]) == 4:
        forward = InBlock(mixer, case["input"][-1])
    seed_weights(mixer).eval()
    assert parameters(mixer) == case["parameters"]
    x = normal(7, tuple(case["input"])).requires_grad_()
    side = case["args"].get("side") or case["args"]["window"]
    out = forward(x, tuple(case["size"] or (side, side)))
    check_summary(out, case["outs"][0], 2e-4)
    (out * normal(13, tuple(out.shape))).mean().backward()
    check_gradients(mixer.named_parameters(), case["grad_norms"])
    assert x.grad is not None
    check_summary(x.grad * out.numel(), case["input_grad"], 2e-4)


def test_every_kind_of_module_has_a_case() -> None:
    kinds = {"agent_deit", "agent_cswin", "cswin_lepe"}
    assert {c["module"] for c in MODULES} == {
        *kinds,
        *map("focused_{}".format, ("pvt", "swin", "cswin")),
    }
