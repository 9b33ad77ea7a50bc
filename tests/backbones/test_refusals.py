"""What the backbones refuse: each error names the argument and what is allowed."""

import re
from typing import Any

import pytest
import torch
from helpers import SMALL, SMALL_GRIDS, SMALL_SWIN, seeded_input, small_pvt, small_swin

from agent_attention import AgentPVT, AgentSwinTransformer

RATES = ["drop_rate", "attn_drop_rate", "drop_path_rate"]
close = torch.testing.assert_close


# --- Agent-PVT


def test_unknown_arguments_are_refused_with_a_list_of_the_known() -> None:
    with pytest.raises(TypeError) as error:
        AgentPVT(num_classes=80, agent_shape=(7, 7))
    message = str(error.value)
    assert message.startswith("AgentPVT does not take 'num_classes', 'agent_shape'; it takes ")
    takes = message.partition("it takes ")[2].split(", ")
    assert {"arch", "agent_shapes", "attn_types", "pretrain_img_size", "out_indices"} <= {*takes}
    assert {*RATES, "frozen_stages", "with_cp"} <= {*takes}
    assert "unknown" not in takes and "self" not in takes


@pytest.mark.parametrize("arch", ["huge", "pvt_t", "", None, 5])
def test_an_unknown_arch_is_refused_with_the_names_of_the_known(arch: Any) -> None:
    with pytest.raises(ValueError, match=r"arch.*'tiny', 'small', 'medium', 'large'"):
        AgentPVT(arch)


@pytest.mark.parametrize("change", [{"depths": None}, {"width": (1, 1, 1, 1)}])
def test_an_arch_of_other_keys_is_refused(change: dict[str, Any]) -> None:
    arch = {key: value for key, value in {**SMALL, **change}.items() if value}
    keys = re.escape("['depths', 'embed_dims', 'mlp_ratios', 'num_heads']")
    with pytest.raises(ValueError, match=f"arch takes exactly the keys {keys}"):
        AgentPVT(arch)


@pytest.mark.parametrize("key", SMALL)
@pytest.mark.parametrize(
    "value",
    [(2, 2, 2), (2,) * 5, (2, 2, 2, 0), (2, 2, 2, -2), (2, 2, 2, 2.0), 2, "2222", (True,) * 4],
)
def test_an_arch_without_four_positive_integers_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"arch\['{key}'\] must be four positive integers"):
        AgentPVT({**SMALL, key: value})


@pytest.mark.parametrize("types", ["AAAA", "BBBB"])
def test_channels_that_heads_cannot_share_are_refused(types: str) -> None:
    with pytest.raises(ValueError, match="dim=16 is not a multiple of num_heads=3"):
        AgentPVT({**SMALL, "num_heads": (1, 3, 3, 4)}, attn_types=types)


GOOD = (7, 7)


@pytest.mark.parametrize(
    "shapes",
    [
        (GOOD, GOOD, GOOD),
        (GOOD,) * 5,
        (GOOD, GOOD, GOOD, (7,)),
        (GOOD, GOOD, GOOD, (7, 7, 7)),
        (GOOD, GOOD, GOOD, (7, 0)),
        (GOOD, GOOD, GOOD, (-7, 7)),
        (GOOD, GOOD, GOOD, (7.0, 7.0)),
        (GOOD, GOOD, GOOD, (True, True)),
        (GOOD, GOOD, GOOD, ("7", "7")),
        (GOOD, GOOD, GOOD, "77"),
        (GOOD, GOOD, GOOD, None),
        (7, 7, 7, 7),
        7,
        "7777",
        (),
        None,
    ],
)
def test_agent_grids_other_than_four_pairs_are_refused(shapes: Any) -> None:
    with pytest.raises(ValueError, match="agent_shapes must be four pairs of positive integers"):
        AgentPVT(SMALL, agent_shapes=shapes)


def test_agent_grids_may_be_lists_as_in_configs() -> None:
    image = seeded_input(1, 64, 64)
    with torch.no_grad():
        lists = small_pvt(agent_shapes=[*map(list, SMALL_GRIDS)]).eval()
        close(lists(image), small_pvt().eval()(image))


@pytest.mark.parametrize("types", ["AAA", "AAAAA", "AABC", "aaaa", "", None, ["A"] * 3])
def test_attention_types_other_than_an_item_a_stage_are_refused(types: Any) -> None:
    with pytest.raises(ValueError, match="attn_types must be four letters"):
        AgentPVT(SMALL, attn_types=types)


@pytest.mark.parametrize(
    "indices", [(), (4,), (-1,), (1, 0), (0, 0), 2, None, "0123", (0.5,), (0.0, 1.0), ("a", 1)]
)
def test_out_indices_other_than_increasing_stages_are_refused(indices: Any) -> None:
    with pytest.raises(
        ValueError, match="out_indices must be increasing stage numbers from 0 to 3"
    ):
        AgentPVT(SMALL, out_indices=indices)


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("rate", [1.0, -0.1, 2, float("nan"), "0.1"])
def test_rates_outside_their_range_are_refused(name: str, rate: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 0 and less than 1"):
        AgentPVT(SMALL, **{name: rate})


@pytest.mark.parametrize("stages", [-2, 5, 1.5, "1", None])
def test_frozen_stages_outside_their_range_are_refused(stages: Any) -> None:
    with pytest.raises(ValueError, match="frozen_stages must be an integer from -1 to 4"):
        AgentPVT(SMALL, frozen_stages=stages)
    with pytest.raises(ValueError, match="frozen_stages must be an integer from -1 to 2"):
        AgentPVT(SMALL, frozen_stages=3, out_indices=(0, 1))


@pytest.mark.parametrize("size", [31, 0, -224, 5000, 224.0, "224", (224, 224), None])
def test_pretraining_sizes_outside_their_range_are_refused(size: Any) -> None:
    with pytest.raises(ValueError, match="pretrain_img_size must be an integer from 32 to"):
        AgentPVT(SMALL, pretrain_img_size=size)


@pytest.mark.parametrize("size", [(31, 64), (64, 31), (1, 1)])
def test_images_smaller_than_a_patch_are_refused(size: tuple[int, int]) -> None:
    height, width = size
    with pytest.raises(ValueError, match=rf"{height}x{width} pixels .* at least 32x32"):
        small_pvt()(seeded_input(1, height, width))


@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (1, 4, 64, 64), (3, 64, 64), (1, 64, 64, 3)])
def test_other_than_images_of_three_channels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"\(B, 3, H, W\), got {re.escape(str(shape))}"):
        small_pvt()(torch.zeros(shape))


