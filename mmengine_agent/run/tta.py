"""Test-time augmentation: several scales, each mirrored too, from a config's own test pipeline."""

from collections.abc import Callable
from typing import Any

from mmengine.config import Config, ConfigDict

from mmengine_agent.errors import UserError
from mmengine_agent.task import task_of

SCALES = (0.75, 1.0, 1.25)  # of the size a config tests at


def set_tta(cfg: Config) -> None:
    """Test with the config's ``tta_model`` and ``tta_pipeline``, or with SCALES and mirroring.

    mmdet merges boxes, not masks, so that detectors are then evaluated on boxes alone.

    Raises:
        UserError: if the test pipeline is none that can be augmented.
    """
    dataset = cfg.test_dataloader.dataset
    task = task_of(cfg)
    pipeline = cfg.get("tta_pipeline") or augmented(dataset.pipeline, task.tta_step)
    model = cfg.get("tta_model") or task.tta_model(cfg)
    dataset.pipeline = pipeline
    cfg.model = ConfigDict(**model, module=cfg.model)
    task.before_tta(cfg)


def augmented(pipeline: list[Any], step_of: Callable[[Any], Any]) -> list[Any]:
    """A test pipeline with all scales and mirrored copies, at its Resize or right after loading.

    Args:
        pipeline: of a config.
        step_of: what becomes of each step after the Resize.

    Raises:
        UserError: if it has more than one Resize, or one without a scale.
    """
    places = [i for i, step in enumerate(pipeline) if step["type"] == "Resize"]
    before, resize, after = pipeline[:1], {"type": "Resize", "scale_factor": 1.0}, pipeline[1:]
    if len(places) == 1:
        (place,) = places
        before, resize, after = pipeline[:place], pipeline[place], pipeline[place + 1 :]
    if len(places) > 1 or not {"scale", "scale_factor"} & resize.keys():
        raise UserError(
            "--tta: the test pipeline has more than one Resize, or one without scale or "
            "scale_factor; write tta_pipeline and tta_model into the config"
        )
    resizes = [_scaled(resize, factor) for factor in SCALES]
    flips = [{"type": "RandomFlip", "prob": float(flip)} for flip in (False, True)]
    rest = [[step_of(step)] for step in after]
    return [*before, {"type": "TestTimeAug", "transforms": [resizes, flips, *rest]}]


def _scaled(resize: Any, factor: float) -> Any:
    """A Resize to ``factor`` times its scale."""
    if "scale" in resize:
        return {**resize, "scale": tuple(round(side * factor) for side in resize["scale"])}
    return {**resize, "scale_factor": resize["scale_factor"] * factor}
