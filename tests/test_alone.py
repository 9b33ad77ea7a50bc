"""With torch and nothing else: the examples of README and docs, features, weights, attention."""

import argparse
import copy
import io
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SMALL, normal, run_without, seeded_input, small_backbone, small_pvt
from mmengine.logging import HistoryBuffer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from torch import nn
from torch.nn import functional as F

from agent_attention import AgentAttention, AgentPVT, load_backbone
from agent_attention.backbones import BACKBONES
from agent_attention.weights.read import CheckpointError

ROOT = Path(__file__).parents[1]
models = pytest.mark.parametrize("family", BACKBONES)


# --- an environment with torch alone


def with_requirements(name: str) -> set[str]:
    """A distribution and all that it requires here."""
    found, waiting = set[str](), [name]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name not in found:
            found.add(name)
            waiting += [each.name for each in required(name)]
    return found


def required(name: str) -> list[Requirement]:
    try:
        needs = [Requirement(line) for line in requires(name) or []]
    except PackageNotFoundError:  # for another platform
        return []
    return [each for each in needs if each.marker is None or each.marker.evaluate({"extra": ""})]


def all_but_torch() -> set[str]:
    """Every package that is installed here, but torch, what it requires and this toolkit."""
    kept = with_requirements("torch") | {"agent-attention"}
    installed = packages_distributions().items()
    return {name for name, by in installed if kept.isdisjoint(map(canonicalize_name, by))}


def test_the_environment_lacks_what_openmmlab_brings() -> None:
    lacking = all_but_torch()
    assert {"mmengine", "mmcv", "mmdet", "mmseg", "numpy", "cv2", "matplotlib", "PIL"} <= lacking
    assert lacking.isdisjoint({"torch", "sympy", "typing_extensions", "agent_attention"})


def examples(path: str) -> Iterator[str]:
    """The indented blocks of Python of a page, of the README of that section alone."""
    text = (ROOT / path).read_text()
    if path == "README.md":
        text = text.partition("\n## Without OpenMMLab\n")[2].partition("\n## ")[0]
    for block in re.findall(r"(?:^(?: {4}.*)?\n)+", text, re.MULTILINE):
        if "import torch" in block:
            yield re.sub(r"^ {4}", "", block, flags=re.MULTILINE).strip() + "\n"


EXAMPLES = [(path, code) for path in ("README.md", "docs/torch_only.md") for code in examples(path)]


def test_there_are_examples() -> None:
    assert [path for path, _ in EXAMPLES] == ["README.md", *["docs/torch_only.md"] * 2]
    assert len([line for line in EXAMPLES[0][1].splitlines() if line]) == 8


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights of Agent-PVT-T, wrapped as the authors publish them."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "checkpoints").mkdir()
    head = {"head.weight": torch.zeros(1000, 512), "head.bias": torch.zeros(1000)}
    content = {"model": {**AgentPVT("tiny").state_dict(), **head}, "args": argparse.Namespace(lr=1)}
    torch.save(content, folder / "checkpoints/agent_pvt_t.pth")
    return folder


@pytest.mark.parametrize(("path", "code"), EXAMPLES, ids=["readme", "features", "attention"])
def test_an_example_prints_what_it_says_with_torch_alone(
    path: str, code: str, published: Path
) -> None:
    said = [line.partition("  # ")[2].strip() for line in code.splitlines() if "print(" in line]
    assert said and all(said)
    there = f"import os; os.chdir({str(published)!r})\n"
    assert run_without(all_but_torch(), there + code).splitlines() == said


# --- features


