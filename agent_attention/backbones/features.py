"""What necks and decoders are built from: channels and strides of maps, before there are any."""

from typing import NamedTuple


class Feature(NamedTuple):
    """A map (B, channels, H/reduction, W/reduction) of an image (B, 3, H, W).

    Sides that are no multiple are rounded, down by Agent-PVT and up by Agent-Swin.
    """

    channels: int
    reduction: int  # stride, in pixels of the image
    module: str  # name of the stage that the map comes out of


class FeatureInfo(tuple[Feature, ...]):
    """A record for each map that a backbone returns, in order; methods as timm names them."""

    __slots__ = ()

    def channels(self) -> list[int]:
        """Channels of each map."""
        return [feature.channels for feature in self]

    def reduction(self) -> list[int]:
        """Stride of each map, in pixels of the image."""
        return [feature.reduction for feature in self]

    def module_name(self) -> list[str]:
        """Name of the stage that each map comes out of, as in ``named_modules``."""
        return [feature.module for feature in self]
