"""Makes the runs of a config safe and resumable: hooks, and a loop of epochs."""

from collections.abc import Sequence

from mmengine.config import Config
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop

import mmengine_agent.hooks  # noqa: F401  (registers what is named below)


@LOOPS.register_module(force=True)
class ResumableEpochLoop(EpochBasedTrainLoop):
    """mmengine's loop; the batches of a resumed epoch are numbered, in the log, as in a whole one.

    Which batches those are is up to the data loader.
    """

    first_index = 0  # of the next epoch's first batch; set by ExactResumeHook

    def run_epoch(self) -> None:
        """Iterate the rest of one epoch."""
        super().run_epoch()
        self.first_index = 0

    def run_iter(self, idx: int, data_batch: Sequence[dict]) -> None:
        """Iterate one mini-batch, the ``idx``-th that the loader gave."""
        super().run_iter(idx + self.first_index, data_batch)


def make_resumable(cfg: Config) -> None:
    """Put the hooks and the loop of this package into a config, in place; twice changes nothing.

    A checkpoint hook or a loop of another kind than mmengine's own stays as it is.
    """
    hooks = cfg.get("default_hooks") or {}
    checkpoint = hooks.get("checkpoint", {})
    if checkpoint is not None and checkpoint.get("type", "CheckpointHook") == "CheckpointHook":
        # assigned: what setdefault returns of a Config is a copy
        cfg.default_hooks = {**hooks, "checkpoint": {**checkpoint, "type": "SafeCheckpointHook"}}
    custom = cfg.get("custom_hooks") or []
    kinds = [hook["type"] for hook in custom]
    ours = [{"type": kind} for kind in ("InterruptHook", "ExactResumeHook") if kind not in kinds]
    cfg.custom_hooks = [*custom, *ours]
    loop = cfg.get("train_cfg") or {}
    if loop.get("type") == "EpochBasedTrainLoop" or loop.get("by_epoch"):
        loop.pop("by_epoch", None)
        loop["type"] = "ResumableEpochLoop"
