"""Time a detector's or a segmentor's training and inference step, part by part.

    python tools/make_demo_data.py
    python benchmarks/steps.py configs/demo/agent_pvt_maskrcnn_demo.py

Data are loaded in this process unless --workers says otherwise, so that their part is what they
cost, and weights are random unless --checkpoint is given: what comes after an untrained detector's
heads may take longer or shorter than after a trained one. Writes DIR/steps-NAME.json and .png.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import reporting
import torch
from candidates import at_least
from measure import synchronize
from mmengine.config import Config
from mmengine.runner import Runner

from mmengine_agent.data.user_data import require_data
from mmengine_agent.errors import UserError
from mmengine_agent.run.exit import run_tool
from mmengine_agent.run.setup import add_common_flags, build_runner, load_config
from mmengine_agent.run.train import fuse_optimizer

TRAINING = ("data", "backbone", "neck and heads, loss", "backward", "optimizer")
INFERENCE = ("data", "backbone", "neck and heads, results")

Parts = dict[str, float]  # seconds by part


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="for example configs/demo/agent_pvt_maskrcnn_demo.py")
    parser.add_argument("--checkpoint", metavar="PATH", help="weights of the whole model")
    parser.add_argument("--threads", type=at_least(1), help="CPU threads of torch")
    parser.add_argument("--repeats", type=at_least(1), default=7, help="steps (%(default)s)")
    parser.add_argument(
        "--workers", type=at_least(0), default=0, help="that load data (%(default)s)"
    )
    parser.add_argument("--out", default="work_dirs/benchmarks", metavar="DIR", help="%(default)s")
    add_common_flags(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    name = f"steps-{Path(args.config).stem}"
    if args.launcher != "none":
        raise UserError("--launcher: steps are timed in one process; leave the flag out")
    args.work_dir = args.work_dir or str(Path(args.out, name))
    cfg = load_config(args)
    require_data(cfg, "train", "test")
    prepare(cfg, args.checkpoint, args.workers)
    fuse_optimizer(cfg)  # as tools/train.py does
    runner = build_runner(cfg)
    runner.load_or_resume()
    if args.threads:  # a config may set the number too
        torch.set_num_threads(args.threads)
    reporting.say(f"{args.config}: {args.repeats} steps of training and of inference ...")
    found = {
        "training": repeated(training(runner), args.repeats),
        "inference": repeated(inference(runner), args.repeats),
    }
    path = Path(args.out, f"{name}.json")
    batches = {mode: cfg[f"{loader}_dataloader"].batch_size for mode, loader in LOADERS.items()}
    head = {**reporting.header(), "config": args.config, "workers": args.workers, "batch": batches}
    medians = {mode: median_parts(steps) for mode, steps in found.items()}
    reporting.write_json(path, {**head, "medians": medians, "steps": found})
    draw(path.with_suffix(".png"), medians)
    print(as_table(medians))
    print(f"written: {path}, {path.with_suffix('.png')}")


LOADERS = {"training": "train", "inference": "test"}


def prepare(cfg: Config, checkpoint: str | None, workers: int) -> None:
    """Set the loaders' processes and the weights, and keep the log to what is wrong.

    Raises:
        UserError: if there is no such checkpoint.
    """
    if checkpoint and not Path(checkpoint).is_file():
        raise UserError(f"there is no checkpoint {checkpoint} (from {Path.cwd()})")
    cfg.load_from = checkpoint
    cfg.resume = False
    cfg.log_level = "ERROR"
    if cfg.model.get("backbone", {}).get("init_cfg"):
        cfg.model.backbone.init_cfg = None  # pre-trained weights need not be there
    for name in LOADERS.values():
        loader = cfg[f"{name}_dataloader"]
        loader.num_workers = workers
        loader.persistent_workers = workers > 0
        if not workers:
            loader.pop("prefetch_factor", None)


# --- measuring


class Clock:
    """Seconds since the last mark, by part."""

    def __init__(self) -> None:
        self.parts: Parts = {}
        self.last = time.perf_counter()

    def mark(self, part: str) -> None:
        """Add the time since the last mark to a part."""
        synchronize()
        now = time.perf_counter()
        self.parts[part] = self.parts.get(part, 0.0) + now - self.last
        self.last = now


@contextmanager
def backbone_marks(model: Any, clock: Clock, before: str) -> Iterator[None]:
    """Mark where each call of the backbone starts, which ends ``before``, and where it ends."""
    hooks = (
        model.backbone.register_forward_pre_hook(lambda *_: clock.mark(before)),
        model.backbone.register_forward_hook(lambda *_: clock.mark("backbone")),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def repeated(step: Callable[[], Parts], repeats: int) -> list[Parts]:
    """The parts of steps, after one to warm up."""
    step()
    return [step() for _ in range(repeats)]


def endless(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


def training(runner: Runner) -> Callable[[], Parts]:
    """A training step of the config, its optimizer included."""
    model = runner.model
    batches = endless(runner.build_dataloader(runner.cfg.train_dataloader))
    optim = runner.build_optim_wrapper(runner.cfg.optim_wrapper)
    heads = TRAINING[2]
    model.train()

    def step() -> Parts:
        clock = Clock()
        data = model.data_preprocessor(next(batches), True)
        clock.mark("data")
        with optim.optim_context(model), backbone_marks(model, clock, heads):
            losses = model(**data, mode="loss")
            loss, _ = model.parse_losses(losses)
            clock.mark(heads)
        optim.backward(optim.scale_loss(loss))
        clock.mark("backward")
        optim.step()
        optim.zero_grad()
        clock.mark("optimizer")
        return clock.parts

    return step


def inference(runner: Runner) -> Callable[[], Parts]:
    """An inference step with its postprocessing, metrics excluded."""
    model = runner.model
    batches = endless(runner.build_dataloader(runner.cfg.test_dataloader))
    heads = INFERENCE[2]
    model.eval()  # once: a change of mode may drop what a model keeps

    def step() -> Parts:
        clock = Clock()
        data = model.data_preprocessor(next(batches), False)
        clock.mark("data")
        with torch.no_grad(), backbone_marks(model, clock, heads):
            model(**data, mode="predict")
            clock.mark(heads)
        return clock.parts

    return step


# --- results


def median_parts(steps: list[Parts]) -> Parts:
    """Median by part, and of the whole step."""
    parts = {part: statistics.median(step[part] for step in steps) for part in steps[0]}
    return {**parts, "in all": statistics.median(sum(step.values()) for step in steps)}


def as_table(medians: dict[str, Parts]) -> str:
    rows = []
    for mode, order in (("training", TRAINING), ("inference", INFERENCE)):
        parts = medians[mode]
        for part in (*order, "in all"):
            share = f"{100 * parts[part] / parts['in all']:.0f} %"
            rows.append([mode, part, reporting.milliseconds(parts[part]), share])
    return reporting.table(("step", "part", "ms", "share"), rows, labels=2)


def draw(path: Path, medians: dict[str, Parts]) -> None:
    """A bar a step, stacked from its parts."""
    figure, axes = reporting.subplots(1, 1)
    axis = axes[0, 0]
    parts = list(dict.fromkeys([*TRAINING, *INFERENCE]))
    left = dict.fromkeys(medians, 0.0)
    for number, part in enumerate(parts):
        widths = {mode: 1e3 * medians[mode].get(part, 0.0) for mode in medians}
        axis.barh(
            list(medians), list(widths.values()), left=list(left.values()), color=f"C{number}"
        )
        left = {mode: left[mode] + widths[mode] for mode in medians}
    axis.legend(parts, fontsize="small")
    axis.set_xlabel("ms")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    run_tool(main)
