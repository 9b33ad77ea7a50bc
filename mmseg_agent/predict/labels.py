"""Labels of pixels in little memory: the scores of one class at a time at the image's size.

mmseg makes the scores of all classes as large as the image, twice: of 150 classes and 4320 x 7680
pixels that is 20 GB each time. A label needs no more than the best score so far.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MethodType
from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor
from torch.nn import functional as F

# what is done here in another way, so that it must be mmseg's own in the model
_OF_MODEL = ("predict", "inference", "whole_inference", "encode_decode", "postprocess_result")
_OF_HEAD = ("predict", "predict_by_feat")


def leave_out_scores(model: Any) -> None:
    """Have a segmentor predict the same labels without 'seg_logits', in place.

    One whose scores come about in a way of its own (queries, points, a sliding window, a single
    score for two classes) is left as it is.
    """
    head = getattr(model, "decode_head", None)
    usual = isinstance(model, EncoderDecoder) and isinstance(head, BaseDecodeHead)
    if not usual or model.test_cfg.get("mode", "whole") != "whole" or model.out_channels < 2:
        return
    own = [(model, EncoderDecoder, name) for name in _OF_MODEL]
    own += [(head, BaseDecodeHead, name) for name in _OF_HEAD]
    if all(getattr(type(each), name) is getattr(kind, name) for each, kind, name in own):
        model.predict = MethodType(predict_labels, model)


def predict_labels(model: Any, inputs: Tensor, data_samples: Sequence[Any]) -> Sequence[Any]:
    """``EncoderDecoder.predict`` for images (B, 3, H, W), without 'seg_logits'.

    Returns:
        The samples, each with 'pred_sem_seg', labels (1, H, W) int16 of its image's own size.
    """
    metas = [sample.metainfo for sample in data_samples]
    if any(meta.get("flip") for meta in metas):  # in no pipeline of testing
        return EncoderDecoder.predict(model, inputs, data_samples)
    head = model.decode_head
    scores = head.forward(model.extract_feat(inputs))  # (B, C, h, w)
    planes = (head.predict_by_feat(scores[:, i : i + 1], metas) for i in range(scores.shape[1]))
    for sample, labels in zip(
        data_samples, best_of(planes, metas, head.align_corners), strict=True
    ):
        sample.pred_sem_seg = PixelData(data=labels)
    return data_samples


def best_of(
    planes: Iterable[Tensor], metas: Sequence[Mapping[str, Any]], align_corners: bool
) -> list[Tensor]:
    """The first class with the best score, for each pixel, of a batch of images.

    Args:
        planes: the scores (B, 1, H, W) of one class after another.
        metas: of each image: its own size, 'ori_shape', and how it was padded to H x W.
        align_corners: of the resizing to its own size.

    Returns:
        Labels (1, h, w) int16 for each image.
    """
    best: list[Tensor] = []
    labels: list[Tensor] = []
    for number, plane in enumerate(planes):
        for i, meta in enumerate(metas):
            scores = _at_own_size(plane[i : i + 1], meta, align_corners)[0]
            if number == 0:
                # a copy: it is written to, and may be a part of the batch
                best.append(scores.clone())
                labels.append(torch.zeros_like(scores, dtype=torch.int16))
            else:
                labels[i].masked_fill_(scores > best[i], number)
                torch.maximum(best[i], scores, out=best[i])
    return labels


def _at_own_size(scores: Tensor, meta: Mapping[str, Any], align_corners: bool) -> Tensor:
    """Scores (1, 1, H, W) of a padded and resized image, at the size of the image itself."""
    left, right, top, bottom = meta.get("img_padding_size", meta.get("padding_size", [0] * 4))
    height, width = scores.shape[2:]
    scores = scores[..., top : height - bottom, left : width - right]
    size = tuple(meta["ori_shape"][:2])
    if scores.shape[2:] == size:
        return scores
    return F.interpolate(scores, size, mode="bilinear", align_corners=align_corners)
