"""The ImageNet classifiers that the authors of Agent Attention and of FLatten publish."""

from typing import NamedTuple

_ADDRESS = "https://cloud.tsinghua.edu.cn/f/{}/?dl=1"  # as their pages gave it in November 2024


class ImageNetFile(NamedTuple):
    """A file of ImageNet-1K weights, with its head."""

    model: str
    img_size: int  # pixels
    top1: float  # per cent, reported by the authors
    key: str  # of the address

    @property
    def address(self) -> str:
        """Where the authors put it; it may be gone."""
        return _ADDRESS.format(self.key)


# By the name that configs and tools look for in ``checkpoints``, without its ending.
IMAGENET_FILES = {
    "agent_pvt_t": ImageNetFile("Agent-PVT-T", 224, 78.4, "13fdf0e0a7c5498c934f"),
    "agent_pvt_s": ImageNetFile("Agent-PVT-S", 224, 82.2, "36b8be9a8863456685a3"),
    "agent_pvt_m": ImageNetFile("Agent-PVT-M", 224, 83.4, "4d00ecacf18b45f9b88c"),
    "agent_pvt_m_256": ImageNetFile("Agent-PVT-M", 256, 83.8, "654df734121643b19c52"),
    "agent_pvt_l": ImageNetFile("Agent-PVT-L", 224, 83.7, "040cfe0cfbbe4762ad09"),
    "agent_swin_t": ImageNetFile("Agent-Swin-T", 224, 82.6, "a2ddc1190c224f768a41"),
    "agent_swin_s": ImageNetFile("Agent-Swin-S", 224, 83.7, "f607172c9fea4d6e99bb"),
    "agent_swin_s_288": ImageNetFile("Agent-Swin-S", 288, 84.1, "09760394e93b4046a25e"),
    "agent_swin_b": ImageNetFile("Agent-Swin-B", 224, 84.0, "4fcd2d0114bb490483c3"),
    "agent_swin_b_384": ImageNetFile("Agent-Swin-B", 384, 84.9, "bb84ee9058954706a557"),
    "agent_deit_t": ImageNetFile("Agent-DeiT-T", 224, 74.9, "57e0904221824ee7b7af"),
    "agent_deit_s": ImageNetFile("Agent-DeiT-S", 224, 80.5, "fdd43304372541db8ea7"),
    "agent_deit_s_448": ImageNetFile("Agent-DeiT-S", 448, 83.1, "a228f86241c445f1969b"),
    "agent_deit_b": ImageNetFile("Agent-DeiT-B", 224, 82.0, "5115f15fdd7e4ab58fbc"),
    "agent_cswin_t": ImageNetFile("Agent-CSwin-T", 224, 83.1, "8c562a74441e46d5902b"),
    "agent_cswin_s": ImageNetFile("Agent-CSwin-S", 224, 83.9, "30eb8af675bc4b7a8747"),
    "agent_cswin_b": ImageNetFile("Agent-CSwin-B", 224, 84.7, "c8035b0839b2410c8c9f"),
    "agent_cswin_b_384": ImageNetFile("Agent-CSwin-B", 384, 85.8, "1239be0df44b47719432"),
    "flatten_pvt_t": ImageNetFile("FLatten-PVT-T", 224, 77.8, "3ab1d773f19d45648690"),
    "flatten_pvtv2_b0": ImageNetFile("FLatten-PVTv2-B0", 224, 71.1, "5d1f01532b104da28e7b"),
    "flatten_swin_t": ImageNetFile("FLatten-Swin-T", 224, 82.1, "e1518e76703e4e57a7f2"),
    "flatten_swin_s": ImageNetFile("FLatten-Swin-S", 224, 83.5, "94188e52af354bf4a88b"),
    "flatten_swin_b": ImageNetFile("FLatten-Swin-B", 224, 83.8, "7a9e5186bad04e7fb3a9"),
    "flatten_swin_b_384": ImageNetFile("FLatten-Swin-B", 384, 85.0, "0d0330cf2e5249f1abb6"),
    "flatten_cswin_t": ImageNetFile("FLatten-CSwin-T", 224, 83.1, "48ba765ba8b0451d9d5a"),
}
