"""Plain softmax attention. Shape letters: see ``agent_attention.mixers.agent``."""

from torch import Tensor

from agent_attention.arguments import Pair
from agent_attention.mixers.base import Mixer


class SoftmaxAttention(Mixer):
    """O = σ(Q Kᵀ / √d) V: all tokens attend to all, at a cost of N*N (arXiv 1706.03762)."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
        """The equation above."""
        return self.attend(q, k, v)
