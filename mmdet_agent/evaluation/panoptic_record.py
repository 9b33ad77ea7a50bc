"""The record of a panoptic model's test: its segments, class by class and image by image."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmdet_agent.evaluation.panoptic import (
    Segments,
    count_segments,
    match_segments,
    panoptic_quality,
    segments_of,
)
from mmengine_agent.report.record import NO_LABEL, SIDE, Candidate, LabelMapRecord, pack_labels


class PanopticRecord(LabelMapRecord):
    """Counts the segments of each image, as its panoptic metric does."""

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep counts, pairs of labels and a picture of each image."""
        for sample in data_samples:
            truth, guess = segments_of(self.metric, sample)
            rows = count_segments(truth, guess, len(self.dataset_meta["classes"]))
            shown = _candidate(sample.get("img_path", ""), truth, guess, rows)
            self.results.append((rows, self._pairs(truth, guess), shown))

    def summary(self) -> dict[str, Any]:
        names = list(self.dataset_meta["classes"])
        rows = np.sum([rows for rows, *_ in self.gathered], 0)
        counts = np.zeros((len(names) + 1,) * 2, int)
        np.add.at(counts, tuple(np.concatenate([pairs for _, pairs, _ in self.gathered]).T), 1)
        objects = (rows[:, 1] + rows[:, 3]).astype(int)
        scores = panoptic_quality(rows).round(6).tolist()
        return {
            "task": "panoptic segmentation",
            "classes": names,
            "settings": {},
            "table": {
                "columns": ["segments", "PQ", "SQ", "RQ"],
                "rows": [
                    [count, *(None if each != each else each for each in row)]
                    for count, row in zip(objects.tolist(), scores, strict=True)
                ],
                "digits": 1,
            },
            "confusion": {"labels": [*names, "no segment"], "counts": counts.tolist()},
            "pictures": self.pictures(shown for *_, shown in self.gathered if shown),
            "legend": self.legend(),
        }

    def _pairs(self, truth: Segments, guess: Segments) -> np.ndarray:
        """True and predicted label (p, 2) of what matches, whatever its class, and of the rest."""
        none = len(self.dataset_meta["classes"])
        ious, missed, wrong = match_segments(truth, guess, same_class=False)
        rows, columns = ious.nonzero()
        pairs = [
            (truth.labels[rows], guess.labels[columns]),
            (truth.labels[missed], np.full(missed.sum(), none)),
            (np.full(wrong.sum(), none), guess.labels[wrong]),
        ]
        return np.concatenate([np.stack(each, 1) for each in pairs])


def _candidate(path: str, truth: Segments, guess: Segments, rows: np.ndarray) -> Candidate | None:
    """An image with the mean PQ of its classes; None without any segment."""
    _, found, wrong, missed = rows.sum(0).astype(int)
    if not found + wrong + missed:
        return None
    mean = float(np.nanmean(panoptic_quality(rows)[:, 0]))
    caption = f"PQ {mean:.1f} %: {found} found, {missed} missed, {wrong} wrong"
    maps = {"truth": _packed(truth), "prediction": _packed(guess)}
    return Candidate(path, maps, mean, int(found + missed + wrong), caption)


def _packed(segments: Segments) -> bytes:
    """The labels of the pixels, thinned out to at most ``SIDE`` pixels, as 16-bit PNG."""
    step = -(-max(segments.places.shape) // SIDE)
    places = segments.places[::step, ::step]
    labels = np.array([NO_LABEL, *segments.labels], np.uint16)[places]
    labels[:, 1:][places[:, 1:] != places[:, :-1]] = NO_LABEL
    labels[1:][places[1:] != places[:-1]] = NO_LABEL
    return pack_labels(labels)
