"""What the backbones refuse: each error names the argument and what is allowed."""

import re
from typing import Any

import pytest
import torch
from helpers import (
    RATES,
    SMALL,
    SMALL_ARCHS,
    SMALL_BACKBONES,
    SMALL_GRIDS,
    SMALL_SWIN,
    in_all_stages,
    seeded_input,
    small_backbone,
)

from agent_attention.backbones import BACKBONES

families = pytest.mark.parametrize("family", BACKBONES)
pyramids = pytest.mark.parametrize("family", [family for family in BACKBONES if family != "vit"])
of_letters = pytest.mark.parametrize("family", ["pvt", "swin"])  # with ``attn_types``
STRIDE = {"vit": 16}  # of the coarsest map; 32 in the others
close = torch.testing.assert_close


def refused(family: str, fault: str, *wrong: dict[str, Any]) -> None:
    """Each of these arguments is refused with a message that matches."""
    for options in wrong:
        with pytest.raises(ValueError, match=fault):
            small_backbone(family, **options)
            pytest.fail(f"{options} are taken")


def each(name: str, *values: Any) -> list[dict[str, Any]]:
    return [{name: value} for value in values]


@families
def test_unknown_arguments_are_refused(family: str) -> None:
    with pytest.raises(TypeError, match="num_classes"):
        small_backbone(family, num_classes=80)


@families
def test_an_unknown_arch_is_refused_with_the_names_of_the_known(family: str) -> None:
    names = ", ".join(map(repr, BACKBONES[family].ARCHS))
    refused(family, f"arch.*{names}", *each("arch", "huge", f"{family}_t", "", None, 5))


@families
def test_an_arch_of_other_keys_is_refused(family: str) -> None:
    arch = SMALL_ARCHS[family]
    keys = re.escape(str(sorted(arch)))
    without = {key: value for key, value in arch.items() if key != "num_heads"}
    wrong = each("arch", without, {**arch, "width": (1, 1, 1, 1)})
    refused(family, f"arch takes exactly the keys {keys}", *wrong)


@pytest.mark.parametrize(
    ("family", "key"), [(f, k) for f, arch in SMALL_ARCHS.items() for k in arch]
)
def test_an_arch_without_positive_integers_is_refused(family: str, key: str) -> None:
    arch, count = SMALL_ARCHS[family], "4 positive integers"
    wrong: list[Any] = [(2, 2, 2), (2,) * 5, (2, 2, 2, 0), (2, 2, 2, -2), (2, 2, 2, 2.0)]
    wrong += [2, "2222", (True,) * 4]
    if isinstance(arch[key], int):
        wrong, count = [(8,) * 4, 0, -8, 8.0, "8", True], "a positive integer"
    refused(
        family,
        rf"arch\['{key}'\] must be {count}",
        *each("arch", *({**arch, key: value} for value in wrong)),
    )


@families
@pytest.mark.parametrize("mixer", ["agent", "softmax", "focused", "norm"])
def test_channels_that_heads_cannot_share_are_refused(family: str, mixer: str) -> None:
    one = family == "vit"
    arch = {**SMALL_ARCHS[family], "num_heads": 3 if one else (1, 3, 3, 4)}
    fault = f"dim={8 if one else 16} is not a multiple of num_heads=3"
    refused(family, fault, {"arch": arch, **in_all_stages(family, mixer)})


def test_an_agent_grid_other_than_a_pair_is_refused() -> None:
    wrong: list[Any] = [(7,), (7, 7, 7), (7, -1), (7.0, 7.0), ((7, 7),) * 4, 0, "77"]
    fault = "a pair of positive integers"
    refused("vit", fault, *each("agent_shape", *wrong))


@pyramids
def test_agent_grids_other_than_four_pairs_are_refused(family: str) -> None:
    good = (7, 7)
    last: list[Any] = [(7,), (7, 7, 7), (7, 0), (-7, 7), (7.0, 7.0), (True, True), ("7", "7")]
    wrong = [(good, good, good, pair) for pair in [*last, "77", None]]
    wrong += [(good,) * 3, (good,) * 5, (7, 7, 7, 7), 0, "7777", ()]
    fault = "a pair of positive integers"
    refused(family, fault, *each("agent_shapes", *wrong))


