"""Train a detector or a segmentor.

    python tools/train.py configs/agent_pvt_maskrcnn.py
    python tools/train.py configs/agent_pvt_maskrcnn.py --find-lr    # look for a learning rate
    python tools/train.py configs/agent_pvt_maskrcnn.py --data-root /data/mine \\
        --train-ann train.json --val-ann val.json --train-images images --val-images images

Several GPUs, or several CPU processes: bash tools/dist_train.sh CONFIG GPUS [flags].

SIGTERM or Ctrl-C saves and stops with exit code 75; the same command with --resume goes on, with
the results of a run that was never stopped (docs/stopping_and_going_on.md).
"""

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config

from agent_attention.openmmlab.data import require_data
from agent_attention.openmmlab.errors import UserError
from agent_attention.openmmlab.find_lr import find_lr
from agent_attention.openmmlab.guards import add_guard_flags, set_guards
from agent_attention.openmmlab.runtime import add_common_flags, build_runner, load_config, run_tool
from agent_attention.openmmlab.startup.checks import require_ready
from agent_attention.openmmlab.survive import make_resumable, newest_whole
from agent_attention.openmmlab.training import add_training_flags, apply_training_flags


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="config file, for example configs/agent_pvt_maskrcnn.py")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="PATH",
        help="go on from PATH, or from the newest whole checkpoint of the work directory, if any",
    )
    add_training_flags(parser)
    add_guard_flags(parser)
    add_common_flags(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    set_resume(cfg, args.resume)
    apply_training_flags(cfg, args)
    if not args.no_checks:
        check_all(cfg, args)
    hooks = cfg.get("custom_hooks", [])
    if not any(hook.type == "MeanLossHook" for hook in hooks):  # a dumped config has it already
        cfg.custom_hooks = [*hooks, {"type": "MeanLossHook"}]
    if args.find_lr is not None:
        find_lr(cfg, args.find_lr)
    else:
        make_resumable(cfg)
        set_guards(cfg, args)
        build_runner(cfg).train()


def check_all(cfg: Config, args: argparse.Namespace) -> None:
    """Raise UserError with everything that would go wrong later."""
    splits = ["train", *(["val"] if cfg.get("val_cfg") else [])]
    data, weights = partial(require_data, cfg, *splits), partial(require_weights, cfg.model)
    require_ready(cfg, data, weights, options=args.cfg_options)


def require_weights(model: Any) -> None:
    """Raise UserError if a backbone's pre-trained weights are a file that is not there."""
    init_cfg = model.get("backbone", {}).get("init_cfg")
    if not isinstance(init_cfg, dict) or "://" in init_cfg.get("checkpoint", "://"):
        return
    path = Path(init_cfg["checkpoint"])
    if not path.is_file():
        raise UserError(
            f"no pre-trained weights: looked for {path} (from {Path.cwd()}).\n"
            "docs/weights.md says where to get them. Other weights: --cfg-options "
            "model.backbone.init_cfg.checkpoint=PATH; from scratch: --cfg-options "
            "model.backbone.init_cfg=None"
        )


def set_resume(cfg: Config, resume: str | None) -> None:
    """Resume from a file, or from the newest whole checkpoint of the work directory ('auto').

    Without any there, a run begins: a queue can start a job and start it again with one command.
    """
    if resume is None:
        return
    if resume == "auto":
        found = newest_whole(cfg, say)
        say(f"--resume: {found or f'nothing in {cfg.work_dir}, so a new run begins'}")
    elif not (found := Path(resume)).is_file():
        raise UserError(f"--resume: there is no checkpoint {resume} (from {Path.cwd()})")
    cfg.resume = found is not None
    if found is not None:
        cfg.load_from = str(found)


def say(text: str) -> None:
    """One line on stderr, from one process."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr)


if __name__ == "__main__":
    run_tool(main)
