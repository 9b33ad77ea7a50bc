"""FLatten-CSwin: the CSwin Transformer with focused linear attention in its early stages."""

from collections.abc import Mapping, Sequence
from typing import Any

from agent_attention.backbones import cswin
from agent_attention.backbones.cswin import AgentCSwin


class FLattenCSwin(AgentCSwin):
    """FLatten-CSwin backbone (arXiv 2308.00442): an image to a pyramid of feature maps.

    Args:
        arch: 'tiny', 'small', 'base', or a dict with the keys of ``ARCHS['tiny']``.
        mixers: see ``AgentCSwin``; the first two stages are focused by default.
        options: further arguments of ``AgentCSwin``.
    """

    KEYS = (*AgentCSwin.KEYS, "stage1.0.attns.0.positional_encoding")
    ARCHS = {  # noqa: RUF012
        **cswin.ARCHS,
        "small": {**cswin.ARCHS["small"], "depths": (2, 4, 32, 2)},
    }

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        mixers: Sequence[Any] = ("focused", "focused", "stripes", "softmax"),
        **options: Any,
    ) -> None:
        super().__init__(arch, mixers=mixers, **options)
