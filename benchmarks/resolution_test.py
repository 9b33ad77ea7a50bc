"""Tests of a trained segmentor with all agents at all places of ``resolution_agents``."""

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.evaluation import IoUMetric
from resolution_agents import PLACES, Place, names_by_grids, set_agents
from study_config import loader, seg_dataset

from mmengine_agent.run.setup import build_runner

Areas = torch.Tensor  # (4, classes): pixels of intersection, union, prediction and label
IGNORED = 255  # label


def test_everywhere(cfg: Config, name: str, data: Path, scale: float) -> dict[str, Any]:
    """Scores in float32 by place and agents.

    Args:
        cfg: tests a checkpoint.
        name: of the data set.
        data: its folder, which has the pictures of all places.
        scale: pixels at the training resolution over those of the files.
    """
    runner = build_runner(cfg)
    runner.load_or_resume()
    found = {}
    for each, place in PLACES.items():
        if any((data / "ade/images" / place.split).iterdir()):  # else too few for one of these
            batches = Runner.build_dataloader(pictures(name, data, place, scale))
            found[each] = scores(runner.model.eval(), batches)
    return found


def pictures(name: str, data: Path, place: Place, scale: float) -> dict[str, Any]:
    """The data loader of a place."""
    pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", "scale_factor": place.factor * scale, "keep_ratio": True},
        # after the resize: scored at the picture's own size
        {"type": "LoadAnnotations", "reduce_zero_label": True},
        {"type": "PackSegInputs"},
    ]
    own = loader(1, False, seg_dataset(name, data, place.split, pipeline))
    return {key: value for key, value in own.items() if key != "_delete_"}


@torch.no_grad()
def scores(model: Any, batches: Any) -> dict[str, Any]:
    """What each of the settings scores; those of the same grids are computed once."""
    classes = len(batches.dataset.metainfo["classes"])
    areas: dict[str, Areas] = {}
    sizes: Counter[tuple[int, int]] = Counter()
    for batch in batches:
        data = model.data_preprocessor(batch, False)
        height, width = data["inputs"].shape[-2:]
        sizes[height, width] += 1
        for same in names_by_grids((height, width)).values():
            set_agents(model, same[0])
            (sample,) = model(**data, mode="predict")
            own = areas_of(sample, classes)
            for each in same:
                areas[each] = areas[each] + own if each in areas else own
    return {
        "sizes": [[*size, count] for size, count in sizes.items()],
        "pixels": areas["base"][3].tolist(),
        "iou": {each: ratios(own) for each, own in areas.items()},
    }


def ratios(areas: Areas) -> list[float | None]:
    """IoU by class, None for one that is neither there nor found."""
    pairs = zip(areas[0].tolist(), areas[1].tolist(), strict=True)
    return [round(common / union, 5) if union else None for common, union in pairs]


def areas_of(sample: Any, classes: int) -> Areas:
    """Of one picture."""
    label, found = (each.data.squeeze() for each in (sample.gt_sem_seg, sample.pred_sem_seg))
    parts = IoUMetric.intersect_and_union(found, label.to(found), classes, IGNORED)
    return torch.stack(parts).double().cpu()
