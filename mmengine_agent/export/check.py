"""Whether a file gives what its model gives."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Run = Callable[[Tensor], dict[str, Tensor]]
Load = Callable[[Mapping[str, float]], Run]  # of a file, with other values of some of its tensors


class DifferenceError(Exception):
    """What a file gives is not what its model gives; the message says by how much."""


@torch.no_grad()
def difference(model: Run, run: Run, image: Tensor) -> float:
    """The largest difference of any output, of labels the share of pixels with another one.

    Differences of large values are relative to the largest of that output.
    """
    wanted, found = model(image), run(image)
    assert wanted.keys() == found.keys()
    most = torch.zeros(())
    for name, value in wanted.items():
        if value.shape != found[name].shape:
            return torch.inf
        if value.is_floating_point():
            apart = (value - found[name]).abs().max() / value.abs().max().clamp(min=1)
        else:
            apart = (value != found[name]).float().mean()
        most = torch.maximum(most, apart)  # which keeps a NaN
    return float(most)
