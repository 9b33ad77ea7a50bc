"""What the tests share: values that follow from names and shapes, a small backbone, processes."""

import math
import subprocess
import sys
import zlib
from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from agent_attention import AgentAttention, AgentPVT, AgentSwinTransformer
from agent_attention.backbones import BACKBONES
from agent_attention.backbones.block import Block

Model = TypeVar("Model", bound=nn.Module)

SMALL: dict[str, tuple[int, ...]] = {
    "embed_dims": (8, 16, 24, 32),
    "num_heads": (1, 2, 3, 4),
    "mlp_ratios": (2, 2, 2, 2),
    "depths": (1, 2, 1, 1),
}
SMALL_GRIDS = ((3, 4), (5, 4), (7, 7), (6, 8))
SMALL_SWIN: dict[str, Any] = {"embed_dim": 8, "depths": (1, 2, 2, 2), "num_heads": (1, 2, 2, 4)}
SMALL_CSWIN: dict[str, Any] = {"embed_dim": 8, "depths": (1, 2, 2, 1), "num_heads": (2, 2, 4, 4)}
SMALL_VIT: dict[str, Any] = {"embed_dim": 8, "depth": 4, "num_heads": 2, "base_grid": 3}
SWIN_TYPES = ("A", "1A1B", "B", "B")
RATES = ["drop_rate", "attn_drop_rate", "drop_path_rate"]
TABLES = ["an_bias", "ah_bias", "aw_bias", "na_bias", "ha_bias", "wa_bias"]

# one row a family of ``BACKBONES``: the generic tests loop over these
SMALL_ARCHS: dict[str, dict[str, Any]] = {
    "pvt": SMALL,
    "swin": SMALL_SWIN,
    "vit": SMALL_VIT,
    "cswin": SMALL_CSWIN,
    "flatten_pvt": SMALL,
    "flatten_pvt_v2": SMALL,
    "flatten_swin": SMALL_SWIN,
    "flatten_cswin": SMALL_CSWIN,
}
# arguments of a small backbone beside ``arch``; those of the others are grids
SMALL_OPTIONS: dict[str, dict[str, Any]] = {
    "swin": {"agent_shapes": SMALL_GRIDS, "attn_types": SWIN_TYPES},
    # blocks in the place of stages, each with a map
    "vit": {"agent_shape": (3, 4), "out_indices": (0, 1, 2, 3)},
}


def small_backbone(family: str, **arguments: Any) -> Any:
    """A backbone of ``BACKBONES`` that runs in milliseconds, with seeded weights."""
    defaults = SMALL_OPTIONS.get(family, {"agent_shapes": SMALL_GRIDS})
    return seed_weights(BACKBONES[family](**{"arch": SMALL_ARCHS[family], **defaults, **arguments}))


def small_pvt(**arguments: Any) -> AgentPVT:
    """A small Agent-PVT."""
    return small_backbone("pvt", **arguments)


def small_swin(**arguments: Any) -> AgentSwinTransformer:
    """A small Agent-Swin."""
    return small_backbone("swin", **arguments)


SMALL_BACKBONES: dict[str, Callable[..., Any]] = {
    family: partial(small_backbone, family) for family in SMALL_ARCHS
}


def mixers_of(block: Any) -> list[Any]:
    """The mixers of a block: several where they share its channels, as in CSwin."""
    return [*block.attns] if block.attn is None else [block.attn]


def in_all_stages(family: str, *mixers: Any) -> dict[str, Any]:
    """The argument ``mixers`` with these, one after the other, in the four stages or blocks."""
    four = [mixers[i % len(mixers)] for i in range(4)]
    return {"mixers": ", ".join(f"1 {each}" for each in four) if family == "vit" else four}


def blocks_of(model: nn.Module) -> list[Any]:
    """All blocks, in order."""
    return [module for module in model.modules() if isinstance(module, Block)]


def agent_attention(**changes: Any) -> AgentAttention:
    """A seeded module in evaluation mode: 8 channels, 2 heads, 3x3 base agents, 7x7 tables."""
    options = {"dim": 8, "num_heads": 2, "base_grid": 3, "agent_shape": (3, 3)}
    options["table_shape"] = (7, 7)
    return seed_weights(AgentAttention(**{**options, **changes})).eval()


def tokens(size: tuple[int, int], dim: int = 8, batch: int = 2) -> Tensor:
    """Tokens (B, N, C) of a map of the given size."""
    return normal(5, (batch, size[0] * size[1], dim))


def weighted(outs: Iterable[Tensor]) -> Tensor:
    """A loss that depends on each value of each tensor, with a weight of its own."""
    losses = [(out * normal(13 + i, tuple(out.shape)).to(out)).sum() for i, out in enumerate(outs)]
    return torch.stack(losses).sum()


def train_once(model: nn.Module, seed: int = 3) -> tuple[Tensor, ...]:
    """Maps of two images in training mode, and gradients left in the parameters."""
    torch.manual_seed(seed)
    outs = model.train()(seeded_input(2, 64, 97))
    losses = [(out * normal(13 + i, tuple(out.shape))).mean() for i, out in enumerate(outs)]
    torch.stack(losses).sum().backward()
    return outs


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


class Largest(TorchDispatchMode):
    """Notes the number of values of the largest tensor that any operation gives."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        self.numel = max([self.numel, *sizes])
        return out


def seed_weights(model: Model) -> Model:
    """Give every parameter the values of its name and shape (golden/README.md); return the model.

    All tables get values of order 1, so that no term is too small to be seen, as it would be with
    the initialisation for training.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = _values(name, tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(np.asarray(values)))
    return model


def seeded_tensor(name: str, shape: Iterable[int]) -> Tensor:
    """The values that ``seed_weights`` gives a parameter of that name and shape."""
    return on_device(_values(name, tuple(shape)))


def seeded_input(batch: int, height: int, width: int) -> Tensor:
    """Images (batch, 3, height, width)."""
    return normal(7, (batch, 3, height, width))


def normal(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal float32 numbers."""
    return on_device(_normal(seed, shape))


def on_device(values: np.ndarray) -> Tensor:
    """Numbers as a tensor on the device that ``pytest --device`` names, else the CPU."""
    return torch.as_tensor(values, device=torch.get_default_device())


def run_without(blocked: Collection[str], code: str) -> str:
    """What code prints in a fresh process where the blocked packages are not installed."""
    finder = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {set(blocked)!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
"""
    command = [sys.executable, "-W", "ignore", "-c", finder + code]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _normal(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def _values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    x = _normal(zlib.crc32(name.encode()), shape)
    last = name.rpartition(".")[2]
    if last.endswith("_bias") or last == "relative_position_bias_table":
        return 0.5 * x
    if last.startswith(("pos_embed", "positional_encoding")):
        return 0.2 * x
    if last == "scale":
        return 0.5 * x
    if x.ndim == 1:
        return 1 + 0.1 * x if last == "weight" else 0.1 * x
    return x / np.float32(math.sqrt(math.prod(shape[1:])))  # of (h, 1, 1): as they are
