"""Patches of an image as tokens, by a matrix product.

A convolution whose kernel is as large as its stride is a linear layer of patches. For the three
channels of an image oneDNN's takes several times as long, and gives a map that has to be copied
for the tokens' order.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from agent_attention.compute.guard import may_replace

_FEW = 4  # channels, above which the convolution is as quick


def embed_patches(conv: nn.Module, x: Tensor) -> Tensor | None:
    """What ``conv`` gives for (B, C_in, H, W), as (B, H/s, W/s, C); None where it has to run.

    Rows and columns that fill no patch are dropped.
    """
    if not may_replace(x, (conv, nn.Conv2d)):
        return None
    assert isinstance(conv, nn.Conv2d)
    plain = conv.groups == 1 and conv.padding == (0, 0) and conv.dilation == (1, 1)
    if not plain or conv.stride != conv.kernel_size or x.shape[1] > _FEW:
        return None
    down, across = conv.kernel_size
    x = x[..., : x.shape[2] // down * down, : x.shape[3] // across * across]
    patches = x.unflatten(3, (-1, across)).unflatten(2, (-1, down))  # (B, C_in, H/s, s, W/s, s)
    rows = patches.permute(0, 2, 4, 1, 3, 5).flatten(3)
    return F.linear(rows, conv.weight.flatten(1), conv.bias)
