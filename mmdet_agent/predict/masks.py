"""Masks of a detector in little memory: pasted into an image one by one, and kept as codes.

mmdet makes a mask of the image's size for each of up to 100 objects: of 4320 x 7680 pixels they
take 3.3 GB, and copies as much again.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from torch import Tensor, nn

from mmdet_agent.predict.instances import crop


def paste_one_by_one(model: Any) -> None:
    """Have a two-stage detector predict masks as a list of ``Mask``, in place: the same pixels.

    A mask head with a way of its own is left as it is.
    """
    heads = getattr(getattr(model, "roi_head", None), "mask_head", None)
    head = heads[-1] if isinstance(heads, nn.ModuleList) else heads  # which a cascade pastes by
    if isinstance(head, FCNMaskHead):
        ways = ("predict_by_feat", "_predict_by_feat_single")
        if all(getattr(type(head), name) is getattr(FCNMaskHead, name) for name in ways):
            head.predict_by_feat = partial(_predict_codes, head)


def _predict_codes(
    head: FCNMaskHead,
    mask_preds: Sequence[Tensor],
    results_list: list[Any],
    batch_img_metas: list[dict[str, Any]],
    rcnn_test_cfg: Any,
    **flags: bool,
) -> list[Any]:
    """``FCNMaskHead.predict_by_feat`` with a list of codes instead of masks (N, H, W).

    As there, boxes are scaled in place.
    """
    for preds, results, meta in zip(mask_preds, results_list, batch_img_metas, strict=True):
        masks = []
        for i in range(len(results.bboxes)):
            alone = results[i : i + 1]  # whose box is that in the results
            FCNMaskHead.predict_by_feat(
                head, (preds[i : i + 1],), [alone], [meta], rcnn_test_cfg, **flags
            )
            masks.append(crop(alone.masks[0].cpu().numpy(), 0, 0))
        results.masks = masks
    return results_list
