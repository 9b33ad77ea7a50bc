"""What a training costs beside its model: waiting for data, hooks, logging, a checkpoint.

    python tools/make_demo_data.py
    python benchmarks/run_costs.py configs/demo/agent_pvt_maskrcnn_demo.py --iters 20

Trains a config for some iterations as ``tools/train.py`` would, with the config's own workers and
all hooks, and a checkpoint at the end. Times are means over all iterations but the first two, which
warm up, and shares those of an iteration; that of the checkpoint, and what it is of the iterations
between two, stand in a line of their own. Writes DIR/run-costs-NAME.json.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import reporting
import torch
from candidates import at_least
from measure import synchronize
from mmengine.runner import Runner

from mmengine_agent.data.user_data import require_data
from mmengine_agent.resume.switch_on import make_resumable
from mmengine_agent.run.exit import run_tool
from mmengine_agent.run.flags import add_training_flags, apply_training_flags, set_guards
from mmengine_agent.run.setup import add_common_flags, build_runner, load_config
from mmengine_agent.run.train import fuse_optimizer

WARM_UP = 2  # iterations
STAGES = ("before_train_iter", "after_train_iter")
TITLES = ("part", "ms", "of an iteration")

Times = dict[str, list[float]]  # seconds by part, one an iteration


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="for example configs/demo/agent_pvt_maskrcnn_demo.py")
    parser.add_argument("--iters", type=at_least(WARM_UP + 2), default=20, help="%(default)s")
    parser.add_argument("--threads", type=at_least(1), help="CPU threads of torch")
    parser.add_argument("--out", default="work_dirs/benchmarks", metavar="DIR", help="%(default)s")
    add_common_flags(parser)
    add_training_flags(parser)
    args = parser.parse_args()
    name = f"run-costs-{Path(args.config).stem}"
    args.work_dir = args.work_dir or str(Path(args.out, name))
    runner = prepared(args)
    if args.threads:
        torch.set_num_threads(args.threads)
    found = measured(runner)
    checkpoint = found["SafeCheckpointHook"].pop()
    found["in all"][-1] -= checkpoint
    means = {part: statistics.fmean(each[WARM_UP:]) for part, each in found.items()}
    path = Path(args.out, f"{name}.json")
    head = {**reporting.header(), "config": args.config, "iterations": args.iters}
    reporting.write_json(path, {**head, "means": means, "checkpoint": checkpoint})
    print(as_table(means))
    many = checkpoint / means["in all"]
    print(f"a checkpoint: {checkpoint:.2f} s, as long as {many:.1f} iterations")
    print(f"written: {path}")


def prepared(args: argparse.Namespace) -> Runner:
    """The runner of a training by iterations, with a checkpoint at its end and no validation."""
    cfg = load_config(args, "train_dataloader", "train_cfg", "optim_wrapper")
    apply_training_flags(cfg, args)
    require_data(cfg, "train")
    if cfg.model.get("backbone", {}).get("init_cfg"):
        cfg.model.backbone.init_cfg = None  # pre-trained weights need not be there
    cfg.train_cfg = {"type": "IterBasedTrainLoop", "max_iters": args.iters}
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.param_scheduler = [{"type": "ConstantLR", "by_epoch": False, "factor": 1.0}]
    cfg.log_processor = {**(cfg.get("log_processor") or {}), "by_epoch": False}
    last = {"type": "CheckpointHook", "by_epoch": False, "interval": args.iters}
    cfg.default_hooks = {**cfg.default_hooks, "checkpoint": last}
    cfg.custom_hooks = [*cfg.get("custom_hooks", []), {"type": "MeanLossHook"}]
    fuse_optimizer(cfg)
    make_resumable(cfg)
    set_guards(cfg, args)
    return build_runner(cfg)


def measured(runner: Runner) -> Times:
    """Seconds of each iteration by part; a hook is a part, and so is the waiting for a batch."""
    found: Times = defaultdict(list)
    ends: list[float] = []

    def timed(call: Callable[..., Any], part: str, more: bool = False) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            synchronize()
            start = time.perf_counter()
            result = call(*args, **kwargs)
            synchronize()
            took = time.perf_counter() - start
            if more:  # to what the hook took before the step
                found[part][-1] += took
            else:
                found[part].append(took)
            return result

        return run

    def iteration(*args: Any) -> None:
        start = time.perf_counter()
        found["waiting for data"].append(start - ends[-1] if ends else 0.0)
        run_iter(*args)
        ends.append(time.perf_counter())
        found["in all"].append(ends[-1] - start + found["waiting for data"][-1])

    for hook in runner.hooks:
        for stage in STAGES:
            part = type(hook).__name__
            setattr(hook, stage, timed(getattr(hook, stage), part, more=stage == STAGES[1]))
    model: Any = runner.model
    model.train_step = timed(model.train_step, "model and optimizer")
    loop: Any = runner.train_loop
    run_iter, loop.run_iter = loop.run_iter, iteration
    runner.train()
    return found


def as_table(means: dict[str, float]) -> str:
    """Parts by their share, those below a thousandth in one line."""
    whole = means["in all"]
    named = sorted(means, key=means.__getitem__, reverse=True)
    small = [part for part in named if means[part] < 1e-3 * whole]
    shown = {part: means[part] for part in named if part not in small}
    shown["all others"] = sum(means[part] for part in small)
    rows = [
        [part, reporting.milliseconds(each), f"{100 * each / whole:.2f} %"]
        for part, each in shown.items()
    ]
    return reporting.table(TITLES, rows)


if __name__ == "__main__":
    run_tool(main)