@pyramids
def test_agent_grids_may_be_lists_as_in_configs(family: str) -> None:
    image, small = seeded_input(1, 64, 64), SMALL_BACKBONES[family]
    with torch.no_grad():
        lists = small(agent_shapes=[*map(list, SMALL_GRIDS)]).eval()
        close(lists(image), small().eval()(image))


@of_letters
def test_attention_types_that_do_not_fit_the_depths_are_refused(family: str) -> None:
    depths = re.escape(str(SMALL_ARCHS[family]["depths"]))
    wrong: list[Any] = ["AAA", "AAAAA", "AABC", "aaaa", "", None, 5, ["A"] * 3, ("A",) * 5]
    seconds = ["C", "b", "1A", "2A1B", "0A2B", "AB", "1A 1B", "", None, 2, ("A", "B")]
    wrong += [("A", second, "A", "B") for second in seconds]
    if family == "swin":
        wrong.remove(None)  # the arch's own
    fault = rf"attn_types must be, for each of 4 stages, one of .* {depths}, such as '2A16B'"
    refused(family, fault, *each("attn_types", *wrong))


@families
def test_other_values_outside_their_range_are_refused(family: str) -> None:
    indices = [(), (4,), (-1,), (1, 0), (0, 0), 2, None, "0123", (0.5,), (0.0, 1.0), ("a", 1)]
    fault = "out_indices must be increasing stage numbers from 0 to 3"
    refused(family, fault, *each("out_indices", *indices))
    for name in RATES:
        fault = f"{name} must be at least 0 and less than 1"
        refused(family, fault, *each(name, 1.0, -0.1, 2, float("nan"), "0.1"))
    fault = "frozen_stages must be an integer from -1 to"
    refused(family, f"{fault} 4", *each("frozen_stages", -2, 5, 1.5, "1", None))
    refused(family, f"{fault} 2", {"frozen_stages": 3, "out_indices": (0, 1)})
    least = STRIDE.get(family, 32)
    sizes = [least - 1, 0, -224, 5000, 224.0, "224", (224, 224), None]
    fault = f"pretrain_img_size must be an integer from {least} to"
    refused(family, fault, *each("pretrain_img_size", *sizes))


@pytest.mark.parametrize("family", ["swin", "flatten_swin", "cswin", "flatten_cswin"])
def test_window_sizes_outside_their_range_are_refused(family: str) -> None:
    sizes = [0, -7, 56.0, "56", (7, 7), True, 5000, *([None] if family == "swin" else [])]
    refused(family, "window_size must be an integer from 1 to", *each("window_size", *sizes))


@families
def test_images_smaller_than_a_patch_are_refused(family: str) -> None:
    least, model = STRIDE.get(family, 32), SMALL_BACKBONES[family]()
    for height, width in [(least - 1, 64), (64, least - 1), (1, 1)]:
        message = rf"{height}x{width} pixels .* at least {least}x{least}"
        with pytest.raises(ValueError, match=message):
            model(seeded_input(1, height, width))


@families
def test_other_than_images_of_three_channels_are_refused(family: str) -> None:
    model = SMALL_BACKBONES[family]()
    for shape in [(1, 1, 64, 64), (1, 4, 64, 64), (3, 64, 64), (1, 64, 64, 3)]:
        with pytest.raises(ValueError, match=rf"\(B, 3, H, W\), got {re.escape(str(shape))}"):
            model(torch.zeros(shape))


@families
def test_sizes_of_another_family_are_refused(family: str) -> None:
    other = SMALL_SWIN if SMALL_ARCHS[family].keys() != SMALL_SWIN.keys() else SMALL
    refused(family, "arch takes exactly the keys", {"arch": other})
