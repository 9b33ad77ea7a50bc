"""Validation and test scores of a detector that found nothing.

mmdet's ``CocoMetric`` and ``LVISMetric`` then give no scores at all. mmengine would log those of
the validation before, and hooks that watch a score (best checkpoint, early stopping) would not find
it.
"""

from typing import Any

from mmdet.evaluation import CocoMetric, LVISMetric
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

_AVERAGE_PRECISION = {
    CocoMetric: ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l"),
    LVISMetric: ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf"),
}


@HOOKS.register_module(force=True)
class NoDetectionsHook(Hook):
    """Scores 0 where there are no detections, and a warning that there are none."""

    priority = "HIGHEST"  # before RuntimeInfoHook hands the scores to the log

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Complete the scores in place."""
        self._complete(runner, runner.val_loop.evaluator, metrics)

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Complete the scores in place."""
        self._complete(runner, runner.test_loop.evaluator, metrics)

    def _complete(self, runner: Any, evaluator: Any, metrics: dict[str, float] | None) -> None:
        wanted = [name for each in evaluator.metrics for name in score_names(each)]
        missing = {name: 0.0 for name in wanted if metrics is not None and name not in metrics}
        if metrics is not None and missing:
            metrics.update(missing)
            runner.logger.warning(
                f"no object was detected in any image, so these scores are 0: {', '.join(missing)}"
            )


def score_names(metric: Any) -> list[str]:
    """The names under which a metric gives its average precisions; none of any other metric."""
    usual = _AVERAGE_PRECISION.get(type(metric))
    if usual is None or metric.format_only:
        return []
    kinds = [kind for kind in metric.metrics if kind in ("bbox", "segm")]
    items = metric.metric_items or usual
    return [f"{metric.prefix}/{kind}_{item}" for kind in kinds for item in items]