@models
@pytest.mark.parametrize("out_indices", [(0, 1, 2, 3), (1, 3), (0,)])
def test_features_are_known_before_there_are_maps(
    family: str, out_indices: tuple[int, ...]
) -> None:
    model = small_backbone(family, out_indices=out_indices).eval()
    info = model.feature_info
    maps = model(seeded_input(1, 64, 96))
    assert [(c, 64 // s, 96 // s) for c, s, _ in info] == [tuple(map.shape[1:]) for map in maps]
    assert info.channels() == [feature.channels for feature in info]
    assert info.reduction() == [16 if family == "vit" else 4 * 2**i for i in out_indices]
    modules = [model.get_submodule(name) for name in info.module_name()]
    assert [[*module.parameters()] != [] for module in modules] == [True] * len(info)


@models
def test_a_copy_is_the_same_model(family: str) -> None:
    model = small_backbone(family).eval()
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    x = seeded_input(1, 64, 64)
    for twin in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert twin.feature_info == model.feature_info
        assert twin.feature_info.channels() == model.feature_info.channels()
        assert all(map(torch.equal, twin(x), model(x)))


# --- weights


def test_a_checkpoint_of_a_training_needs_no_openmmlab(tmp_path: Path) -> None:
    """It holds histories of losses: objects of mmengine with arrays in them."""
    weights = small_pvt().state_dict()
    losses = HistoryBuffer([1.0, 0.5], [1, 1])
    content = {
        "state_dict": {f"backbone.{name}": value for name, value in weights.items()},
        "message_hub": {"log_scalars": {"train/loss": losses}, "best": losses.mean()},
    }
    path = tmp_path / "epoch_1.pth"
    torch.save(content, path)
    code = f"""
import torch
from agent_attention import AgentPVT, load_backbone
model = AgentPVT({SMALL!r})
print(load_backbone(model, {str(path)!r}))
print(float(sum(value.double().sum() for value in model.state_dict().values())))
"""
    wanted = float(sum(value.double().sum() for value in weights.values()))
    for blocked in (all_but_torch(), {"mmengine"}):  # without NumPy and with it
        report, total = run_without(blocked, code).splitlines()
        assert report == f"{len(weights)} tensors matched, 0 resized, 0 dropped, 0 new"
        assert float(total) == pytest.approx(wanted)


def test_what_cannot_be_loaded_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = AgentPVT({**SMALL, "depths": (1, 1, 1, 1)})
    before = copy.deepcopy(model.state_dict())
    other, text = tmp_path / "other.pth", tmp_path / "text.pth"
    torch.save(small_pvt().state_dict(), other)
    text.write_text("no checkpoint")
    for path, reason in ((other, "left over"), (text, "damaged"), (tmp_path / "no", "no file")):
        with pytest.raises(CheckpointError, match=reason) as error:
            load_backbone(model, path)
        assert str(path) in str(error.value)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_function_in_a_file_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return getattr, (argparse.Namespace, "__init__")

    torch.save({"model": small_pvt().state_dict(), "evil": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"refused to read .*looks up __init__ in Namespace"):
        load_backbone(AgentPVT(SMALL), tmp_path / "evil.pth")


# --- attention in a plain transformer


class Encoder(nn.Module):
    """A block whose attention is agent attention, between an embedding and a classifier."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, dim, 4, 4)
        self.norm = nn.LayerNorm(dim)
        self.attention = AgentAttention(dim, num_heads=2)
        self.head = nn.Linear(dim, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, 2)."""
        x = self.embed(images)
        size, x = x.shape[-2:], x.flatten(2).mT  # (B, N, C)
        x = x + self.attention(self.norm(x), tuple(size))
        return self.head(x.mean(1))


def stripes() -> tuple[torch.Tensor, torch.Tensor]:
    """Images with a bright row or a bright column, somewhere, and which."""
    kinds = torch.randint(2, (16,))
    images = torch.zeros(16, 3, 32, 40)
    for image, kind in zip(images, kinds, strict=True):
        place = int(torch.randint(32, ()))
        image[(slice(None), place) if kind else (slice(None), slice(None), place)] = 3.0
    return images, kinds


def test_a_transformer_with_agent_attention_learns() -> None:
    model = Encoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        images, kinds = stripes()
        loss = F.cross_entropy(model(images), kinds)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[:10]) / 10 > 0.5 and sum(losses[-10:]) / 10 < 0.2
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("size", [(14, 14), (1, 9), (30, 22)])
def test_attention_with_its_defaults_takes_any_map(size: tuple[int, int]) -> None:
    attention = AgentAttention(dim=16, num_heads=2).eval()
    x = normal(0, (2, size[0] * size[1], 16))
    out = attention(x, size)
    assert out.shape == x.shape and out.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        half = attention(x, size)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), out, atol=0.05, rtol=0.05)
