"""FLatten-Swin: the Swin Transformer with focused linear attention in its early stages."""

from collections.abc import Mapping, Sequence
from typing import Any

from agent_attention.arguments import check_integer
from agent_attention.backbones.swin import AgentSwinTransformer


class FLattenSwin(AgentSwinTransformer):
    """FLatten-Swin backbone (arXiv 2308.00442): an image to a pyramid of feature maps.

    Windows are not shifted on maps that are no larger than a window.

    Args:
        arch: 'tiny', 'small', 'base', or a dict with the keys of ``ARCHS['tiny']``.
        mixers: see ``AgentSwinTransformer``; the first two stages are focused by default.
        window_size: see ``AgentSwinTransformer``. The default follows from ``pretrain_img_size``:
            windows of 7 at 224 pixels, of 12 at 384.
        pretrain_img_size: side, in pixels, of the images the tables are for.
        options: further arguments of ``AgentSwinTransformer``.
    """

    KEYS = (*AgentSwinTransformer.KEYS, "layers.0.blocks.0.attn.positional_encoding")
    shift_small = False

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        mixers: Sequence[Any] | None = None,
        window_size: int | None = None,
        pretrain_img_size: int = 224,
        **options: Any,
    ) -> None:
        check_integer("pretrain_img_size", pretrain_img_size, 32, 4096)
        if window_size is None:
            window_size = max(56, pretrain_img_size // 32 * 8)
        options |= {"window_size": window_size, "pretrain_img_size": pretrain_img_size}
        if mixers is None and "attn_types" not in options:
            mixers = ("focused", "focused", "windows", "windows")
        super().__init__(arch, mixers=mixers, **options)
