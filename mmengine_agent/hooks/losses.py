"""Losses that are NaN or infinite: no step is taken with them, on any rank. And means for the log.

The check sits between the losses and the backward pass: weights, optimizer and statistics of
normalisation stay as they were before the batch, and that is what is saved. It sees losses before
they are scaled for half precision: a gradient that overflows there is the loss scaler's business.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, all_reduce_dict, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import Tensor

from mmengine_agent.errors import UserError
from mmengine_agent.hooks.checkpoint import SafeCheckpointHook

COUNT = "bad_losses"  # in the message hub, which checkpoints keep: batches left out so far


@HOOKS.register_module(force=True)
class BadLossesHook(Hook):
    """Stops the run at losses that are not finite, or leaves their batches out.

    A batch that is left out counts as an iteration. Where gradients of several iterations are
    accumulated, it adds nothing; the last of a step takes the whole step with it.

    Args:
        policy: 'stop' or 'skip'.
        limit: batches that 'skip' leaves out, those before a resume included; at the next one the
            run stops.
    """

    priority = "HIGHEST"  # before anything is done with the losses

    def __init__(self, policy: str = "stop", limit: int = 10) -> None:
        self.limit = limit if policy == "skip" else 0
        self.bad = False
        self.last: dict[str, Tensor] = {}  # losses that were finite
        self.buffers: list[Tensor] = []  # as they were before the forward pass

    def before_train(self, runner: Any) -> None:
        """Put the check before the step of the optimizer."""
        wrapper = runner.optim_wrapper
        wrapper.update_params = partial(self._update, wrapper, wrapper.update_params)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Keep what a forward pass changes: statistics of normalisation."""
        self.buffers = [each.clone() for each in runner.model.buffers()]

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Leave the batch out, or save and stop; the same on all ranks.

        Raises:
            UserError: if the run stops; with iteration, losses and images.
        """
        if not self.bad:
            self.last = {name: value.detach() for name, value in outputs.items()}
            return
        for buffer, before in zip(runner.model.buffers(), self.buffers, strict=True):
            buffer.copy_(before)
        message = f"iteration {runner.iter + 1}: losses are NaN or infinite\n"
        message += "\n".join(_describe_bad(outputs, data_batch))
        skipped = runner.message_hub.runtime_info.get(COUNT, 0) + 1
        if skipped > self.limit or not _is_finite(runner.model.state_dict()):
            if self.limit and skipped > self.limit:
                message += f"\n{self.limit} batches were left out before (--nan-limit)"
            raise UserError(f"{message}\n{_save(runner)}")
        runner.message_hub.update_info(COUNT, skipped)
        runner.logger.warning(f"{message}\nleft out, as {skipped} of at most {self.limit}")
        outputs.clear()  # or the mean losses of the log are NaN from here on
        outputs.update(self.last)  # other hooks may want some

    def after_train(self, runner: Any) -> None:
        """Report the batches that were left out."""
        if self.limit:
            count = runner.message_hub.runtime_info.get(COUNT, 0)
            runner.logger.warning(f"bad losses: {count} batches were left out")

    def _update(
        self, wrapper: Any, update: Callable[..., None], loss: Tensor, *args: Any, **kwargs: Any
    ) -> None:
        """``update_params`` of mmengine's wrapper, without the losses that are not finite."""
        finite = torch.isfinite(loss.detach()).all().float()
        all_reduce(finite, "min")
        self.bad = not finite.item()
        if not self.bad:
            update(loss, *args, **kwargs)
        elif self.limit:
            wrapper.backward(loss.new_zeros((), requires_grad=True))  # counts the iteration
            if wrapper.should_update():  # gradients are averaged over ranks in its backward pass
                wrapper.zero_grad()


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


def _save(runner: Any) -> str:
    """Save the run as it was before this iteration, if that is possible; how to go on.

    All ranks must call it.
    """
    if not _is_finite(runner.model.state_dict()):
        return (
            "The weights are NaN or infinite too, of a step before, and were not saved. Go on from "
            "a checkpoint before it (--resume PATH --clip-grad 1), or begin again with a lower "
            "learning rate"
        )
    hooks = [hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook)]
    if not hooks:
        return "Nothing was saved: the config has no SafeCheckpointHook"
    try:
        path = hooks[0].save_interrupted(runner, {"epoch": runner.epoch, "iter": runner.iter})
    except UserError as error:  # the message on the losses must not be lost
        return f"Nothing was saved: {error}"
    return (
        f"The run was saved as it was before this batch: {path}\n"
        "Look at these images first (tools/prepare_data.py check). Then the same command with "
        "--resume --nan=skip leaves out such batches, with --resume --clip-grad 1 limits the steps "
        "that lead there"
    )


def _is_finite(tensors: dict[str, Tensor]) -> bool:
    floats = (each for each in tensors.values() if each.is_floating_point())
    return all(bool(torch.isfinite(each).all()) for each in floats)


def _describe_bad(losses: dict[str, Tensor], batch: Any) -> list[str]:
    """A line for the losses, and for each image, of the ranks whose losses are not finite."""
    mine = []
    if not _is_finite(losses):
        samples = batch.get("data_samples", []) if isinstance(batch, dict) else []
        values = [f"{name} {value.float().mean():.4g}" for name, value in losses.items()]
        mine = [f"process {get_rank()}: {', '.join(values)}"]
        mine += [f"image: {getattr(sample, 'img_path', 'unknown')}" for sample in samples]
    return [f"  {line}" for lines in all_gather_object(mine) for line in lines]
