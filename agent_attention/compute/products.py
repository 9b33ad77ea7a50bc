"""Products of linear layers by oneDNN's kernels, where those are the quicker ones.

To ``addmm`` torch first copies the bias to every row of the result, and GELU is one more pass.
oneDNN adds the bias and takes GELU while the result is in registers; for the 64 to 512 channels of
an MLP its products themselves are up to 1.4 times as fast (docs/performance.md). They are those
that torch's own compiler takes. Elsewhere, and for other types of numbers, torch's products run.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def _find_kernel() -> Any:
    """oneDNN's linear layer, on machines like the one it was measured on; else None."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return None
    if not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


_KERNEL = _find_kernel()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x weightᵀ + bias`` of rows (T, C) and a weight (D, C): (T, D); without gradients."""
    if not _is_for_kernel(x, weight):
        return F.linear(x, weight, bias)
    out: Tensor = _KERNEL(x, weight, bias, "none", [], "")
    return out


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """GELU of ``linear``, not its approximation by tanh."""
    if not _is_for_kernel(x, weight):
        return F.gelu(F.linear(x, weight, bias))
    out: Tensor = _KERNEL(x, weight, bias, "gelu", [], "none")
    return out


def add_linear(x: Tensor, weight: Tensor, bias: Tensor | None, to: Tensor) -> Tensor:
    """``to`` (T, D) plus ``linear``, in new memory."""
    if not _is_for_kernel(x, weight):
        return F.linear(x, weight, bias).add_(to)
    out: Tensor = _KERNEL.binary(x, to, weight, bias, "add")
    return out


def _is_for_kernel(x: Tensor, weight: Tensor) -> bool:
    return (
        _KERNEL is not None
        and x.dtype == weight.dtype == torch.float32
        and bool(x.numel() and weight.numel())
        and (weight.is_contiguous() or weight.t().is_contiguous())  # of others it is very slow
        and torch._C._get_mkldnn_enabled()
    )


class WeightGradients:
    """Gradients of weights, from those of chunk after chunk; the first is taken as it is."""

    def __init__(self, *weights: Tensor) -> None:
        self.weights = weights
        self.sums: list[Tensor | None] = [None] * len(weights)

    def add(self, i: int, grad: Tensor) -> None:
        """Add to the gradient of the i-th weight."""
        total = self.sums[i]
        self.sums[i] = grad if total is None else total.add_(grad)

    def add_product(self, i: int, slope: Tensor, x: Tensor) -> None:
        """Add to those of a weight (D, C) and the bias after it, of slopes (T, D) and x (T, C).

        With the narrower of the two first a product is up to 1.25 times as fast.
        """
        swap, total = slope.shape[1] > x.shape[1], self.sums[i]
        left, right = (x, slope) if swap else (slope, x)
        if total is None:
            total = left.t() @ right
            self.sums[i] = total.t() if swap else total
        else:
            (total.t() if swap else total).addmm_(left.t(), right)
        self.add(i + 1, slope.sum(0))

    def all(self) -> list[Tensor]:
        """Zeros where there was no chunk."""
        pairs = zip(self.sums, self.weights, strict=True)
        return [torch.zeros_like(w) if total is None else total for total, w in pairs]
