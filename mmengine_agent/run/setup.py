"""How a run is set up: config, data, processes. Shared by ``tools/train.py`` and ``test.py``."""

import os
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from mmengine_agent.backbone_flags import BackboneFlags
from mmengine_agent.command_names import as_called
from mmengine_agent.config_names import locate_config
from mmengine_agent.data.user_data import DataFlags, point_at
from mmengine_agent.errors import UserError, one_line
from mmengine_agent.run.processes import export_slurm_rank, fit_to_cpu, join_processes
from mmengine_agent.swap_backbone import swap_backbone
from mmengine_agent.task import task_of

_NUMBERS = count(2)  # of runs of one process, from the second on


class KeyValues(DictAction):
    """``--cfg-options KEY=VALUE ...``; anything else is a usage error."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        for value in values:
            if "=" not in value:
                parser.error(f"--cfg-options takes KEY=VALUE, got {value}")
        super().__call__(parser, namespace, values, option_string)


def make_parser(help_text: str | None) -> ArgumentParser:
    """A parser for a tool, whose docstring is its help as it stands."""
    text = as_called(help_text or "")
    return ArgumentParser(description=text, formatter_class=RawDescriptionHelpFormatter)


def add_config_flags(parser: ArgumentParser, training: bool = False, agents: bool = True) -> None:
    """The flags that ``config_of`` looks at, beside the positional ``config``."""
    text = "settings of the config to change, such as train_dataloader.batch_size=4"
    add = parser.add_argument
    add("--cfg-options", nargs="+", action=KeyValues, metavar="KEY=VALUE", help=text)
    BackboneFlags.add_to(parser, training, agents)


def add_common_flags(parser: ArgumentParser, training: bool = False) -> None:
    """The flags that training and testing share."""
    add, launchers = parser.add_argument, ["none", "pytorch", "slurm", "mpi"]
    add("--work-dir", metavar="DIR", help="default: work_dirs/<config name>")
    add("--launcher", choices=launchers, default="none", help="%(choices)s")
    # torchrun gives the rank in the environment; older launchers pass it as a flag
    add("--local-rank", "--local_rank", type=int, default=0)
    DataFlags.add_to(parser)
    add_config_flags(parser, training)


def config_of(args: Namespace) -> Config:
    """The config that a command line asks for, by ``read_config``."""
    return read_config(args.config, args.cfg_options, BackboneFlags.of(args))


def read_config(
    config: str,
    options: dict[str, Any] | None = None,
    backbone: BackboneFlags = BackboneFlags(),  # noqa: B008  (it cannot be changed)
) -> Config:
    """Read a config, by its path or name, give it another backbone if asked, and change settings.

    Raises:
        UserError: if the file is not there, cannot be read, or cannot take that backbone.
    """
    path = locate_config(config)
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is the user's own code, and may raise anything
        raise UserError(f"cannot read the config {path}: {one_line(error)}") from error
    require_keys(cfg, "model")
    swap_backbone(cfg, backbone)
    try:
        cfg.merge_from_dict(options or {})
    except Exception as error:
        raise UserError(f"cannot read the config {path}: {one_line(error)}") from error
    return cfg


def require_keys(cfg: Config, *names: str) -> None:
    """Raise UserError if parts of a config that a tool needs are absent, or no dicts."""
    missing = [name for name in names if not isinstance(cfg.get(name), dict)]
    if missing:
        raise UserError(f"the config {cfg.filename} has no {' and no '.join(missing)}")


def load_config(args: Namespace, *needed: str) -> Config:
    """The config of a run: read, pointed at the user's data, with its work directory.

    Args:
        args: flags.
        needed: parts that the run needs, beside the model.

    Raises:
        UserError: if the config cannot be read or the data flags do not apply to it.
    """
    if args.launcher == "slurm":
        export_slurm_rank()  # before anything can fail: one process reports it
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    cfg = config_of(args)
    require_keys(cfg, "model", *needed)
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
    name = (cfg.get("visualizer") or {}).get("name")
    if name and Visualizer.check_instance_created(name):  # an earlier run of this process has it
        cfg.visualizer.name = f"{name} {next(_NUMBERS)}"
    try:
        runner = Runner.from_cfg(cfg)
    except (TypeError, ValueError, KeyError, ImportError) as error:
        raise UserError(f"cannot build what the config describes: {one_line(error)}") from error
    model = runner.model
    task_of(cfg).guard_model(model.module if is_model_wrapper(model) else model)
    for hook in task_of(cfg).hooks():
        runner.register_hook(hook)
    used = {key: cfg.get(key) for key in dumped or {}}
    if used != (dumped or {}):
        runner.cfg.update(dumped)
        runner.dump_config()
        runner.cfg.update(used)
    return runner
