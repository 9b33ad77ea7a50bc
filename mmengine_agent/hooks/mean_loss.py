"""Hooks of the toolkit, in mmengine's registry."""

from typing import Any

from mmengine.dist import all_reduce_dict, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class MeanLossHook(Hook):
    """Logs the mean of the losses over all processes.

    mmengine logs those of the first process alone, so a curve changes with the number of GPUs
    although the training does not.
    """

    priority = "HIGHEST"  # before RuntimeInfoHook hands the losses to the log

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Replace the losses in ``outputs`` by their means, in place."""
        if get_world_size() > 1 and outputs:
            means = {key: value.detach().clone() for key, value in outputs.items()}
            all_reduce_dict(means, op="mean")
            outputs.update(means)
