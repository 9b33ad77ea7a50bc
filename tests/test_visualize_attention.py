"""The maps that are drawn are those of the attention, and the picture shows what it says."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import (
    SMALL_BACKBONES,
    agent_attention,
    normal,
    seed_weights,
    small_pvt,
    tokens,
)
from PIL import Image
from tool_runs import CONFIGS, TASKS
from torch.nn import functional as F

from agent_attention import AgentAttention
from agent_attention.backbones.pvt import AgentPVT
from agent_attention.maps import attention_maps, recorded_maps
from agent_attention.mixers.class_token import ClassTokenAgentAttention
from agent_toolkit.commands import attention as visualize_attention
from mmengine_agent.agent_picture import View, agent_modules, cell, draw, view_of
from mmengine_agent.errors import UserError
from mmengine_agent.run.exit import run_tool

close = torch.testing.assert_close


# --- the maps


@pytest.mark.parametrize(
    ("kind", "joint"),
    [(AgentAttention, False), (AgentAttention, True), (ClassTokenAgentAttention, True)],
)
def test_maps_times_values_are_the_attention(kind: type[AgentAttention], joint: bool) -> None:
    options: dict[str, Any] = {"base_grid": 3, "agent_shape": (3, 4), "table_shape": (7, 7)}
    attn, size = seed_weights(kind(8, 2, joint_qkv=joint, **options)).eval(), (5, 6)
    front = int(kind is ClassTokenAgentAttention)
    x = normal(5, (2, front + 30, 8))
    maps = attention_maps(attn, x, size)
    assert maps.class_tokens == front
    *_, v = attn.project(x, size)
    values = attn.split_heads(v)
    out = (maps.broadcast @ (maps.aggregate @ values)).transpose(1, 2).flatten(2)
    close(attn.proj(out + attn.detail(v, size)), attn(x, size), rtol=1e-5, atol=1e-5)


def test_maps_of_given_projections_are_those_of_projected_tokens() -> None:
    attn, size = agent_attention(), (5, 6)
    x = tokens(size)
    one, other = (attention_maps(attn, y, size) for y in (x, tuple(attn.project(x, size))))
    close(one.aggregate, other.aggregate)
    close(one.broadcast, other.broadcast)


def test_what_reaches_a_token_is_the_product_of_both_maps() -> None:
    attn, size = agent_attention(), (5, 6)
    maps = attention_maps(attn, tokens(size), size)
    reach = maps.reach(7)
    close(reach, (maps.broadcast @ maps.aggregate)[:, :, 7])
    for weights in (maps.aggregate, maps.broadcast, reach):
        close(weights.sum(-1), torch.ones(weights.shape[:-1]))


def test_every_call_is_recorded_until_the_end() -> None:
    model = small_pvt().eval()
    attn = model.block2[1].attn
    with recorded_maps(attn) as found:
        for side in (64, 96):
            model(torch.zeros(1, 3, side, 64))
    model(torch.zeros(1, 3, 64, 64))
    assert [maps.size for maps in found] == [(8, 8), (12, 8)]
    with (
        pytest.raises(TypeError, match="no agents in Linear"),
        recorded_maps(torch.nn.Linear(1, 1)),
    ):
        pass


# --- the picture


def view(pixel: tuple[float, float] = (20, 12)) -> View:
    """A map of 5 x 6 places of 8 pixels, and 2 x 3 agents; agent (1, 2) serves most."""
    numbers = np.random.RandomState(0)
    serve = np.array([[0.1, 0.2, 0.15], [0.05, 0.12, 0.38]])
    image = numbers.randint(0, 255, (40, 48, 3), dtype=np.uint8)
    return View(image, numbers.rand(2, 3, 5, 6), serve, numbers.rand(5, 6), pixel, 8)


def test_agents_are_drawn_from_the_strongest_on() -> None:
    figure = draw(view(), agents=5)
    titles = [ax.get_title() for ax in figure.axes if ax.get_title().startswith("agent (")]
    assert titles[:2] == ["agent (1, 2) serves 38.0%", "agent (0, 1) serves 20.0%"]
    assert len(titles) == 5
    every = [ax.get_title() for ax in draw(view(), agents=99).axes]
    assert sum(title.startswith("agent (") for title in every) == 6


def test_a_cell_is_what_its_agent_is_pooled_from() -> None:
    shown = view()
    for row, column in np.ndindex(2, 3):
        box = cell(shown, row, column)
        inside = np.zeros((5, 6))
        (left, top), width, height = box.get_xy(), box.get_width(), box.get_height()
        rows = slice(int(top / 8), int((top + height) / 8))
        inside[rows, int(left / 8) : int((left + width) / 8)] = 1
        pooled = F.adaptive_avg_pool2d(torch.from_numpy(inside)[None], (2, 3))[0]
        assert pooled[row, column] == 1
        grown = inside.sum() / (width * height / 64)
        assert grown == 1


# --- the tool


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    numbers = np.random.RandomState(1).randint(0, 255, (120, 200, 3), dtype=np.uint8)
    Image.fromarray(numbers).save(path)
    return path


def run(monkeypatch: pytest.MonkeyPatch, task: str, photo: Path, *flags: str) -> tuple[int, Path]:
    """The exit code, and the picture wanted."""
    out = photo.parent / "deep/attention.png"
    config = str(CONFIGS / TASKS[task].config)
    monkeypatch.setattr(sys, "argv", ["", config, "none", str(photo), "--out", str(out), *flags])
    with pytest.raises(SystemExit) as caught:
        run_tool(visualize_attention.main)
    return int(caught.value.code or 0), out


@pytest.mark.parametrize("task", TASKS)
def test_a_picture_is_drawn(task: str, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out = run(
        monkeypatch, task, photo, "--stage", "2", "--agents", "4", "--pixel", "199", "0"
    )
    assert code == 0
    with Image.open(out) as picture:
        assert picture.width > 1000
        assert len(np.unique(np.asarray(picture.convert("L")))) > 100
    assert [path.name for path in out.parent.iterdir()] == ["attention.png"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--pixel", "200", "0"], ["--pixel 200 0", "200 x 120"]),
        (["--head", "5"], ["--head 5", "0 to 4"]),
        (["--block", "2"], ["--block 2", "0 to 1"]),
        (["--device", "nowhere"], ["--device nowhere"]),
        (
            ["--stage", "4", "--cfg-options", "model.backbone.attn_types=AAAB"],
            ["--stage 4", "stages with: 1, 2, 3"],
        ),
        (["--cfg-options", "model.backbone.arch=huge"], ["huge"]),
    ],
)
def test_a_mistake_is_one_message(
    flags: list[str],
    words: list[str],
    photo: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out = run(monkeypatch, "segmentation", photo, *flags)
    message = capsys.readouterr().err
    assert code == 1 and message.startswith("error: ") and not out.exists()
    assert all(word in message for word in words), message


@pytest.mark.parametrize("content", [None, b"no picture"])
def test_a_missing_or_broken_image_is_named(
    content: bytes | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photo = tmp_path / "mine.jpg"
    if content:
        photo.write_bytes(content)
    code, _ = run(monkeypatch, "segmentation", photo)
    assert code == 1 and "mine.jpg" in capsys.readouterr().err


@pytest.mark.parametrize("family", SMALL_BACKBONES)
def test_a_picture_is_drawn_of_every_backbone_that_has_agents(family: str) -> None:
    model = SMALL_BACKBONES[family]().eval()
    x = normal(7, (1, 3, 64, 96))
    if not any(isinstance(module, AgentAttention) for module in model.modules()):
        with pytest.raises(UserError, match=f"{type(model).__name__} has no agents"):
            agent_modules(model, 1)
        return
    (attn,) = agent_modules(model, 1)
    with recorded_maps(attn) as found:
        model(x)
    image = np.zeros((64, 96, 3), np.uint8)
    shown = view_of(found[0], image, (95, 3), model.strides[0])
    assert shown.reach.shape == found[0].size == (64 // model.strides[0], 96 // model.strides[0])
    assert shown.gather.shape == (*found[0].agent_shape, *found[0].size)
    # a class token takes its part, which is not drawn
    assert np.allclose(shown.gather.sum((2, 3)), 1) == (not found[0].class_tokens)
    assert np.isclose(shown.serve.sum(), 1)
    last = found[0].broadcast[0, :, found[0].class_tokens + found[0].size[1] - 1].mean(0)
    close(torch.from_numpy(shown.serve).flatten(), last)  # of the first row, the last place
    assert draw(shown, agents=2).axes


def test_other_backbones_have_no_agents() -> None:
    with pytest.raises(UserError, match="Linear has no agents"):
        agent_modules(torch.nn.Linear(1, 1), 1)
    assert len(agent_modules(AgentPVT("tiny"), 4)) == 2
