"""How a run is set up: config, data, processes. Shared by ``tools/train.py`` and ``test.py``."""

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from agent_attention.openmmlab.data import DataFlags, point_at
from agent_attention.openmmlab.errors import BadSample, UserError
from agent_attention.openmmlab.files import describe_disk, disk_is_full
from agent_attention.safe_load import CheckpointError


def run_tool(main: Callable[[], None]) -> NoReturn:
    """Run a tool; a user's mistake becomes one message on stderr and exit code 1."""
    try:
        main()
    except (UserError, CheckpointError) as error:
        # other mistakes are met by all ranks, a bad sample by the one that reads it
        if os.environ.get("RANK", "0") == "0" or isinstance(error, BadSample):
            print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyError as error:  # loaders and optimizers are built late, and name unknown types so
        if "registry" not in str(error):
            raise
        print(f"error: cannot build what the config describes: {_one_line(error)}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:  # a log or a result; checkpoints have a message of their own
        if not disk_is_full(error):
            raise
        place = describe_disk(Path(error.filename or "."))
        print(f"error: a disk is full (here {place}): {_one_line(error)}", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)


class KeyValues(DictAction):
    """``--cfg-options KEY=VALUE ...``; anything else is a usage error."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        for value in values:
            if "=" not in value:
                parser.error(f"--cfg-options takes KEY=VALUE, got {value}")
        super().__call__(parser, namespace, values, option_string)


def add_common_flags(parser: ArgumentParser) -> None:
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


def read_config(config: str, options: dict[str, Any] | None = None) -> Config:
    """Read a config file and change settings of it.

    Raises:
        UserError: if the file is not there or cannot be read.
    """
    path = Path(config)
    if not path.is_file():
        raise UserError(f"there is no config {path} (from {Path.cwd()}); see the folder configs/")
    try:
        cfg = Config.fromfile(path)
        cfg.merge_from_dict(options or {})
    except Exception as error:  # a config is the user's own code, and may raise anything
        raise UserError(f"cannot read the config {path}: {_one_line(error)}") from error
    return cfg


def load_config(args: Namespace) -> Config:
    """The config of a run: read, pointed at the user's data, with its work directory.

    Raises:
        UserError: if the config cannot be read or the data flags do not apply to it.
    """
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    cfg = read_config(args.config, args.cfg_options)
    classes = point_at(cfg, DataFlags.of(args))
    if classes:
        print(f"{len(classes)} classes: {', '.join(classes)}")
    cfg.work_dir = args.work_dir or cfg.get("work_dir") or f"work_dirs/{Path(args.config).stem}"
    cfg.launcher = args.launcher
    return cfg


def build_runner(cfg: Config) -> Runner:
    """The runner of a config, on GPUs or, where there are none, on the CPU.

    Raises:
        UserError: if the config describes something that cannot be built.
    """
    if cfg.launcher != "none" and not torch.cuda.is_available():
        _distribute_on_cpu(cfg)
    try:
        return Runner.from_cfg(cfg)
    except (TypeError, ValueError, KeyError, ImportError) as error:
        raise UserError(f"cannot build what the config describes: {_one_line(error)}") from error


def _distribute_on_cpu(cfg: Config) -> None:
    """Processes over gloo: mmengine's own start-up asks for a CUDA device."""
    if cfg.launcher != "pytorch":
        raise UserError(f"--launcher {cfg.launcher} needs GPUs; on the CPU use tools/dist_train.sh")
    torch.distributed.init_process_group("gloo")
    cfg.model_wrapper_cfg = {
        "type": "MMDistributedDataParallel",
        "device_ids": None,
        "broadcast_buffers": False,
        "find_unused_parameters": cfg.get("find_unused_parameters", False),
    }
    if _replace_sync_bn(cfg.model) and torch.distributed.get_rank() == 0:
        print("SyncBN needs GPUs: on the CPU each process normalises its own part (BN)")


def _replace_sync_bn(node: Any) -> int:
    """Make every SyncBN of a model config a BN, in place; the number replaced."""
    if isinstance(node, list):
        return sum(map(_replace_sync_bn, node))
    if not isinstance(node, dict):
        return 0
    replaced = int(node.get("type") == "SyncBN")
    if replaced:
        node["type"] = "BN"
    return replaced + sum(map(_replace_sync_bn, node.values()))


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
