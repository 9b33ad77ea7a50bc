"""A training, from the flags of ``tools/train.py`` to its end."""

import socket
import sys
from argparse import Namespace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import MODELS, OPTIM_WRAPPERS, OPTIMIZERS

from mmengine_agent.config_walk import type_name
from mmengine_agent.data.user_data import require_data
from mmengine_agent.errors import UserError
from mmengine_agent.preflight.checks import require_ready
from mmengine_agent.resume.newest import POINTER, newest_whole, point_at
from mmengine_agent.resume.switch_on import make_resumable
from mmengine_agent.run.find_lr import find_lr
from mmengine_agent.run.flags import apply_training_flags, set_guards
from mmengine_agent.run.lock import lock_work_dir
from mmengine_agent.run.plain_flags import apply_plain_flags
from mmengine_agent.run.processes import from_rank0, join_processes, was_restarted
from mmengine_agent.run.setup import build_runner, load_config


def train(args: Namespace) -> Config:
    """Train as flags ask, in this process and those that a launcher started with it.

    Returns:
        The config as it was run.

    Raises:
        UserError: if something is wrong that the user can mend.
    """
    cfg = load_config(args, "train_dataloader", "train_cfg", "optim_wrapper")
    join_processes(cfg)
    apply_plain_flags(cfg, args)
    apply_training_flags(cfg, args)
    fuse_optimizer(cfg)
    # whoever takes the config of the work directory later does not go on from where this run did
    own = {"resume": bool(cfg.get("resume")), "load_from": cfg.get("load_from")}
    cfg.resume, cfg.load_from = from_rank0(partial(prepare, cfg, args, was_restarted()))
    require_shared(cfg)
    hooks = cfg.get("custom_hooks", [])
    if not any(hook.type == "MeanLossHook" for hook in hooks):  # a dumped config has it already
        cfg.custom_hooks = [*hooks, {"type": "MeanLossHook"}]
    if args.find_lr is not None:
        find_lr(cfg, args.find_lr)
    else:
        make_resumable(cfg)
        set_guards(cfg, args)
        build_runner(cfg, dumped=own).train()
    return cfg


def fuse_optimizer(cfg: Config) -> None:
    """Have Adam's steps be one pass over each tensor, on the CPU; what a config says of it stays.

    torch's default there is an operation after the other. A resumed run goes on as it began, since
    a checkpoint has the answer too.
    """
    optimizer = cfg.optim_wrapper.get("optimizer") or {}
    answered = {"fused", "foreach", "capturable", "differentiable"} & optimizer.keys()
    if get_device() == "cpu" and type_name(optimizer) in ("Adam", "AdamW") and not answered:
        optimizer["fused"] = True


def prepare(cfg: Config, args: Namespace, restarted: bool) -> tuple[bool, str | None]:
    """Look for what would go wrong later, and lock the work directory.

    Returns:
        (resume, load_from) of the config as they are to be.

    Raises:
        UserError: with everything that was found.
    """
    resuming = partial(set_resume, cfg, args.resume, restarted)
    if args.no_checks:
        resuming()
    else:
        splits = ["train", *(["val"] if cfg.get("val_cfg") else [])]
        data, weights = partial(require_data, cfg, *splits), partial(require_weights, cfg.model)
        schedules = partial(require_schedules, cfg)
        kinds = partial(require_known_types, cfg)
        require_ready(cfg, resuming, data, weights, schedules, kinds, options=args.cfg_options)
    resume, start = bool(cfg.get("resume")), cfg.get("load_from")
    if args.find_lr is None:
        lock_work_dir(cfg.work_dir)
        if not resume or start:  # what is started again must not go on with another run's pointer
            point_at(cfg.work_dir, start if resume else None)
    return resume, start


def require_weights(model: Any) -> None:
    """Raise UserError if a backbone's pre-trained weights are a file that is not there."""
    init_cfg = model.get("backbone", {}).get("init_cfg")
    if not isinstance(init_cfg, dict) or "://" in init_cfg.get("checkpoint", "://"):
        return
    path = Path(init_cfg["checkpoint"])
    if not path.is_file():
        raise UserError(
            f"no pre-trained weights: looked for {path} (from {Path.cwd()}).\n"
            "docs/weights.md says where to get them. Other weights: --pretrained PATH; "
            "without any: --from-scratch"
        )


def require_schedules(cfg: Config) -> None:
    """Raise UserError if a scheduler ends before it begins, which mmengine refuses."""
    schedules = cfg.get("param_scheduler") or []
    for number, each in enumerate([schedules] if isinstance(schedules, dict) else schedules):
        begin, end = each.get("begin", 0), each.get("end")
        if end is not None and end <= begin:
            raise UserError(
                f"param_scheduler[{number}] ({each.type}) begins at {begin} and ends at {end}; end "
                f"must be larger: --cfg-options param_scheduler.{number}.end=NUMBER"
            )


def require_known_types(cfg: Config) -> None:
    """Raise UserError if a main part of the config has a type that nothing registered."""
    scope = cfg.get("default_scope") or "mmdet"
    places = [(f"model.{name}", part, MODELS) for name, part in cfg.model.items()]
    wrapper = cfg.optim_wrapper
    places += [("model", cfg.model, MODELS), ("optim_wrapper", wrapper, OPTIM_WRAPPERS)]
    places += [("optim_wrapper.optimizer", wrapper.get("optimizer"), OPTIMIZERS)]
    for path, part, known in places:
        kind = part.get("type") if isinstance(part, dict) else None
        with known.switch_scope_and_registry(scope) as registry:
            if isinstance(kind, str) and registry.get(kind) is None:
                near = get_close_matches(kind, registry.module_dict, 1)
                guess = f"; did you mean {near[0]}?" if near else ""
                raise UserError(f"{path}.type: nothing is registered as {kind}{guess}")


def set_resume(cfg: Config, resume: str | None, restarted: bool) -> None:
    """Resume from a file, or from the newest whole checkpoint of the work directory ('auto').

    Without any there, a run begins: a queue can start a job and start it again with one command.
    What torchrun starts again goes on with its own newest checkpoint, whatever was asked first.
    """
    if restarted and Path(cfg.work_dir, POINTER).is_file():
        resume = "auto"
    if resume is None:
        return
    found: Path | None = Path(resume)
    if resume == "auto":
        warn = partial(print, file=sys.stderr)
        found = newest_whole(cfg, warn)
        warn(f"--resume: {found or f'nothing in {cfg.work_dir}, so a new run begins'}")
    elif not Path(resume).is_file():
        raise UserError(f"--resume: there is no checkpoint {resume} (from {Path.cwd()})")
    elif not _looks_like_checkpoint(Path(resume)):
        raise UserError(f"--resume: {resume} is no checkpoint")
    cfg.resume = found is not None
    if found is not None:
        cfg.load_from = str(found)


def _looks_like_checkpoint(path: Path) -> bool:
    """Whether a file begins as a zip archive does, or, as older checkpoints, a pickle."""
    with path.open("rb") as file:
        return file.read(2).startswith((b"PK", b"\x80"))


def require_shared(cfg: Config) -> None:
    """Raise UserError if this machine does not see what the first one resumes from."""
    path = cfg.load_from if cfg.resume else None
    if path and "://" not in path and not Path(path).is_file():
        raise UserError(
            f"--resume: {socket.gethostname()} does not see {path} (from {Path.cwd()}); the work "
            "directory must be on a disk that all machines share"
        )
