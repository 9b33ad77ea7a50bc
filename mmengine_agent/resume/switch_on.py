"""Makes the runs of a config safe and resumable."""

from mmengine.config import Config

import mmengine_agent.hooks  # registers what is named below, as does the next
import mmengine_agent.resume.loops  # noqa: F401


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
