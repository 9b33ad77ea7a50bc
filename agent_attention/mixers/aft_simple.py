"""AFT-simple: one average of the values, gated by each token.

Letters: see ``agent_attention.mixers.agent``.
"""

from torch import Tensor

from agent_attention.arguments import Pair
from agent_attention.compute.numerics import full_precision
from agent_attention.mixers.base import Mixer


class AFTSimple(Mixer):
    """y_t = sigmoid(q_t) ⊙ Σ softmax(K) ⊙ V, the softmax and the sum over all tokens.

    Attention Free Transformer, arXiv 2105.14103, section 3.2. It knows no places: its backbone
    has to tell them, by position embeddings or with the option ``detail``. Arguments: see
    ``Mixer``.
    """

    def mix(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
        """The equation above, of queries, keys and values (B, N, C)."""
        gate, key, value = full_precision(q, k, v)
        context = (key.softmax(1) * value).sum(1, keepdim=True)  # (B, 1, C)
        return self.add_detail((gate.sigmoid() * context).to(q.dtype), v, size)