# --- Agent-Swin


def test_unknown_arguments_are_refused_with_a_list_of_the_known_by_swin() -> None:
    with pytest.raises(TypeError) as error:
        AgentSwinTransformer(num_classes=80, ape=False)
    message = str(error.value)
    assert message.startswith("AgentSwinTransformer does not take 'num_classes', 'ape'; it takes ")
    takes = message.partition("it takes ")[2].split(", ")
    assert {"arch", "agent_shapes", "attn_types", "window_size", "out_indices"} <= {*takes}
    assert "unknown" not in takes and "self" not in takes


@pytest.mark.parametrize("arch", ["huge", "swin_t", "large", "", None, 5])
def test_an_unknown_arch_is_refused_with_the_names_of_the_known_by_swin(arch: Any) -> None:
    with pytest.raises(ValueError, match=r"arch.*'tiny', 'small', 'base'"):
        AgentSwinTransformer(arch)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"embed_dim": (8, 8, 8, 8)}, r"arch\['embed_dim'\] must be a positive integer"),
        ({"embed_dim": 0}, r"arch\['embed_dim'\] must be a positive integer"),
        ({"depths": (1, 1, 1)}, r"arch\['depths'\] must be four positive integers"),
        ({"num_heads": 4}, r"arch\['num_heads'\] must be four positive integers"),
        ({"mlp_ratio": 4}, "arch takes exactly the keys"),
        ({"num_heads": (1, 3, 1, 1)}, "dim=16 is not a multiple of num_heads=3"),
    ],
)
def test_an_arch_of_other_sizes_is_refused_by_swin(change: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        AgentSwinTransformer({**SMALL_SWIN, **change})


@pytest.mark.parametrize(
    "types",
    [
        ("A", "A", "B"),
        ("A",) * 5,
        ("A", "A", "A", "C"),
        ("A", "A", "A", "b"),
        ("A", "A", "1A", "B"),
        ("A", "A", "2A1B", "B"),
        ("A", "A", "0A2B", "B"),
        ("A", "A", "AB", "B"),
        ("A", "A", "1A 1B", "B"),
        ("A", "A", "", "B"),
        ("A", "A", None, "B"),
        ("A", "A", 2, "B"),
        ("A", "A", ("A", "B"), "B"),
        "AAB",
        "",
        5,
    ],
)
def test_attention_types_that_do_not_fit_the_depths_are_refused_by_swin(types: Any) -> None:
    with pytest.raises(ValueError, match=r"attn_types must be .* \(1, 2, 2, 2\), such as '2A16B'"):
        AgentSwinTransformer(SMALL_SWIN, attn_types=types)


@pytest.mark.parametrize("size", [0, -7, 56.0, "56", (7, 7), None, True, 5000])
def test_window_sizes_outside_their_range_are_refused_by_swin(size: Any) -> None:
    with pytest.raises(ValueError, match="window_size must be an integer from 1 to"):
        AgentSwinTransformer(SMALL_SWIN, window_size=size)


@pytest.mark.parametrize("size", [31, 0, -224, 224.0, "224", None])
def test_pretraining_sizes_outside_their_range_are_refused_by_swin(size: Any) -> None:
    with pytest.raises(ValueError, match="pretrain_img_size must be an integer from 32 to"):
        AgentSwinTransformer(SMALL_SWIN, pretrain_img_size=size)


@pytest.mark.parametrize(
    ("option", "value", "fault"),
    [
        ("agent_shapes", ((7, 7),) * 3, "agent_shapes must be four pairs"),
        ("out_indices", (1, 0), "out_indices must be increasing"),
        ("out_indices", (4,), "out_indices must be increasing"),
        ("frozen_stages", 5, "frozen_stages must be an integer from -1 to 4"),
        ("drop_path_rate", 1.0, "drop_path_rate must be at least 0 and less than 1"),
        ("attn_drop_rate", -0.1, "attn_drop_rate must be at least 0 and less than 1"),
        ("drop_rate", "0.1", "drop_rate must be at least 0 and less than 1"),
    ],
)
def test_other_values_outside_their_range_are_refused_by_swin(
    option: str, value: Any, fault: str
) -> None:
    with pytest.raises(ValueError, match=fault):
        AgentSwinTransformer(SMALL_SWIN, **{option: value})


@pytest.mark.parametrize("shape", [(1, 3, 31, 64), (1, 3, 64, 31), (1, 4, 64, 64), (3, 64, 64)])
def test_images_too_small_or_of_other_channels_are_refused_by_swin(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"at least 32x32|\(B, 3, H, W\)"):
        small_swin()(torch.zeros(shape))
