"""How a run is set up: config, data, processes. Shared by ``tools/train.py`` and ``test.py``."""

import os
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from mmengine_agent.data.user_data import DataFlags, point_at
from mmengine_agent.errors import UserError
from mmengine_agent.run.exit import one_line
from mmengine_agent.run.processes import export_slurm_rank, fit_to_cpu, join_processes
from mmengine_agent.swap_backbone import BackboneFlags, swap_backbone
from mmengine_agent.task import task_of


class KeyValues(DictAction):
    """``--cfg-options KEY=VALUE ...``; anything else is a usage error."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        for value in values:
            if "=" not in value:
                parser.error(f"--cfg-options takes KEY=VALUE, got {value}")
        super().__call__(parser, namespace, values, option_string)


def make_parser(help_text: str | None) -> ArgumentParser:
    """A parser for a tool, whose docstring is its help as it stands."""
    return ArgumentParser(description=help_text, formatter_class=RawDescriptionHelpFormatter)


def add_common_flags(parser: ArgumentParser, training: bool = False) -> None:
    """The flags that training and testing share."""
    parser.add_argument("--work-dir", metavar="DIR", help="default: work_dirs/<config name>")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=KeyValues,
        metavar="KEY=VALUE",
        help="settings of the config to change, such as train_dataloader.batch_size=4",
    )
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="%(choices)s",
    )
    # torchrun gives the rank in the environment; older launchers pass it as a flag
    parser.add_argument("--local-rank", "--local_rank", type=int, default=0)
    DataFlags.add_to(parser)
    BackboneFlags.add_to(parser, training)


def find_config(name: str) -> Path:
    """The file of a config: a path, or such as 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'.

    Raises:
        UserError: if there is none.
    """
    package, colons, inside = name.partition("::")
    if not colons:
        if not Path(name).is_file():
            place = f"{Path(name)} (from {Path.cwd()})"
            raise UserError(f"there is no config {place}; see the folder configs/")
        return Path(name)
    found = find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise UserError(f"{name}: there is no package {package} here")
    folder = Path(found.submodule_search_locations[0], ".mim/configs")
    path = folder / inside
    if not path.is_file():
        every = {each.stem: each.relative_to(folder) for each in folder.rglob("*.py")}
        near = [f"{package}::{every[each]}" for each in get_close_matches(path.stem, every)]
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UserError(f"{name}: {package} has no such config ({folder}){hint}")
    return path


def read_config(
    config: str,
    options: dict[str, Any] | None = None,
    backbone: BackboneFlags = BackboneFlags(),  # noqa: B008  (it cannot be changed)
) -> Config:
    """Read a config file, give it another backbone if one is named, and change settings of it.

    Raises:
        UserError: if the file is not there, cannot be read, or cannot take that backbone.
    """
    path = find_config(config)
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is the user's own code, and may raise anything
        raise UserError(f"cannot read the config {path}: {one_line(error)}") from error
    swap_backbone(cfg, backbone)
    try:
        cfg.merge_from_dict(options or {})
    except Exception as error:
        raise UserError(f"cannot read the config {path}: {one_line(error)}") from error
    return cfg


def load_config(args: Namespace) -> Config:
    """The config of a run: read, pointed at the user's data, with its work directory.

    Raises:
        UserError: if the config cannot be read or the data flags do not apply to it.
    """
    if args.launcher == "slurm":
        export_slurm_rank()  # before anything can fail: one process reports it
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    cfg = read_config(args.config, args.cfg_options, BackboneFlags.of(args))
    task_of(cfg)  # registers what the tools put into configs, whether or not the config imports it
    classes = point_at(cfg, DataFlags.of(args))
    if classes:
        print(f"{len(classes)} classes: {', '.join(classes)}")
    name = "_".join(filter(None, [Path(args.config).stem, getattr(args, "backbone", None)]))
    cfg.work_dir = args.work_dir or cfg.get("work_dir") or f"work_dirs/{name}"
    cfg.launcher = args.launcher
    return cfg


def build_runner(cfg: Config, dumped: Mapping[str, Any] | None = None) -> Runner:
    """The runner of a config, on GPUs or, where there are none, on the CPU.

    Args:
        cfg: the config.
        dumped: settings that the config in the work directory shall have in place of these.

    Raises:
        UserError: if the config describes something that cannot be built.
    """
    if cfg.get("strategy") or cfg.get("runner_type", "Runner") != "Runner":
        raise UserError(
            "the config asks for another runner (strategy, runner_type). Of several processes each "
            "holds the whole model here (DDP): FSDP and DeepSpeed are not supported, see "
            "docs/training_at_scale.md"
        )
    join_processes(cfg)
    if cfg.launcher != "none" and not torch.cuda.is_available():
        fit_to_cpu(cfg)
    try:
        runner = Runner.from_cfg(cfg)
    except (TypeError, ValueError, KeyError, ImportError) as error:
        raise UserError(f"cannot build what the config describes: {one_line(error)}") from error
    for hook in task_of(cfg).hooks():
        runner.register_hook(hook)
    used = {key: cfg.get(key) for key in dumped or {}}
    if used != (dumped or {}):
        runner.cfg.update(dumped)
        runner.dump_config()
        runner.cfg.update(used)
    return runner
