"""Features of an image from any backbone, as from timm: maps, channels, strides, one vector.

    python examples/features.py
    python examples/features.py agent_swin_t --weights FILE --image photo.jpg

Without weights and image: random ones. Torch alone, and Pillow and NumPy to read an image.
"""

import argparse

import torch
from torch import Tensor, nn

from agent_attention import load_backbone
from agent_attention.backbones import BACKBONES

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)  # of ImageNet, RGB in 0..1
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
NAMES = {"agent_pvt_t": ("pvt", "tiny"), "agent_swin_t": ("swin", "tiny")}


def build(name: str, weights: str | None = None) -> nn.Module:
    """A backbone that gives the maps of all stages, to look at images with."""
    family, arch = NAMES[name]
    backbone = BACKBONES[family](arch=arch, out_indices=(0, 1, 2, 3))
    if weights:
        print(load_backbone(backbone, weights))
    return backbone.eval()


def read_image(path: str) -> Tensor:
    """An image file as (1, 3, H, W), normalised as the published weights want it."""
    import numpy as np
    from PIL import Image

    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB")))
    return ((pixels.permute(2, 0, 1) / 255 - MEAN) / STD).unsqueeze(0)


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the maps that a backbone gives an image.")
    parser.add_argument("backbone", nargs="?", choices=NAMES, default="agent_pvt_t")
    parser.add_argument("--weights", metavar="FILE")
    parser.add_argument("--image", metavar="FILE")
    args = parser.parse_args()
    backbone = build(args.backbone, args.weights)
    image = read_image(args.image) if args.image else torch.randn(1, 3, 160, 224)
    with torch.inference_mode():
        maps = backbone(image)
    info = backbone.feature_info
    for each, channels, stride in zip(maps, info.channels(), info.reduction(), strict=True):
        print(f"stride {stride:2}: {channels:3} channels, map {tuple(each.shape[2:])}")
    vector = maps[-1].mean((2, 3))  # what a nearest-neighbour search takes
    print("one vector:", tuple(vector.shape))


if __name__ == "__main__":
    main()
