"""The Agent-Swin backbone and its window attention."""

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SMALL_SWIN as SMALL
from helpers import gradients, normal, seed_weights, seeded_input, small_swin, train_once
from torch import Tensor, nn
from torch.nn import functional as F

from agent_attention import AgentAttention, AgentSwinTransformer
from agent_attention.backbones.swin import PatchMerging
from agent_attention.compute.guard import using
from agent_attention.mixers.windows import WindowAttention

KEYS = json.loads((Path(__file__).parents[1] / "golden" / "backbone_keys.json").read_text())
RATES = ["drop_rate", "attn_drop_rate", "drop_path_rate"]
close = torch.testing.assert_close


def blocks(model: nn.Module) -> list[Any]:
    """All blocks of the four stages, in order."""
    return [block for stage in model.layers for block in stage.blocks]


# --- names and kinds of blocks


def letters(model: nn.Module) -> list[str]:
    names = {AgentAttention: "A", WindowAttention: "B"}
    return ["".join(names[type(block.attn)] for block in stage.blocks) for stage in model.layers]


@pytest.mark.parametrize(
    ("types", "wanted"),
    [
        (None, ["A", "AA", "AA", "BB"]),
        (("A", "1A1B", "B", "2B"), ["A", "AB", "BB", "BB"]),
        (["B", "1B1A", "2A", "1A1B"], ["B", "BA", "AA", "AB"]),
        ("AABB", ["A", "AA", "BB", "BB"]),
    ],
)
def test_attention_types_choose_the_attention_of_each_block(types: Any, wanted: list[str]) -> None:
    assert letters(small_swin(attn_types=types)) == wanted


def test_long_runs_are_counted() -> None:
    arch = {**SMALL, "depths": (1, 1, 18, 1)}
    assert letters(small_swin(arch=arch, attn_types=("A", "A", "2A16B", "B")))[2] == "AA" + 16 * "B"
    many = letters(small_swin(arch=arch, attn_types=("A", "A", "3B12A1B2A", "B")))[2]
    assert many == "BBB" + 12 * "A" + "B" + "AA"


@pytest.mark.parametrize(
    ("window_size", "window", "shift"),
    [(56, 7, 3), (1, 7, 3), (72, 9, 4), (95, 11, 5), (96, 12, 6)],
)
def test_windows_of_odd_blocks_are_shifted_by_half(
    window_size: int, window: int, shift: int
) -> None:
    attention = [
        block.attn for block in blocks(small_swin(attn_types="B" * 4, window_size=window_size))
    ]
    assert {attn.window for attn in attention} == {window}
    assert [attn.shift for attn in attention] == [0, 0, shift, 0, shift, 0, shift]
    mixed = small_swin(window_size=window_size)
    assert mixed.layers[1].blocks[1].attn.shift == shift


def test_a_larger_pretraining_image_makes_larger_tables() -> None:
    model = small_swin(pretrain_img_size=288, window_size=72)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    for name, heads, side, agents in [
        ("layers.0.blocks.0.attn", 1, 72, 9),
        ("layers.1.blocks.0.attn", 2, 36, 16),
    ]:
        assert shapes[f"{name}.ah_bias"] == (1, heads, agents, side, 1)
        assert shapes[f"{name}.aw_bias"] == (1, heads, agents, 1, side)
        assert shapes[f"{name}.ha_bias"] == (1, heads, side, 1, agents)
        assert shapes[f"{name}.wa_bias"] == (1, heads, 1, side, agents)
        assert shapes[f"{name}.an_bias"] == shapes[f"{name}.na_bias"] == (heads, agents, 7, 7)
    for name, heads in [("1.blocks.1", 2), ("2.blocks.0", 2), ("3.blocks.1", 4)]:
        assert shapes[f"layers.{name}.attn.relative_position_bias_table"] == (17 * 17, heads)
        assert shapes[f"layers.{name}.attn.relative_position_index"] == (81, 81)
    with torch.no_grad():
        outs = model.eval()(seeded_input(1, 100, 70))
    assert [tuple(out.shape[2:]) for out in outs] == [(25, 18), (13, 9), (7, 5), (4, 3)]
    assert all(out.isfinite().all() for out in outs)


def test_defaults_are_the_published_grids() -> None:
    model = AgentSwinTransformer()
    shapes = [stage.blocks[0].attn.agent_shape for stage in model.layers[:3]]
    assert shapes == [(9, 9), (12, 12), (14, 14)]


# --- maps


