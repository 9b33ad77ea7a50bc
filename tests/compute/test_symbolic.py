"""Graphs of open sizes: the parts that differ there."""

import pytest
import torch
from helpers import normal
from torch import Tensor, nn
from torch.nn import functional as F

from agent_attention.compute.symbolic import assume_multiple_of, cell_means
from agent_attention.compute.window_cut import (
    cut_windows,
    join_windows,
    shift_mask,
    window_places,
    window_regions,
    window_sources,
)

close = torch.testing.assert_close


@pytest.mark.parametrize("cells", [1, 2, 3, 7, 12])
def test_cell_means_are_those_of_adaptive_pooling(cells: int) -> None:
    for size in range(1, 40):
        x = normal(size, (2, 3, size)).double()
        wanted = F.adaptive_avg_pool1d(x, cells)
        close(x @ cell_means(size, cells, x).t(), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shift", [0, 3])
@pytest.mark.parametrize("size", [(7, 14), (8, 6), (1, 13), (15, 22)])
def test_windows_by_index_are_those_of_padding_and_rolling(
    size: tuple[int, int], shift: int
) -> None:
    x = normal(1, (2, size[0] * size[1], 8))
    cut = (size, 7, shift, x.device)
    there, back, regions = window_sources(*cut), window_places(*cut), window_regions(*cut)
    windows = F.pad(x, (0, 0, 0, 1))[:, there].flatten(0, 1).unflatten(0, (-1, 49))
    assert torch.equal(windows, cut_windows(x, size, 7, shift))
    assert torch.equal(windows.flatten(0, 1).unflatten(0, (2, -1))[:, back], x)
    assert torch.equal(join_windows(windows, size, 7, shift, 2), x)
    regions = regions.unflatten(0, (-1, 49))
    apart = regions[:, :, None] != regions[:, None, :]
    assert torch.equal(apart.float() * -100, shift_mask(size, 7, shift, x.device))


class Strides(nn.Module):
    """The first step of a backbone."""

    def forward(self, x: Tensor) -> Tensor:
        return assume_multiple_of(32, x)


@pytest.mark.parametrize("multiple", [32, 64])
def test_whole_strides_can_be_recorded(multiple: int) -> None:
    x = torch.rand(1, 3, 3 * multiple, 64)
    shapes = ({2: multiple * torch.export.Dim("height", min=1)},)
    recorded = torch.export.export(Strides(), (x,), dynamic_shapes=shapes).module()
    assert torch.equal(recorded(x[:, :, :multiple]), x[:, :, :multiple])


def test_sizes_that_are_no_whole_strides_are_refused_where_they_are_recorded() -> None:
    shapes = ({2: torch.export.Dim("height", min=32)},)
    with pytest.raises(Exception, match="32"):  # torch has its own kind
        torch.export.export(Strides(), (torch.zeros(1, 3, 96, 64),), dynamic_shapes=shapes)


# --- backbones
