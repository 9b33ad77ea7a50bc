"""What a file says of the pixels, compared with what mmseg's own prediction says."""

from collections.abc import Mapping
from typing import Any

import torch
from mmseg.structures import SegDataSample
from torch import Tensor

from mmengine_agent.export.check import DifferenceError
from mmengine_agent.export.modules import Sizes

PIXELS = 1e-3  # the largest share of them with another label


@torch.no_grad()
def predict(model: Any, x: Tensor, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """mmseg's own prediction, in the pixels of the picture.

    Args:
        model: mmseg's.
        x: images as the model takes them, normalised and padded: (B, 3, H', W').
        sizes: of the images in it.

    Returns:
        labels int64 (B, H, W) and mmseg's ``seg_logits`` (B, classes, H, W), which are
        probabilities where there is one class.
    """
    padded = (x.shape[2], x.shape[3])
    height, width = sizes.image
    meta: dict[str, Any] = {
        "img_shape": padded,  # mmseg's MaskFormer makes masks of this size, whatever is padding
        "ori_shape": sizes.picture,
        "pad_shape": padded,
        # left, right, top, bottom
        "img_padding_size": [0, padded[1] - width, 0, padded[0] - height],
    }
    samples = model.predict(x, [SegDataSample(metainfo=dict(meta)) for _ in x])
    labels = torch.cat([sample.pred_sem_seg.data for sample in samples])
    return labels.long(), torch.stack([sample.seg_logits.data for sample in samples])


def compare(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], tolerance: float) -> str:
    """The largest differences of a batch.

    Args:
        wanted: of mmseg: 'labels' int64 (B, H, W), 'logits' and 'probabilities' (B, classes, H, W).
        found: of the file; what either lacks is not compared.
        tolerance: largest difference of a probability, and of a logit by the largest one.

    Returns:
        how many labels mmseg gives, and the differences.

    Raises:
        DifferenceError: if one is too large.
    """
    same, apart = 1.0, torch.zeros(())
    for name in wanted.keys() & found.keys():
        own, values = wanted[name], found[name]
        if own.shape != values.shape:
            shapes = f"{tuple(values.shape)} and not {tuple(own.shape)}"
            raise DifferenceError(f"in the shape of {name}, {shapes}")
        if name == "labels":
            same = float((own == values).float().mean())
        else:
            most = (own - values).abs().max() / own.abs().max().clamp(min=1)
            apart = torch.maximum(apart, most)  # which keeps a NaN
    text = f"{wanted['labels'].unique().numel()} labels, {100 * same:.3f} % of the pixels"
    text += f", scores {float(apart):.1e}" if found.keys() - {"labels"} else ""
    if not (same >= 1 - PIXELS and apart <= tolerance):
        raise DifferenceError(
            f"in more than {100 * PIXELS} % of the pixels or {tolerance:.1e} of a score: {text}"
        )
    return text
