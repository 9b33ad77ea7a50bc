"""AFT-local: AFT-full whose places count in a window alone.

Letters: see ``agent_attention.mixers.agent``.
"""

from typing import Any, ClassVar

from torch import Tensor

from agent_attention.arguments import Pair
from agent_attention.compute.place import local_average
from agent_attention.mixers.aft_full import AFTFull


class AFTLocal(AFTFull):
    """AFT-full with w_tt' = 0 where t and t' are ``window`` or more rows or columns apart.

    Attention Free Transformer, arXiv 2105.14103, eq. 4, whose tokens are in one row; a window of
    s here holds (2s - 1)² tokens. All tokens stay connected: outside they count by key alone.

    Args:
        window: s, in tokens, on maps of any size. The other arguments are those of ``AFTFull``.
    """

    fixed_options: ClassVar[frozenset[str]] = frozenset({"window"})

    def __init__(self, dim: int, num_heads: int = 1, window: int = 4, **shared: Any) -> None:
        super().__init__(dim, num_heads, **shared)
        self.window = window

    def average(self, k: Tensor, v: Tensor, size: Pair) -> Tensor:
        """The two sums, one divided by the other, of keys and values (B, h, N, d)."""
        return local_average(*self.places(size), k, v, size, self.window)
