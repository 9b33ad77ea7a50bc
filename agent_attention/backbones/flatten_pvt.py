"""FLatten-PVT: the Pyramid Vision Transformer with focused linear attention."""

from collections.abc import Mapping, Sequence
from typing import Any

from agent_attention.backbones.pvt import AgentPVT


class FLattenPVT(AgentPVT):
    """FLatten-PVT backbone (arXiv 2308.00442): an image to a pyramid of feature maps.

    Args:
        arch: 'tiny', 'small', 'medium', 'large', or a dict with the keys of ``ARCHS['tiny']``.
        mixers: see ``AgentPVT``; all stages are focused by default.
        options: further arguments of ``AgentPVT``.
    """

    KEYS = (*AgentPVT.KEYS, "block1.0.attn.positional_encoding")

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        mixers: Sequence[Any] | None = None,
        **options: Any,
    ) -> None:
        if mixers is None and "attn_types" not in options:
            mixers = ("focused",) * 4
        super().__init__(arch, mixers=mixers, **options)

    def is_unused_key(self, key: str) -> bool:
        """The stages that are not built, and a norm that the classifier has but never applies."""
        return key.startswith("norm.") or super().is_unused_key(key)
