"""The test of a checkpoint, from the flags of ``tools/test.py`` to its metrics."""

import copy
import json
import time
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner

from agent_attention.weights.fit import unwrap
from mmengine_agent.checkpoints import load_local
from mmengine_agent.data.user_data import require_data
from mmengine_agent.errors import UserError
from mmengine_agent.export.scores import is_exported, require_exported, use_exported
from mmengine_agent.files import write_file
from mmengine_agent.predict.model import require_fit
from mmengine_agent.preflight.checks import require_sound
from mmengine_agent.report.record import add_record, write_record
from mmengine_agent.run.flags import guard_loading
from mmengine_agent.run.plain_flags import apply_plain_flags
from mmengine_agent.run.processes import from_rank0, join_processes
from mmengine_agent.run.setup import build_runner, load_config
from mmengine_agent.run.tta import set_tta
from mmengine_agent.task import task_of

_OWN = ("model", "test_dataloader", "test_evaluator", "load_from", "resume")


def test(args: Namespace) -> dict[str, float]:
    """Test as flags ask, in this process and those that a launcher started with it.

    Returns:
        The metrics.

    Raises:
        UserError: if something is wrong that the user can mend.
    """
    cfg = load_config(args, "test_dataloader")
    join_processes(cfg)
    apply_plain_flags(cfg, args, "test_dataloader")
    from_rank0(partial(require_testable, cfg, args))
    guard_loading(cfg)
    if cfg.model.get("backbone", {}).get("init_cfg"):
        cfg.model.backbone.init_cfg = None  # the checkpoint brings all weights
    # whoever takes the config of the work directory later finds the model, not what tests it
    own = copy.deepcopy({key: cfg.get(key) for key in _OWN})
    cfg.load_from, cfg.resume = args.checkpoint, False  # resuming takes training data, too
    if is_exported(args.checkpoint):
        use_exported(cfg, args.checkpoint)
    if args.show_dir:
        set_show_dir(cfg, args.show_dir)
    if args.tta:
        set_tta(cfg)
    if args.out:
        evaluators = cfg.test_evaluator
        dump = {"type": task_of(cfg).dump, "out_file_path": args.out}
        cfg.test_evaluator = [*(evaluators if isinstance(evaluators, list) else [evaluators]), dump]

    started = time.time()
    runner = build_runner(cfg, dumped=own)
    runner.register_hook(CompleteWeightsHook())
    record = add_record(runner, cfg)
    metrics = {name: float(value) for name, value in runner.test().items()}
    if is_main_process():
        write_metrics(Path(cfg.work_dir, "metrics.json"), args, metrics, time.time() - started)
        write_record(record, Path(cfg.work_dir), config=args.config, checkpoint=args.checkpoint)
    return metrics


def require_testable(cfg: Config, args: Namespace) -> None:
    """Raise UserError with what would stop a test later."""
    if not Path(args.checkpoint).is_file():
        raise UserError(f"there is no checkpoint {args.checkpoint} (from {Path.cwd()})")
    if args.out and Path(args.out).suffix not in (".pkl", ".pickle"):
        raise UserError(f"--out: predictions are pickled, name a .pkl file; got {args.out}")
    require_data(cfg, "test")
    require_sound(cfg)
    if is_exported(args.checkpoint):
        require_exported(cfg, args)
        return
    try:
        unwrap(load_local(args.checkpoint), backbone=False)
    except ValueError as error:
        raise UserError(f"cannot load {args.checkpoint}: {error}") from error


class CompleteWeightsHook(Hook):
    """Raises UserError if a checkpoint lacks any of the model's weights; mmengine only warns."""

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        model: Any = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        require_fit(model, unwrap(checkpoint, backbone=False), runner.cfg.load_from)


def set_show_dir(cfg: Config, folder: str) -> None:
    """Draw every prediction next to its ground truth, into ``folder``."""
    hook = cfg.get("default_hooks", {}).get("visualization")
    if hook is None:
        raise UserError("--show-dir: the config has no default_hooks.visualization to draw with")
    hook.draw = True
    hook.interval = 1  # mmseg's hook may skip pictures in testing too
    task_of(cfg).show_predictions(cfg, folder)


def write_metrics(path: Path, args: Namespace, metrics: dict[str, float], seconds: float) -> None:
    """Write the metrics as JSON."""
    report = {
        "config": args.config,
        "checkpoint": args.checkpoint,
        "metrics": metrics,
        "seconds": round(seconds, 1),
    }
    write_file(path, json.dumps(report, indent=2) + "\n")
    print(f"metrics: {path}")
