"""Losses that are NaN or infinite: no step is taken with them, on any rank.

The check sits between the losses and the backward pass: weights, optimizer and statistics of
normalisation stay as they were before the batch, and that is what is saved.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import Tensor

from agent_attention.openmmlab.errors import UserError

SAVED = "before_bad_losses.pth"


@HOOKS.register_module()
class BadLossesHook(Hook):
    """Stops the run at losses that are not finite, or leaves their batches out.

    Args:
        policy: 'stop' or 'skip'.
        limit: batches that 'skip' leaves out; at the next one the run stops.
    """

    priority = "HIGHEST"  # before anything is done with the losses

    def __init__(self, policy: str = "stop", limit: int = 10) -> None:
        self.policy = policy
        self.limit = limit
        self.skipped = 0
        self.bad = False
        self.statistics: list[tuple[Tensor, Tensor]] = []  # of normalisation: in use, copy

    def before_train(self, runner: Any) -> None:
        """Put the check before the step of the optimizer."""
        wrapper = runner.optim_wrapper
        wrapper.update_params = partial(self._update, wrapper.update_params)
        buffers = list(_statistics(runner.model))
        self.statistics = [(buffer, buffer.clone()) for buffer in buffers]

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Keep what a forward pass changes."""
        for buffer, copy in self.statistics:
            copy.copy_(buffer)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Leave the batch out, or save and stop; the same on all ranks.

        Raises:
            UserError: if the run stops; with iteration, losses and images.
        """
        if not self.bad:
            return
        for buffer, copy in self.statistics:
            buffer.copy_(copy)
        told = _told(runner.iter + 1, outputs, data_batch)
        outputs.clear()  # or the mean losses of the log are NaN from here on
        self.skipped += 1
        if self.policy == "skip" and self.skipped <= self.limit:
            runner.logger.warning(f"{told}\nleft out, as {self.skipped} of at most {self.limit}")
            return
        raise UserError(f"{told}\n{save_now(runner)}\n{self._advice()}")

    def after_train(self, runner: Any) -> None:
        """Report the batches that were left out."""
        if self.policy == "skip":
            runner.logger.warning(f"bad losses: {self.skipped} batches were left out")

    def _update(self, update: Callable[..., None], loss: Tensor, *args: Any, **kwargs: Any) -> None:
        finite = torch.isfinite(loss.detach()).all().float()
        if get_world_size() > 1:
            all_reduce(finite, "min")
        self.bad = not finite.item()
        if not self.bad:
            update(loss, *args, **kwargs)

    def _advice(self) -> str:
        if self.policy == "skip":
            return f"--nan-limit is {self.limit}: this is no longer a matter of single batches"
        return (
            "What helps: a lower learning rate, --clip-grad 1, a look at these images "
            "(tools/prepare_data.py check), or --nan=skip"
        )


def save_now(runner: Any) -> str:
    """Save the run as it was before this iteration, unless it is spoilt; what was done, in words.

    All ranks must call it.
    """
    weights = runner.model.state_dict().values()
    if not all(torch.isfinite(each).all() for each in weights if each.is_floating_point()):
        return "The weights are NaN or infinite too, and were not saved: --resume an older file"
    done = {"epoch": runner.epoch, "iter": runner.iter}
    runner.save_checkpoint(runner.work_dir, SAVED, meta=done, by_epoch=False)
    return f"Saved as it was before: {Path(runner.work_dir, SAVED)}"


def _statistics(model: torch.nn.Module) -> list[Tensor]:
    """Running means and variances, and their counts."""
    norms = [each for each in model.modules() if getattr(each, "track_running_stats", False)]
    return [buffer for each in norms for buffer in each.buffers(recurse=False)]


def _told(iteration: int, losses: dict[str, Tensor], batch: Any) -> str:
    """The losses and images of the ranks whose losses are not finite, in words."""
    numbers = {name: value.detach().float().mean().item() for name, value in losses.items()}
    bad = not all(map(_finite, numbers.values()))
    mine = (get_rank(), numbers, images_of(batch)) if bad else None
    found = all_gather_object(mine) if get_world_size() > 1 else [mine]
    lines = [f"iteration {iteration}: losses are NaN or infinite"]
    for rank, each, images in filter(None, found):
        process = f"process {rank}: " if len(found) > 1 else ""
        values = ", ".join(f"{name} {value:.4g}" for name, value in each.items())
        lines += [f"  {process}{values}", *(f"  image: {image}" for image in images)]
    return "\n".join(lines)


def images_of(batch: Any) -> list[str]:
    """The image files of a batch as data loaders make it."""
    samples = batch.get("data_samples", []) if isinstance(batch, dict) else []
    return [str(getattr(sample, "img_path", "unknown")) for sample in samples]


def _finite(value: float) -> bool:
    return abs(value) < float("inf")  # NaN compares as false
