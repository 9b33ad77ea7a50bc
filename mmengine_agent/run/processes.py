"""The processes of a run: how they find each other, and what the first decides for all."""

import os
import subprocess
from collections.abc import Callable
from datetime import timedelta
from inspect import signature
from typing import Any, TypeVar

import torch
from mmengine.config import Config
from mmengine.dist import (
    all_reduce,
    broadcast_object_list,
    get_world_size,
    init_dist,
    is_main_process,
)

from mmengine_agent.config_walk import type_name, walk
from mmengine_agent.errors import ReportedByRank0, UserError

Value = TypeVar("Value")


def join_processes(cfg: Config) -> None:
    """Join the processes that a launcher started: over NCCL or, without GPUs, over gloo.

    Without a launcher, or a second time, nothing happens. ``env_cfg.dist_cfg`` of the config has
    the backend and the ``timeout`` in seconds, after which a process no longer waits for others.

    Raises:
        UserError: if the launcher cannot be used here.
    """
    if cfg.launcher == "none" or torch.distributed.is_initialized():
        return
    settings = dict(cfg.get("env_cfg", {}).get("dist_cfg") or {})
    if cfg.launcher == "slurm":
        port = settings.pop("port", None)
        export_slurm_rank()
        os.environ["MASTER_PORT"] = str(port or os.environ["MASTER_PORT"])
    if torch.cuda.is_available():
        init_dist("pytorch" if cfg.launcher == "slurm" else cfg.launcher, **settings)
    elif cfg.launcher == "mpi":
        raise UserError("--launcher mpi needs GPUs; on the CPU use tools/dist_train.sh")
    else:  # mmengine's own start-up asks for a CUDA device
        seconds = settings.get("timeout")
        limit = None if seconds is None else timedelta(seconds=float(seconds))
        torch.distributed.init_process_group("gloo", timeout=limit)


def fit_to_cpu(cfg: Config) -> None:
    """Make a config one that several processes can train without GPUs, in place."""
    known = signature(torch.nn.parallel.DistributedDataParallel).parameters
    sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    cfg.model_wrapper_cfg = {
        "type": "MMDistributedDataParallel",
        "device_ids": None,
        sync: False,  # torch 2.13 has another name for it
        "find_unused_parameters": cfg.get("find_unused_parameters", False),
    }
    norms = [node for _, node in walk(cfg.model) if node.get("type") == "SyncBN"]
    for node in norms:
        node["type"] = "BN"
    # RTMDet makes them of all its norms, whatever they are
    makers = [node for _, node in walk(cfg.model) if type_name(node) == "RTMDet"]
    for node in makers:
        node["use_syncbn"] = False
    if (norms or makers) and is_main_process():
        print("SyncBN needs GPUs: on the CPU each process normalises its own part (BN)")


def from_rank0(function: Callable[[], Value]) -> Value:
    """Run a function in the first process; all return its result.

    Raises:
        UserError: in all, if the function raises it; the first process alone reports it.
    """
    if get_world_size() == 1:
        return function()
    outcome: list[Any] = [None, None]  # result, mistake
    if is_main_process():
        try:
            outcome[0] = function()
        except UserError as error:
            outcome[1] = error
    broadcast_object_list(outcome)
    result, mistake = outcome
    if mistake is not None:
        raise mistake if is_main_process() else ReportedByRank0(str(mistake))
    return result


def was_restarted() -> bool:
    """Whether torchrun has started these processes again, after some of them died.

    Machines whose own processes were well still count from 0, so all are asked.
    """
    count = torch.tensor(int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")))
    all_reduce(count, "max")
    return bool(count > 0)


def export_slurm_rank() -> None:
    """Set the environment variables of torchrun from those of Slurm.

    Raises:
        UserError: if Slurm has not started this process, or its first machine has no name.
    """
    names = {"RANK": "PROCID", "WORLD_SIZE": "NTASKS", "LOCAL_RANK": "LOCALID"}
    absent = [f"SLURM_{name}" for name in names.values() if f"SLURM_{name}" not in os.environ]
    if absent:
        raise UserError(
            f"--launcher slurm: {', '.join(absent)} not set, so srun has not started this process; "
            "see tools/slurm_train.sh"
        )
    os.environ.update({ours: os.environ[f"SLURM_{theirs}"] for ours, theirs in names.items()})
    # two jobs on one machine must not meet
    job = int(os.environ.get("SLURM_JOB_ID", "0"))
    os.environ.setdefault("MASTER_PORT", str(20000 + job % 20000))
    if "MASTER_ADDR" not in os.environ:
        ask = ["scontrol", "show", "hostnames", os.environ.get("SLURM_NODELIST", "")]
        try:
            os.environ["MASTER_ADDR"] = subprocess.check_output(ask, text=True).split()[0]
        except (OSError, subprocess.CalledProcessError, IndexError) as error:
            raise UserError(
                f"--launcher slurm: set MASTER_ADDR, as {ask} fails: {error}"
            ) from error
