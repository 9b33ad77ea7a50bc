"""Test a checkpoint: box and mask mAP of a detector, mIoU of a segmentor.

    python tools/test.py CONFIG work_dirs/NAME/epoch_12.pth --show-dir pictures

The metrics are printed and written to <work dir>/metrics.json; evaluation.json beside it has what
tools/report.py shows. Several GPUs, or several CPU processes: bash tools/dist_test.sh CONFIG
CHECKPOINT GPUS [flags].
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner.checkpoint import CheckpointLoader

from agent_attention.weights.fit import unwrap
from mmengine_agent.data.user_data import require_data
from mmengine_agent.errors import UserError
from mmengine_agent.files import write_file
from mmengine_agent.predict.model import require_fit
from mmengine_agent.preflight.checks import require_sound
from mmengine_agent.report.record import add_record, write_record
from mmengine_agent.run.exit import run_tool
from mmengine_agent.run.guard_flags import guard_loading
from mmengine_agent.run.setup import add_common_flags, build_runner, load_config
from mmengine_agent.run.tta import set_tta
from mmengine_agent.task import task_of


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="config file, for example configs/agent_pvt_maskrcnn.py")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("--out", metavar="FILE.pkl", help="write the predictions to this file")
    parser.add_argument("--show-dir", metavar="DIR", help="draw predictions next to the truth")
    parser.add_argument(
        "--tta",
        action="store_true",
        help="test-time augmentation: the config's, or three scales, each mirrored too",
    )
    add_common_flags(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    if not Path(args.checkpoint).is_file():
        raise UserError(f"there is no checkpoint {args.checkpoint} (from {Path.cwd()})")
    require_data(cfg, "test")
    require_sound(cfg)
    guard_loading(cfg)
    drop_pretrained(cfg.model)
    cfg.load_from, cfg.resume = args.checkpoint, False  # resuming takes training data, too
    if args.show_dir:
        set_show_dir(cfg, args.show_dir)
    if args.tta:
        set_tta(cfg)
    if args.out:
        add_dump(cfg, args.out)

    started = time.time()
    runner = build_runner(cfg)
    require_weights(runner.model, args.checkpoint)
    record = add_record(runner, cfg)
    metrics = runner.test()
    if is_main_process():
        write_metrics(Path(cfg.work_dir, "metrics.json"), args, metrics, time.time() - started)
        write_record(record, Path(cfg.work_dir), config=args.config, checkpoint=args.checkpoint)


def require_weights(model: Any, path: str) -> None:
    """Raise UserError if the checkpoint lacks any of the model's weights; mmengine only warns."""
    try:
        found = unwrap(CheckpointLoader.load_checkpoint(path, "cpu"), backbone=False)
    except ValueError as error:
        raise UserError(f"cannot load {path}: {error}") from error
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    require_fit(model, found, path)


def drop_pretrained(model: Any) -> None:
    """The checkpoint brings all weights: ImageNet's are not needed, and need not be there."""
    if model.get("backbone", {}).get("init_cfg"):
        model.backbone.init_cfg = None


def set_show_dir(cfg: Config, folder: str) -> None:
    """Draw every prediction beside its ground truth, into ``folder``."""
    hook = cfg.get("default_hooks", {}).get("visualization")
    if hook is None:
        raise UserError("--show-dir: the config has no default_hooks.visualization to draw with")
    hook.draw = True
    hook.interval = 1  # mmseg's hook may skip pictures in testing too
    task_of(cfg).show_predictions(cfg, folder)


def add_dump(cfg: Config, path: str) -> None:
    """Add an evaluator that pickles the predictions."""
    if Path(path).suffix not in (".pkl", ".pickle"):
        raise UserError(f"--out: predictions are pickled, name a .pkl file; got {path}")
    evaluators = cfg.test_evaluator
    dump = {"type": task_of(cfg).dump, "out_file_path": path}
    cfg.test_evaluator = (evaluators if isinstance(evaluators, list) else [evaluators]) + [dump]


def write_metrics(
    path: Path, args: argparse.Namespace, metrics: dict[str, float], seconds: float
) -> None:
    """Write the metrics as JSON, whole or not at all."""
    report = {
        "config": args.config,
        "checkpoint": args.checkpoint,
        "metrics": {key: float(value) for key, value in metrics.items()},
        "seconds": round(seconds, 1),
    }
    write_file(path, json.dumps(report, indent=2) + "\n")
    print(f"metrics: {path}")


if __name__ == "__main__":
    run_tool(main)
