"""Losses that are NaN or infinite: no step is taken with them, on any rank.

The check sits between the losses and the backward pass: weights, optimizer and statistics of
normalisation stay as they were before the batch, and that is what is saved. It sees losses before
they are scaled for half precision: a gradient that overflows there is the loss scaler's business.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, all_reduce_params, get_rank, get_world_size
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
    accumulated, it counts as one of them, of gradient zero. The log repeats the losses before.

    Args:
        policy: 'stop' or 'skip'.
        limit: batches that 'skip' leaves out, those before a resume included; at the next one the
            run stops.
    """

    priority = "HIGHEST"  # before anything is done with the losses

    def __init__(self, policy: str = "stop", limit: int = 10) -> None:
        self.policy = policy
        self.limit = limit
        self.skipped = 0
        self.bad = False
        self.last: dict[str, Tensor] = {}  # losses that were finite
        self.statistics: list[tuple[Tensor, Tensor]] = []  # of normalisation: in use, copy

    def before_train(self, runner: Any) -> None:
        """Put the check before the step of the optimizer, and go on counting in a resumed run."""
        self.skipped = runner.message_hub.runtime_info.get(COUNT, 0)
        wrapper = runner.optim_wrapper
        wrapper.update_params = partial(self._update, wrapper, wrapper.update_params)
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
            self.last = {name: value.detach() for name, value in outputs.items()}
            return
        for buffer, copy in self.statistics:
            buffer.copy_(copy)
        told = _told(runner.iter + 1, outputs, data_batch)
        if not self._leaves_out() or _spoilt(runner.model):
            raise UserError(f"{told}\n{save_now(runner)}{self._advice()}")
        self.skipped += 1
        runner.message_hub.update_info(COUNT, self.skipped)
        runner.logger.warning(f"{told}\nleft out, as {self.skipped} of at most {self.limit}")
        outputs.clear()  # or the mean losses of the log are NaN from here on
        outputs.update(self.last)  # other hooks may want some

    def after_train(self, runner: Any) -> None:
        """Report the batches that were left out."""
        if self.policy == "skip" or self.skipped:
            runner.logger.warning(f"bad losses: {self.skipped} batches were left out")

    def _leaves_out(self) -> bool:
        return self.policy == "skip" and self.skipped < self.limit

    def _update(
        self, wrapper: Any, update: Callable[..., None], loss: Tensor, *args: Any, **kwargs: Any
    ) -> None:
        finite = torch.isfinite(loss.detach()).all().float()
        if get_world_size() > 1:
            all_reduce(finite, "min")
        self.bad = not finite.item()
        if not self.bad:
            update(loss, *args, **kwargs)
        elif self._leaves_out():
            _step_without(wrapper, loss)

    def _advice(self) -> str:
        if self.policy != "skip" or self.skipped < self.limit:
            return ""
        return f"\n--nan-limit is {self.limit}: this is no longer a matter of single batches"


def save_now(runner: Any) -> str:
    """Save the run as it was before this iteration, if that is possible; how to go on, in words.

    All ranks must call it.
    """
    if _spoilt(runner.model):
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
    except UserError as error:  # the losses are to be told all the same
        return f"Nothing was saved: {error}"
    return (
        f"The run was saved as it was before this batch: {path}\n"
        "Look at these images first (tools/prepare_data.py check). Then the same command with\n"
        "  --resume --nan=skip        leaves out such batches, up to --nan-limit of them\n"
        "  --resume --clip-grad 1     limits the steps that lead there\n"
        "A lower learning rate wants a new run, as --resume keeps the old one: --cfg-options "
        f"load_from={path} optim_wrapper.optimizer.lr=NUMBER"
    )


def _spoilt(model: torch.nn.Module) -> bool:
    weights = model.state_dict().values()
    return not all(torch.isfinite(each).all() for each in weights if each.is_floating_point())


def _step_without(wrapper: Any, loss: Tensor) -> None:
    """Count a batch as mmengine's ``update_params`` does, with a gradient of zero.

    The step that may be due is taken with what other iterations gave, if they gave anything.
    """
    wrapper.backward(loss.new_zeros((), requires_grad=True))  # of nothing that is trained
    if not wrapper.should_update():
        return
    trained = [p for group in wrapper.param_groups for p in group["params"] if p.requires_grad]
    given = torch.tensor(float(any(p.grad is not None for p in trained)), device=loss.device)
    if get_world_size() > 1:
        all_reduce(given, "max")
    if given and get_world_size() > 1:  # left to the backward pass that did not take place
        all_reduce_params([_gradient(p) for p in trained], op="mean")
    if given:
        wrapper.step()
    wrapper.zero_grad()


def _gradient(parameter: Any) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    gradient: Tensor = parameter.grad
    return gradient


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
