"""CSwin's attention in a cross of stripes.

Letters: see ``agent_attention.mixers.agent``; M is the width of a stripe, G their number.
"""

from typing import Any

import torch
from torch import Tensor, nn

from agent_attention.arguments import Pair
from agent_attention.compute.stripes import cut_stripes, join_stripes
from agent_attention.mixers.base import Mixer, to_map, to_tokens


class Stripes(Mixer):
    """O = σ(Q Kᵀ / √d) V + LePE(V) in stripes of M columns, or of M rows.

    CSwin, arXiv 2107.00652, section 3.2. LePE is a depth-wise convolution within each stripe. Maps
    are padded with zeros to a multiple of M, half in front; the padding takes part.

    Args:
        dim: channels C.
        num_heads: heads h.
        window: M.
        vertical: stripes are M columns wide, and as high as the map; else M rows high.
    """

    def __init__(self, dim: int, num_heads: int, window: int, vertical: bool, attn_drop: float):
        super().__init__(dim, num_heads, attn_drop=attn_drop, projections=False)
        self.window = window
        self.vertical = vertical
        self.get_v = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
        """The equation above, of queries, keys and values (B, N, C)."""
        cut, batch = (size, self.window, self.vertical), q.shape[0]
        q, k, v = cut_stripes((q, k, v), *cut)  # maps (B*G, rows, columns, C)
        shape = (q.shape[1], q.shape[2])
        q, k, v = (x.flatten(1, 2) for x in (q, k, v))
        out = self.attend(q, k, v) + to_tokens(self.get_v(to_map(v, shape)))
        return join_stripes(out.unflatten(1, shape), *cut, batch)


class StripeAttention(Mixer):
    """Half of the channels in vertical ``Stripes``, the other half in horizontal ones.

    Args:
        dim: channels C.
        num_heads: heads h, an even number.
        window: M.
        shared: further arguments of ``Mixer``.

    Raises:
        ValueError: if there is an odd number of heads.
    """

    def __init__(self, dim: int, num_heads: int = 2, window: int = 7, **shared: Any) -> None:
        if num_heads % 2:
            raise ValueError(f"stripes take an even number of heads, got num_heads={num_heads}")
        super().__init__(dim, num_heads, **shared)
        self.attns = nn.ModuleList(
            Stripes(dim // 2, num_heads // 2, window, vertical, self.attn_drop)
            for vertical in (True, False)
        )

    def branches(self) -> list[Mixer]:
        """The two, each of which mixes its half of the channels."""
        return list(self.attns)  # type: ignore[arg-type]

    def mix(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
        """Both halves, joined again: (B, N, C)."""
        halves = zip(self.branches(), *(x.chunk(2, -1) for x in (q, k, v)), strict=True)
        outs = [attn(tuple(half), size) for attn, *half in halves]
        return self.add_detail(torch.cat(outs, -1), v, size)
