"""torch's ``nn.MultiheadAttention``, alone and inside mmcv's wrappers.

T tokens, of which the keys may be m fewer; E = h * d channels.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from agent_attention.compute.symbolic import join_heads
from agent_attention.swap.adapter import Adapter, Chooser, Size, nearest


class TorchAttention(Adapter):
    """``nn.MultiheadAttention``. The second thing that it returns, attention weights, is None."""

    is_self = False  # whether the class of a wrapper says that keys are those of the queries

    @classmethod
    def refusal(cls, name: str, module: nn.Module, model: nn.Module, size: Size) -> str | None:
        inner = inner_attention(module)
        if getattr(inner, "in_proj_weight", None) is None:
            return "its projections are not torch's usual ones"
        if inner.bias_k is not None or inner.add_zero_attn:
            return "it has learned or zero keys besides those of the tokens"
        if size is None and cls is TorchAttention:
            return "the size of its map is not known, pass size="
        return None

    def __init__(self, name: str, module: nn.Module, model: nn.Module, size: Size = None) -> None:
        super().__init__(name, inner_attention(module), model, size)
        self.outer = module

    def watch(self, model: nn.Module) -> None:
        pass

    def install(self, model: nn.Module, swap: Chooser) -> None:
        """Also keep ``nn.TransformerEncoderLayer`` from its fast path, which calls no module."""
        super().install(model, swap)
        self.hook_before(self.module, see_nothing)

    def run(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As torch's: (T, B, E), or (B, T, E) with ``batch_first``."""
        self.check(query, key, value, key_padding_mask, attn_mask, is_causal)
        axis = 1 if self.module.batch_first else 0
        chosen = self.choose(query.shape[axis], key.shape[axis])
        if chosen is None:
            rest = (key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal)
            return self.original(query, key, value, *rest)
        out = self.compute(chosen, *self.project(query, key, value))
        out = F.linear(join_heads(out), self.module.out_proj.weight, self.module.out_proj.bias)
        return out if self.module.batch_first else out.transpose(0, 1), None

    def dropout(self) -> float:
        return float(self.module.dropout)

    def check(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        padding: Tensor | None,
        mask: Tensor | None,
        is_causal: bool,
    ) -> None:
        """Refuse what a form cannot do."""
        if mask is not None or padding is not None or is_causal:
            raise self.error("it is called with a mask, which a form cannot keep")
        if query.dim() != 3:
            raise self.error("it is called without a batch")
        if not self.is_self and not (query is key and key is value):
            raise self.error("it is cross-attention: queries, keys and values are not one tensor")

    def project(self, *tokens: Tensor) -> list[Tensor]:
        """Queries, keys and values in heads, (B, h, T, d)."""
        attn = self.module
        weights = attn.in_proj_weight.chunk(3)
        biases = [None] * 3 if attn.in_proj_bias is None else attn.in_proj_bias.chunk(3)
        batched = (x if attn.batch_first else x.transpose(0, 1) for x in tokens)
        outs = (F.linear(*each) for each in zip(batched, weights, biases, strict=True))
        return [x.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for x in outs]


class MmcvAttention(TorchAttention):
    """mmcv's ``MultiheadAttention``, as in mmseg's ``VisionTransformer``."""

    is_self = True

    @classmethod
    def refusal(cls, name: str, module: nn.Module, model: nn.Module, size: Size) -> str | None:
        known = size is not None or nearest(model, name, "patch_embed") is not None
        unknown = None if known else "the size of its map is not known, pass size="
        return super().refusal(name, module, model, size) or unknown

    def install(self, model: nn.Module, swap: Chooser) -> None:
        super().install(model, swap)
        self.hook_before(self.outer, self.refuse_cross_attention)

    def watch(self, model: nn.Module) -> None:
        patches = nearest(model, self.name, "patch_embed")
        assert patches is not None
        self.hook(patches, self.see_patches)

    def see_patches(self, module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        """Patch embeddings return tokens and (H, W)."""
        self.map = out[1]

    def refuse_cross_attention(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Keys have to be left to the wrapper, which takes the queries."""
        given = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
        query = given.get("query")
        if any(
            given.get(name) is not None and given[name] is not query for name in ("key", "value")
        ):
            raise self.error("it is cross-attention: queries, keys and values are not one tensor")


class ReducedAttention(TorchAttention):
    """Spatial reduction in mmdet's PVT and mmseg's MixVisionTransformer.

    The wrapper reduces the map, adds the residual, and gets the size of the map.
    """

    is_self = True
    knows_size = True

    def watch(self, model: nn.Module) -> None:
        self.hook_before(self.outer, self.see_size)

    def see_size(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """The wrapper is called with tokens and (H, W)."""
        self.map = kwargs["hw_shape"] if "hw_shape" in kwargs else args[1]


def inner_attention(module: nn.Module) -> Any:
    """torch's module within mmcv's wrapper, which calls it ``attn``."""
    return module if isinstance(module, nn.MultiheadAttention) else getattr(module, "attn", module)


def see_nothing(module: nn.Module, args: Any, kwargs: Any) -> None:
    """A hook that is there to be seen."""