@pytest.mark.parametrize("size", [(33, 47), (35, 45), (64, 97)])
def test_images_are_padded_with_zeros_right_and_bottom(size: tuple[int, int]) -> None:
    model, image = small_swin().eval(), seeded_input(1, *size)
    padded = torch.zeros(1, 3, *(-(-side // 4) * 4 for side in size))
    padded[:, :, : size[0], : size[1]] = image
    with torch.no_grad():
        close(model(image), model(padded))


@pytest.mark.parametrize("size", [(6, 4), (5, 4), (4, 7), (3, 3), (1, 2)])
def test_merging_joins_down_before_right(size: tuple[int, int]) -> None:
    merging = seed_weights(PatchMerging(4))
    height, width = size
    x = normal(5, (2, height * width, 4))
    with torch.no_grad():
        found, new_size = merging(x, size)
    rows, columns = (height + 1) // 2, (width + 1) // 2
    assert new_size == (rows, columns)

    def pixel(image: Tensor, row: int, column: int) -> Tensor:
        inside = row < height and column < width
        return image[row * width + column] if inside else torch.zeros(4)

    joined = [
        torch.cat(
            [pixel(image, 2 * r + down, 2 * c + right) for right in (0, 1) for down in (0, 1)]
        )
        for image in x
        for r in range(rows)
        for c in range(columns)
    ]
    tokens = F.layer_norm(torch.stack(joined), (16,), merging.norm.weight, merging.norm.bias, 1e-5)
    wanted = (tokens @ merging.reduction.weight.t()).unflatten(0, (2, rows * columns))
    close(found, wanted, rtol=1e-5, atol=1e-5)


# --- window attention


def neighbours(
    position: tuple[int, int], size: tuple[int, int], window: int, shift: int
) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """The pixels a pixel attends to, each with the offset (down, right) from it to the pixel.

    Along either axis a window begins at a multiple of the window's side, moved by the shift;
    the first ones are cut off by the border: what is cut off at the end never joins the beginning.
    """
    ranges = []
    for place, side in zip(position, size, strict=True):
        begin = (place - shift) // window * window + shift  # may be negative: cut off at 0
        ranges.append(range(max(begin, 0), min(begin + window, side)))
    for other in product(*ranges):
        yield other, (position[0] - other[0], position[1] - other[1])


def plain_window_attention(attn: WindowAttention, x: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixel by pixel over the map padded with zeros: tokens (N, C) -> (N, C)."""
    m, heads = attn.window, attn.num_heads
    padded = tuple(-(-side // m) * m for side in size)
    grid = torch.zeros(*padded, x.shape[1])
    grid[: size[0], : size[1]] = x.unflatten(0, size)
    q, k, v = F.linear(grid, attn.qkv.weight, attn.qkv.bias).unflatten(2, (3, heads, -1)).unbind(2)
    table = attn.relative_position_bias_table
    out = []
    for position in product(range(size[0]), range(size[1])):
        near = list(neighbours(position, padded, m, attn.shift))
        keys = torch.stack([k[other] for other, _ in near])  # (n, h, d)
        values = torch.stack([v[other] for other, _ in near])
        rows = [(down + m - 1) * (2 * m - 1) + right + m - 1 for _, (down, right) in near]
        logits = (q[position] * keys).sum(-1) / keys.shape[-1] ** 0.5 + table[rows]  # (n, h)
        out.append((logits.softmax(0)[:, :, None] * values).sum(0).flatten())
    return F.linear(torch.stack(out), attn.proj.weight, attn.proj.bias)


@pytest.mark.parametrize("size", [(6, 9), (5, 7), (4, 4), (3, 3), (2, 1), (1, 8)], ids=str)
@pytest.mark.parametrize(("window", "shift"), [(3, 0), (3, 1), (4, 2), (7, 3)])
def test_window_attention_is_that_of_each_pixel_and_its_neighbours(
    window: int, shift: int, size: tuple[int, int]
) -> None:
    attn = seed_weights(WindowAttention(8, 2, window, shift)).eval()
    x = normal(5, (2, size[0] * size[1], 8))
    with torch.no_grad():
        wanted = torch.stack([plain_window_attention(attn, tokens, size) for tokens in x])
        close(attn(x, size), wanted, rtol=1e-4, atol=1e-5)


def test_window_attention_without_a_bias_has_none() -> None:
    attn = WindowAttention(8, 2, 7, 3, qkv_bias=False)
    assert attn.qkv.bias is None and attn.proj.bias is not None


def test_window_attention_refuses_channels_that_heads_cannot_share() -> None:
    with pytest.raises(ValueError, match="dim=8 is not a multiple of num_heads=3"):
        WindowAttention(8, 3, 7, 3)


def test_alternating_sizes_do_not_disturb_each_other() -> None:
    model = small_swin(attn_types="BBBB").eval()
    images = [seeded_input(1, *size) for size in [(64, 97), (97, 64), (33, 47), (224, 96)]]
    with torch.no_grad():
        again = [model(image) for _ in range(2) for image in images]
        with using(way="plain"):
            alone = [model(image) for image in images]
    close(again, alone * 2, rtol=1e-5, atol=1e-5)


def test_masks_made_in_inference_mode_serve_training() -> None:
    wanted, found = small_swin(attn_types="BBBB"), small_swin(attn_types="BBBB")
    with torch.inference_mode():
        found.eval()(seeded_input(2, 64, 97))
    train_once(found)
    train_once(wanted)
    close(gradients(found), gradients(wanted))


def test_a_mask_is_no_part_of_the_state() -> None:
    assert not [key for key in small_swin().state_dict() if "mask" in key]


# --- training


def test_stages_without_an_output_norm_can_be_frozen() -> None:
    model = small_swin(frozen_stages=2, out_indices=(1, 2))
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert "norm1.weight" in frozen and "norm2.weight" not in frozen
    assert "layers.1.downsample.reduction.weight" in frozen
