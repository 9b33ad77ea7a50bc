"""CamVid for the swap: a linear head on frozen tokens of a ViT, and its mIoU.

The folder is CamVid as SegNet's authors give it (480 x 360 pixels, 11 classes): ``train``, ``val``,
and ``trainannot``, ``valannot`` with label maps of 0 to 10, and 11 where nothing is labelled.
"""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from swap_model import MEAN, PATCH, STD
from torch import Tensor, nn
from torch.nn import functional as F

from agent_attention.arguments import Pair
from agent_attention.mixers.base import to_map

CLASSES, IGNORED = 11, 11
Extract = Callable[[Tensor], Tensor]  # images (1, 3, H, W) -> tokens (1, 1 + N, C)


class Scenes:
    """Every so many scenes of a part of CamVid.

    Args:
        folder: of CamVid.
        part: 'train' or 'val'.
        every: take the first of so many.
        size: (H, W) in pixels of what the network gets; multiples of the patch.
        others: take all the others instead.

    Raises:
        ValueError: if there is nothing.
    """

    def __init__(
        self, folder: Path, part: str, every: int, size: Pair, others: bool = False
    ) -> None:
        files = sorted(
            each for each in (folder / part).glob("*") if each.suffix in (".jpg", ".png")
        )
        self.files = [each for i, each in enumerate(files) if (i % every > 0) == others]
        if not self.files:
            raise ValueError(f"no images in {folder / part}: --data takes CamVid's folder")
        self.labels = [folder / f"{part}annot" / f"{each.stem}.png" for each in self.files]
        self.size = size

    def __len__(self) -> int:
        return len(self.files)

    def image(self, number: int) -> Tensor:
        """(1, 3, H, W), normalised."""
        pixels = cv2.cvtColor(cv2.imread(str(self.files[number])), cv2.COLOR_BGR2RGB)
        height, width = self.size
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC)
        values = (pixels.astype(np.float32) / 255 - MEAN) / np.array(STD, np.float32)
        return torch.tensor(values, dtype=torch.float32).permute(2, 0, 1)[None]

    def label(self, number: int) -> Tensor:
        """(360, 480) of 0 to 11."""
        return torch.tensor(cv2.imread(str(self.labels[number]), cv2.IMREAD_UNCHANGED)).long()


@torch.no_grad()
def extract_maps(extract: Extract, scenes: Scenes) -> Tensor:
    """The tokens of all scenes as maps (S, C, h, w), without the class token."""
    size = (scenes.size[0] // PATCH, scenes.size[1] // PATCH)
    maps = [to_map(extract(scenes.image(i))[:, 1:], size) for i in range(len(scenes))]
    return torch.cat(maps)


def train_head(
    maps: Tensor, scenes: Scenes, steps: int = 100, decay: float = 3e-4, seed: int = 0
) -> nn.Conv2d:
    """A 1 x 1 convolution from maps (S, C, h, w) to classes, by L-BFGS on all scenes at once.

    The loss is the cross entropy to the shares of classes in each cell, a class weighted by
    1/sqrt(frequency) as mIoU counts all alike, and ``decay`` times the sum of squared weights.
    """
    torch.manual_seed(seed)
    head = nn.Conv2d(maps.shape[1], CLASSES, 1)
    labels = torch.stack([scenes.label(i) for i in range(len(scenes))])
    target = _shares(labels, (maps.shape[2], maps.shape[3]))
    frequency = target.sum((0, 2, 3), keepdim=True) / target.sum()
    target = target * frequency.clamp_min(1e-6).rsqrt()  # a class may be absent
    optimizer = torch.optim.LBFGS(
        head.parameters(), max_iter=steps, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        entropy = -(head(maps).log_softmax(1) * target).sum() / target.sum()
        total = entropy + decay * head.weight.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    return head.eval().requires_grad_(False)


def _shares(labels: Tensor, size: Pair) -> Tensor:
    """Label maps (S, H, W) -> shares (S, classes, h, w) of the classes in each cell."""
    one = F.one_hot(labels, CLASSES + 1)[..., :CLASSES].permute(0, 3, 1, 2).float()
    return F.adaptive_avg_pool2d(one, size)


@torch.no_grad()
def score_head(head: nn.Module, maps: Tensor, scenes: Scenes) -> tuple[float, list[float]]:
    """mIoU over the classes that occur, and the IoU of each class; logits are resized."""
    confusion = torch.zeros(CLASSES, CLASSES)
    for i in range(len(scenes)):
        truth = scenes.label(i)
        logits = F.interpolate(head(maps[i : i + 1]), tuple(truth.shape), mode="bilinear")
        found, known = logits[0].argmax(0), truth != IGNORED
        pairs = truth[known] * CLASSES + found[known]
        confusion += pairs.bincount(minlength=CLASSES**2).view(CLASSES, CLASSES)
    hit = confusion.diag()
    union = confusion.sum(0) + confusion.sum(1) - hit
    ious = (hit / union)[union > 0]
    return float(ious.mean()), ious.tolist()


def errors(found: Tensor, wanted: Tensor) -> tuple[float, float]:
    """||O' - O|| / ||O|| and the mean cosine of tokens, of maps (S, C, h, w)."""
    cosine = F.cosine_similarity(found, wanted, dim=1).mean()
    return float((found - wanted).norm() / wanted.norm()), float(cosine)
