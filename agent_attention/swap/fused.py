"""Attentions that call ``F.scaled_dot_product_attention``: of timm, transformers, mmpretrain.

Their own ``forward`` runs, with all that it does before and after; only that one call is answered
by a form. Where it would take another way (eager attention), it is made to take this one.
"""

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from agent_attention.swap.adapter import Adapter, Chosen, Size, nearest


class FusedAttention(Adapter):
    """An attention whose ``forward`` makes one fused call; a subclass knows where its map is from.

    Tokens (B, T, C) are the first argument.
    """

    patches = "patch_embed"  # the child, of the model that has it, that makes tokens of an image

    @classmethod
    def refusal(cls, name: str, module: nn.Module, model: nn.Module, size: Size) -> str | None:
        if size is None and nearest(model, name, cls.patches) is None:
            return "the size of its map is not known, pass size="
        return None

    def watch(self, model: nn.Module) -> None:
        patches = nearest(model, self.name, self.patches)
        assert patches is not None
        self.hook(patches, self.see_patches)

    def see_patches(self, module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        """Note the size of the map, from the call of what makes patches."""
        raise NotImplementedError

    def forced(self) -> list[tuple[nn.Module, str, Any]]:
        """Modules, attributes and values that make ``forward`` use the fused call."""
        return []

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own forward, with its fused call answered by a form."""
        chosen = self.choose_for(args[0] if args else kwargs["hidden_states"])
        if chosen is None:
            return self.original(*args, **kwargs)
        answer = AnswerFusedCall(self, chosen)
        with attributes(self.forced()), answer:
            out = self.original(*args, **kwargs)
        if answer.calls != 1:
            raise self.error("its forward has not called scaled_dot_product_attention once")
        return out

    def choose_for(self, tokens: Tensor) -> Chosen | None:
        """``choose`` for tokens (B, T, C)."""
        return self.choose(tokens.shape[1], tokens.shape[1])


class AnswerFusedCall(TorchFunctionMode):
    """While it is open, the first ``F.scaled_dot_product_attention`` is answered by a form."""

    def __init__(self, adapter: Adapter, chosen: Chosen) -> None:
        super().__init__()
        self.adapter = adapter
        self.chosen = chosen
        self.calls = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        self.calls += 1
        if self.calls > 1:  # an error, or a compiler that has left the mode open
            return func(*args, **(kwargs or {}))
        return answer_fused_call(self.adapter, self.chosen, *args, **(kwargs or {}))


def answer_fused_call(
    adapter: Adapter,
    chosen: Chosen,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """A form, with the arguments of ``F.scaled_dot_product_attention``: (B, h, T, d)."""
    if attn_mask is not None or is_causal:
        raise adapter.error("it is called with a mask or a bias, which a form cannot keep")
    if dropout_p:
        raise adapter.error("it drops attention weights out, which a form does not")
    if query.shape[2] != key.shape[2]:
        raise adapter.error("it is cross-attention: there are not as many keys as queries")
    if scale is not None and abs(scale * query.shape[-1] ** 0.5 - 1) > 1e-6:
        raise adapter.error("its scores have another scale than 1 / sqrt(d)")
    if key.shape[1] != query.shape[1]:
        raise adapter.error("its heads share keys")
    return adapter.compute(chosen, query, key, value)


@contextmanager
def attributes(changes: list[tuple[nn.Module, str, Any]]) -> Iterator[None]:
    """Give modules other attributes while the context is open."""
    before = [(vars(module), name, vars(module)[name]) for module, name, _ in changes]
    for module, name, value in changes:
        vars(module)[name] = value
    try:
        yield
    finally:
        for values, name, value in before:
            values[name] = value


class TransformersAttention(FusedAttention):
    """ViT, DeiT and DINOv2 of transformers, with any ``attn_implementation``."""

    patches = "embeddings.patch_embeddings"

    def see_patches(self, module: Any, args: Any, kwargs: Any, out: Any) -> None:
        image = args[0] if args else kwargs["pixel_values"]
        height, width = module.patch_size
        self.map = (image.shape[-2] // height, image.shape[-1] // width)

    def forced(self) -> list[tuple[nn.Module, str, Any]]:
        """A config of each module's own that says 'sdpa', as the model's config is shared."""
        changes = []
        for module in self.module.modules():
            if "config" in vars(module):
                config = copy.copy(module.config)
                config._attn_implementation_internal = "sdpa"
                changes.append((module, "config", config))
        return changes


class TimmAttention(FusedAttention):
    """timm's ``Attention``, as in its ``VisionTransformer``, fused or not."""

    def see_patches(self, module: Any, args: Any, kwargs: Any, out: Any) -> None:
        self.map = tuple(module.dynamic_feat_size(args[0].shape[-2:]))

    def forced(self) -> list[tuple[nn.Module, str, Any]]:
        return [(self.module, "fused_attn", True)]


class MmpretrainAttention(FusedAttention):
    """mmpretrain's ``MultiheadAttention``, which has the function that it calls as an attribute."""

    attribute = "scaled_dot_product_attention"

    @classmethod
    def refusal(cls, name: str, module: nn.Module, model: nn.Module, size: Size) -> str | None:
        if isinstance(getattr(module, cls.attribute), functools.partial):
            return "its scores have a scale of their own (qk_scale)"
        return super().refusal(name, module, model, size)

    def see_patches(self, module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        self.map = tuple(out[1])

    def run(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Queries, keys and values (B, h, T, d) -> (B, h, T, d)."""
        chosen = self.choose(query.shape[2], key.shape[2])
        if chosen is None:
            return self.original(query, key, value, *args, **kwargs)
        return answer_fused_call(self, chosen, query, key, value, *args, **kwargs)
