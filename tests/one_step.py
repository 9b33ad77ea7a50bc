"""A training step and a prediction of any detector or segmentor of mmdet's and mmseg's."""

from typing import Any

import numpy as np
import torch
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from mmengine_agent.config_walk import walk

SIZE = 64  # side of the images, in pixels


def check_training_step(model: Any, masks: bool = True) -> None:
    """Losses are finite, and reach the first layer of the backbone."""
    model.train()
    loss, logged = model.parse_losses(model(**packed_batch(model, True, masks), mode="loss"))
    assert loss.requires_grad
    assert all(torch.isfinite(value) for value in logged.values())
    assert sum("loss_" in name for name in logged) >= (2 if is_detector(model) else 1)
    first = next(model.backbone.parameters())
    (gradient,) = torch.autograd.grad(loss, [first])
    assert gradient.abs().sum() > 0


@torch.no_grad()
def check_prediction(model: Any) -> None:
    """There is a result for each image."""
    results = model.eval()(**packed_batch(model, training=False), mode="predict")
    assert len(results) == 2
    for result in results:
        if is_detector(model):
            check_instances(result.pred_instances, model)
        else:
            check_labels(result.pred_sem_seg.data, model)


def is_detector(model: Any) -> bool:
    return not hasattr(model, "encode_decode")


def few_proposals(model: Any) -> None:
    """Thin out what detectors sample, in place: heads for a thousand boxes are slow on a CPU."""
    for _, node in walk(model):
        for key in {"nms_pre", "max_per_img", "num"} & node.keys():
            node[key] = min(node[key], 24)


def detection_sample(with_masks: bool) -> Any:
    """Ground truth of two boxes, and of stuff."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    masks = np.zeros((2, SIZE, SIZE), np.uint8)
    masks[0, 4:24, 4:36] = masks[1, 24:60, 20:56] = 1
    boxes = torch.tensor([[4.0, 4, 36, 24], [20, 24, 56, 60]])
    sample = DetDataSample(
        gt_instances=InstanceData(
            bboxes=boxes, labels=torch.tensor([0, 3]), masks=BitmapMasks(masks, SIZE, SIZE)
        )
    )
    if not with_masks:
        del sample.gt_instances.masks
    sample.gt_sem_seg = PixelData(sem_seg=torch.from_numpy(masks[:1]).long())
    sample.set_metainfo({"scale_factor": (1.0, 1.0), "border": np.zeros(4)})
    return sample


def segmentation_sample() -> Any:
    """Ground truth of three classes and ignored pixels."""
    from mmseg.structures import SegDataSample

    labels = torch.arange(SIZE)[None, :, None].expand(1, SIZE, SIZE) // 16
    return SegDataSample(gt_sem_seg=PixelData(data=torch.where(labels == 3, 255, labels)))


def packed_batch(model: Any, training: bool, masks: bool = True) -> dict[str, Any]:
    """Two random images with ground truth, packed as by a loader and preprocessed by the model."""
    detection = is_detector(model)
    samples = [detection_sample(masks) if detection else segmentation_sample() for _ in range(2)]
    shape = (SIZE, SIZE)
    for sample in samples:
        sample.set_metainfo({"img_shape": shape, "ori_shape": shape, "pad_shape": shape})
    if not detection:
        model.data_preprocessor.size = shape  # the recipes' crop is slow on a CPU
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (2, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    batch = {"inputs": list(pixels), "data_samples": samples}
    return model.data_preprocessor(batch, training=training)


def check_instances(found: Any, model: Any) -> None:
    count = len(found.scores)
    assert found.bboxes.shape == (count, 4)
    assert found.labels.shape == (count,)
    if getattr(model, "with_mask", False):
        assert found.masks.shape == (count, SIZE, SIZE)


def check_labels(labels: Tensor, model: Any) -> None:
    assert labels.shape == (1, SIZE, SIZE)
    assert 0 <= labels.min() <= labels.max() < model.decode_head.num_classes
