"""Losses that are no numbers: a run stops and saves, or leaves the batch out."""

from pathlib import Path
from typing import Any

import fork_server
import numpy as np
import pytest
import torch
from mmdet.engine import hooks as mmdet_hooks
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import Runner
from tool_runs import ROOT, logged, output, run
from toy_runs import ToyData, ToyModel, toy_config, toy_run

from mmengine_agent.checkpoints import load_local
from mmengine_agent.errors import UserError
from mmengine_agent.resume.newest import newest_whole

__all__ = ["mmdet_hooks"]  # hooks that runs name

Parts = dict[str, Any]
STOP = {"type": "BadLossesHook", "policy": "stop"}
SKIP = {"type": "BadLossesHook", "policy": "skip"}
ACCUMULATE = "optim_wrapper.accumulative_counts"


def same(one: Parts, other: Parts) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_bad_losses_stop_and_save_what_was_before(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        toy_run(tmp_path / "bad", STOP, bad=(7,))
    text = str(caught.value)
    saved = tmp_path / "bad/interrupted.pth"
    for words in ("iteration 4:", "loss_fit nan", "photos/6.jpg", "photos/7.jpg", str(saved)):
        assert words in text
    assert "photos/5.jpg" not in text
    alone = toy_run(tmp_path / "short", STOP, without=(6, 7, 8, 9, 10, 11))
    checkpoint = load_local(str(saved))
    assert same(checkpoint["state_dict"], alone.model.state_dict())
    assert checkpoint["meta"]["iter"] == 3 and "optimizer" in checkpoint


def going_on(folder: Path, *hooks: Parts, options: Parts, **data: Any) -> Any:
    """Train from what ``--resume`` finds in a work directory."""
    cfg = toy_config(folder, *hooks, options=options, **data)
    cfg.resume, cfg.load_from = True, str(newest_whole(cfg, print))
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


@pytest.mark.parametrize("counts", [1, 2, 3])
def test_a_run_that_stopped_goes_on_as_if_nothing_had_been(counts: int, tmp_path: Path) -> None:
    """With gradients that wait for their step, and with averages; the image is mended between."""
    average = {"type": "EMAHook", "momentum": 0.2}
    options = {ACCUMULATE: counts}
    whole = toy_run(tmp_path / "whole", STOP, average, options=options)
    with pytest.raises(UserError, match=r"interrupted\.pth"):
        toy_run(tmp_path / "bad", STOP, average, options=options, bad=(9,))
    resumed = going_on(tmp_path / "bad", STOP, average, options=options)
    assert same(resumed.model.state_dict(), whole.model.state_dict())
    kept = [load_local(f"{tmp_path}/{name}/epoch_1.pth") for name in ("whole", "bad")]
    assert same(kept[0]["ema_state_dict"], kept[1]["ema_state_dict"])
    assert not (tmp_path / "bad/interrupted.pth").exists()


def test_without_a_hook_that_saves_the_losses_are_told_all_the_same(tmp_path: Path) -> None:
    options = {"default_hooks.checkpoint": None}
    with pytest.raises(UserError, match=r"photos/7.jpg\nNothing was saved: the config"):
        toy_run(tmp_path, STOP, options=options, bad=(7,))


@pytest.mark.parametrize("hook", [STOP, SKIP], ids=lambda hook: hook["policy"])
def test_weights_that_are_spoilt_are_not_saved(hook: Parts, tmp_path: Path) -> None:
    """No batch can be left out then: all that come are bad."""
    options = {"optim_wrapper.optimizer.lr": float("inf")}
    with pytest.raises(UserError, match=r"iteration 2: .*(?s:.*)weights are NaN or infinite too"):
        toy_run(tmp_path, hook, options=options)
    assert not list(tmp_path.glob("*.pth"))


def test_leaving_a_batch_out_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    skipped = toy_run(tmp_path / "bad", SKIP, bad=(7,))
    without = toy_run(tmp_path / "without", STOP, without=(6, 7))
    assert same(skipped.model.state_dict(), without.model.state_dict())
    log = next((tmp_path / "bad").glob("*/*.log")).read_text()
    assert "photos/7.jpg" in log and "1 batches were left out" in log
    losses = [each["loss"] for each in logged(tmp_path / "bad")]
    assert len(losses) == 6 and np.isfinite(losses).all()


@pytest.mark.parametrize("bad", [(2,), (4,), (10,), (0, 2, 4)], ids=str)
def test_a_bad_batch_adds_nothing_to_accumulated_gradients(
    bad: tuple[int, ...], tmp_path: Path
) -> None:
    """And steps stay in time. The last batch of a step, as number 4, takes the step with it."""
    runner = toy_run(tmp_path, SKIP, options={ACCUMULATE: 3}, bad=bad)
    model, data = ToyModel(), ToyData()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for first in (0, 6):
        for number in range(first, first + 6, 2):
            if number not in bad:
                inputs = [data[number]["inputs"], data[number + 1]["inputs"]]
                (sum(model(inputs, None).values()) / 3).backward()
        if first + 4 not in bad:
            optimizer.step()
        optimizer.zero_grad()
    assert same(runner.model.state_dict(), model.state_dict())


def scaled_run(folder: Path, scale: float, **data: Any) -> Runner:
    """Half precision's loss scaling on the CPU, where mmengine's own asks for a GPU."""
    options = {"optim_wrapper.type": "ScaledOptimWrapper", "optim_wrapper.scale": scale}
    return toy_run(folder, SKIP, options=options, **data)


@OPTIM_WRAPPERS.register_module()
class ScaledOptimWrapper(AmpOptimWrapper):
    """``AmpOptimWrapper`` with what it refuses to make on the CPU."""

    def __init__(self, scale: float, **arguments: Any) -> None:
        OptimWrapper.__init__(self, **arguments)
        self._scale_update_param = None
        self.loss_scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        self.cast_dtype = torch.bfloat16


def test_gradients_that_overflow_are_left_to_the_loss_scaler(tmp_path: Path) -> None:
    runner = scaled_run(tmp_path, 2.0**127)
    assert runner.optim_wrapper.loss_scaler.get_scale() < 2.0**127
    assert "bad_losses" not in runner.message_hub.runtime_info


def test_the_loss_scale_does_not_fall_for_bad_losses(tmp_path: Path) -> None:
    runner = scaled_run(tmp_path, 1024.0, bad=(2, 7))
    assert runner.optim_wrapper.loss_scaler.get_scale() == 1024
    assert runner.message_hub.get_info("bad_losses") == 2
    assert all(torch.isfinite(each).all() for each in runner.model.state_dict().values())


def test_another_check_of_losses_does_not_mind(tmp_path: Path) -> None:
    """mmdet's, which many of its configs have."""
    other = {"type": "mmdet.CheckInvalidLossHook", "interval": 1}
    toy_run(tmp_path / "skip", SKIP, other, bad=(7,))
    with pytest.raises(UserError, match="iteration 4"):
        toy_run(tmp_path / "stop", STOP, other, bad=(7,))


def test_too_many_bad_batches_stop_the_run_also_when_it_goes_on(tmp_path: Path) -> None:
    for run_on in (toy_run, going_on):
        with pytest.raises(UserError, match=r"batches were left out .*nan-limit") as caught:
            run_on(tmp_path, {**SKIP, "limit": 1}, options={}, bad=(3, 8))
        assert "iteration 5:" in str(caught.value) and "photos/8.jpg" in str(caught.value)
    runner = going_on(tmp_path, {**SKIP, "limit": 2}, options={}, bad=(3, 8))
    assert runner.message_hub.get_info("bad_losses") == 2


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_processes_decide_together(policy: str, tmp_path: Path) -> None:
    """The batch that is left out is the one after which gradients would be averaged."""
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    program = [str(ROOT / "tests/toy_runs.py"), str(tmp_path), "7", policy, "2"]
    done = run(fork_server.interpreter()["PYTHON"], *launch, *program, cwd=tmp_path)
    # samples go to the processes in turn: number 7 comes to process 1, in its second batch
    if policy == "skip":
        output(done)
        one, other = (torch.load(tmp_path / f"weights.{rank}.pt") for rank in (0, 1))
        assert torch.equal(one["layer.weight"], other["layer.weight"])
        assert all(torch.isfinite(each).all() for each in other.values())
        return
    assert done.returncode != 0
    text = done.stderr.partition("error in process 0 of 2: ")[2].partition("Look at these")[0]
    assert "iteration 2:" in text and "process 1: " in text and "process 0" not in text
    assert "photos/7.jpg" in text and (tmp_path / "interrupted.pth").is_file()
    assert "Traceback" not in text
