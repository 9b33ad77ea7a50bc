"""The record of a segmentor's test: counts of pixels, image by image.

K is the number of classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmengine_agent.report.record import NO_LABEL, SIDE, Candidate, LabelMapRecord, pack_labels


class SegmentationRecord(LabelMapRecord):
    """Counts pixels of each true and predicted class.

    The last row and column hold labels that are no class, which mmseg's IoU counts as well: against
    the predicted class.
    """

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Count the pixels of a batch; of each image, only the counts that are not 0 are kept."""
        size, ignored = len(self.dataset_meta["classes"]) + 1, self.metric.ignore_index
        for sample in data_samples:
            guess = sample["pred_sem_seg"]["data"].squeeze(0)
            truth = sample["gt_sem_seg"]["data"].squeeze(0).to(guess)
            counted = truth != ignored
            rows = truth[counted].long().clamp(max=size - 1)
            columns = guess[counted].long().clamp(max=size - 1)
            pixels = torch.bincount(rows * size + columns, minlength=size * size).cpu().numpy()
            maps = {"truth": _packed(truth, ignored), "prediction": _packed(guess, -1)}
            shown = _candidate(sample.get("img_path", ""), maps, pixels.reshape(size, size))
            cells = np.flatnonzero(pixels)
            self.results.append((cells, pixels[cells], shown))

    def summary(self) -> dict[str, Any]:
        names = list(self.dataset_meta["classes"])
        flat = np.zeros((len(names) + 1) ** 2, dtype=np.int64)
        for cells, pixels, _ in self.gathered:
            flat[cells] += pixels
        total = flat.reshape(len(names) + 1, -1)
        other = total[-1].any() or total[:, -1].any()
        return {
            "task": "segmentation",
            "classes": names,
            "settings": {},
            "table": table(total),
            "confusion": {
                "labels": [*names, "no class"] if other else names,
                "counts": (total if other else total[:-1, :-1]).tolist(),
            },
            "pictures": self.pictures(shown for *_, shown in self.gathered if shown),
            "legend": self.legend(),
        }


def _candidate(path: str, maps: dict[str, bytes], counts: np.ndarray) -> Candidate | None:
    """An image with its mean IoU; None if it is ignored as a whole."""
    true = counts[:-1].sum()
    if not true:
        return None
    ious = [row[1] for row in table(counts)["rows"] if row[1] is not None]
    mean, share = float(np.mean(ious)), counts.diagonal()[:-1].sum() / true
    caption = f"mIoU {mean:.1f} %, {share:.1%} of the pixels right"
    return Candidate(path, maps, mean, len(ious), caption)


def table(counts: np.ndarray) -> dict[str, Any]:
    """Share of the pixels, IoU, accuracy and precision of each class in %, None where undefined.

    Args:
        counts: pixels (K + 1, K + 1) of each true (row) and predicted class.
    """
    right, true, guessed = counts.diagonal()[:-1], counts.sum(1)[:-1], counts.sum(0)[:-1]
    with np.errstate(invalid="ignore"):
        shares = [
            true / true.sum(),
            right / (true + guessed - right),
            right / true,
            right / guessed,
        ]
    rows = (100 * np.transpose(shares)).round(6).tolist()
    rows = [[None if value != value else value for value in row] for row in rows]
    return {"columns": ["% of pixels", "IoU", "Acc", "precision"], "rows": rows, "digits": 2}


def _packed(labels: Tensor, ignored: int) -> bytes:
    """A label map (height, width), thinned out to at most ``SIDE`` pixels, as 16-bit PNG."""
    step = -(-max(labels.shape) // SIDE)
    small = labels[::step, ::step].cpu().numpy().astype(np.int64)
    small[small == ignored] = NO_LABEL
    return pack_labels(small)
