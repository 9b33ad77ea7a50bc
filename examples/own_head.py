"""A head of your own on a backbone, trained by a loop of your own: torch alone, seconds on a CPU.

    python examples/own_head.py

The task: which pixels of a noisy image belong to its bright rectangle?
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agent_attention import AgentPVT

# of the four stages; "tiny", "small", "medium" and "large" are the published sizes
NARROW = {
    "embed_dims": (32, 64, 96, 128),
    "depths": (1, 1, 1, 1),
    "num_heads": (1, 2, 3, 4),
    "mlp_ratios": (4, 4, 4, 4),
}


class Segmentor(nn.Module):
    """Every map of the backbone to one width, added up at the finest stride, to one logit."""

    def __init__(self, backbone: nn.Module, width: int = 64) -> None:
        super().__init__()
        self.backbone = backbone
        channels = backbone.feature_info.channels()  # as timm's backbones say it
        self.lateral = nn.ModuleList(nn.Conv2d(each, width, 1) for each in channels)
        self.logit = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, 1, H, W)."""
        maps = [layer(each) for layer, each in zip(self.lateral, self.backbone(image), strict=True)]
        finest = maps[0].shape[-2:]
        total = torch.stack([F.interpolate(each, finest, mode="bilinear") for each in maps]).sum(0)
        return F.interpolate(self.logit(F.relu(total)), image.shape[-2:], mode="bilinear")


def make_batch(count: int, side: int) -> tuple[Tensor, Tensor]:
    """Noise (B, 3, H, W) with a brighter rectangle in each image, and its pixels (B, 1, H, W)."""
    masks = torch.zeros(count, 1, side, side)
    for mask in masks:
        top, left = torch.randint(0, side // 2, (2,)).tolist()
        high, wide = torch.randint(side // 4, side // 2, (2,)).tolist()
        mask[:, top : top + high, left : left + wide] = 1
    return torch.randn(count, 3, side, side) + 1.5 * masks, masks


def score(model: nn.Module) -> float:
    """Intersection over union on images that were not trained on."""
    images, masks = make_batch(8, 64)
    with torch.inference_mode():
        found = model.eval()(images) > 0
    return ((found & masks.bool()).sum() / (found | masks.bool()).sum()).item()


def main() -> None:
    torch.manual_seed(0)
    # few tokens, few agents; load_backbone(AgentPVT("tiny"), FILE) takes published weights
    model = Segmentor(AgentPVT(NARROW, agent_shapes="bounded"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    print(f"IoU before: {score(model):.2f}")
    model.train()
    for step in range(30):
        images, masks = make_batch(4, 64)
        loss = F.binary_cross_entropy_with_logits(model(images), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 9:
            print(f"step {step + 1}: loss {loss.item():.3f}")
    print(f"IoU after: {score(model):.2f}")


if __name__ == "__main__":
    main()
