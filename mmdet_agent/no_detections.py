"""Validation and test scores of a detector that found nothing.

mmdet's ``CocoMetric`` then gives no scores at all. mmengine would log those of the validation
before, and hooks that watch a score (best checkpoint, early stopping) would not find it.
"""

from typing import Any

from mmdet.evaluation import CocoMetric
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

_AVERAGE_PRECISION = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
_AVERAGE_RECALL = ("AR@100", "AR@300", "AR@1000", "AR_s@1000", "AR_m@1000", "AR_l@1000")


@HOOKS.register_module(force=True)
class NoDetectionsHook(Hook):
    """Scores 0 where there are no detections, and a warning that there are none."""

    priority = "HIGHEST"  # before RuntimeInfoHook hands the scores to the log

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Complete the scores in place, and take those that stay away out of the log."""
        self._complete(runner, runner.val_loop.evaluator, metrics)
        logged = runner.message_hub.log_scalars
        for key in [key for key in logged if key.startswith("val/")]:
            if metrics is not None and key.removeprefix("val/") not in (*metrics, *_TIMES):
                del logged[key]

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Complete the scores in place."""
        self._complete(runner, runner.test_loop.evaluator, metrics)

    def _complete(self, runner: Any, evaluator: Any, metrics: dict[str, float] | None) -> None:
        wanted = [key for each in evaluator.metrics for key in score_names(each)]
        missing = {key: 0.0 for key in wanted if metrics is not None and key not in metrics}
        if metrics is not None and missing:
            metrics.update(missing)
            runner.logger.warning(
                f"no object was detected in any image, so these scores are 0: {', '.join(missing)}"
            )


_TIMES = ("time", "data_time")  # mmengine's own, which no metric gives


def score_names(metric: Any) -> list[str]:
    """The names under which a ``CocoMetric`` gives its scores; of any other metric, none."""
    if type(metric) is not CocoMetric or metric.format_only:
        return []
    names: list[str] = []
    for kind in metric.metrics:
        if kind == "proposal":
            names += metric.metric_items or _AVERAGE_RECALL
        elif kind != "proposal_fast":  # which needs no detections
            names += [f"{kind}_{item}" for item in metric.metric_items or _AVERAGE_PRECISION]
    return [f"{metric.prefix}/{name}" if metric.prefix else name for name in names]
