"""Runs of mmengine's Runner on a model of a few numbers, in milliseconds.

    torchrun --nproc-per-node 2 tests/toy_runs.py WORK_DIR BAD POLICY ACCUMULATE

trains in two processes; the sample with number BAD is not a number. A step of the optimizer is
taken for ACCUMULATE iterations.
"""

import os
import sys
from pathlib import Path
from typing import Any, ClassVar

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils.data import Dataset

import mmengine_agent.register  # noqa: F401  (registers what runs name)
from mmengine_agent.resume.switch_on import make_resumable
from mmengine_agent.run.exit import run_tool
from mmengine_agent.run.setup import build_runner


@MODELS.register_module(force=True)
class ToyModel(BaseModel):
    """A layer and a normalisation, whose statistics a forward pass changes."""

    def __init__(self, data_preprocessor: Any = None) -> None:
        super().__init__(data_preprocessor)
        self.layer = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)
        with torch.no_grad():
            self.layer.weight.fill_(0.5)
            self.layer.bias.fill_(0.1)

    def forward(self, inputs: Any, data_samples: Any, mode: str = "loss") -> dict[str, Tensor]:
        maps = self.norm(self.layer(torch.stack(list(inputs))))
        return {"loss_fit": (maps - 0.3).square().mean(), "loss_size": maps.abs().mean()}


@DATASETS.register_module(force=True)
class ToyData(Dataset):  # type: ignore[type-arg]
    """Twelve vectors with the names of images; some are not a number."""

    metainfo: ClassVar[dict[str, Any]] = {"classes": ("thing",)}

    def __init__(self, bad: tuple[int, ...] = (), without: tuple[int, ...] = ()) -> None:
        self.bad = bad
        self.numbers = [number for number in range(12) if number not in without]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = self.numbers[index]
        values = torch.sin(torch.arange(3.0) * (number + 1))
        values = values * float("nan") if number in self.bad else values
        sample = BaseDataElement(metainfo={"img_path": f"photos/{number}.jpg"})
        return {"inputs": values, "data_samples": sample}


def toy_config(
    work_dir: Path, *hooks: dict[str, Any], options: dict[str, Any] | None = None, **data: Any
) -> Config:
    """A run of one epoch in batches of two, in order.

    Args:
        work_dir: where it writes.
        hooks: custom ones.
        options: settings to change, as ``--cfg-options`` does.
        data: arguments of ``ToyData``.
    """
    loader = {
        "batch_size": 2,
        "num_workers": 0,
        "sampler": {"type": "DefaultSampler", "shuffle": False},
        "dataset": {"type": "ToyData", **data},
    }
    content = {
        "model": {"type": "ToyModel"},
        "work_dir": str(work_dir),
        "train_dataloader": loader,
        "train_cfg": {"by_epoch": True, "max_epochs": 1},
        "optim_wrapper": {"optimizer": {"type": "AdamW", "lr": 0.1}},
        "custom_hooks": [*hooks, {"type": "MeanLossHook"}],
        "default_hooks": {
            "logger": {"type": "LoggerHook", "interval": 1},
            "checkpoint": {"type": "CheckpointHook"},
        },
        "default_scope": "mmengine",
        "env_cfg": {"dist_cfg": {"backend": "gloo"}},
        "launcher": "none",
        "experiment_name": str(work_dir).replace("/", "_"),  # one logger for each
    }
    cfg = Config(content)
    make_resumable(cfg)
    cfg.merge_from_dict(options or {})
    return cfg


def toy_run(work_dir: Path, *hooks: dict[str, Any], **more: Any) -> Runner:
    """The runner of ``toy_config``, trained."""
    runner = Runner.from_cfg(toy_config(work_dir, *hooks, **more))
    runner.train()
    return runner


def main() -> None:
    work_dir, bad, policy = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    hook = {"type": "BadLossesHook", "policy": policy}
    options = {"optim_wrapper.accumulative_counts": int(sys.argv[4])}
    cfg = toy_config(work_dir, hook, options=options, bad=(bad,))
    cfg.launcher = "pytorch"
    runner = build_runner(cfg)
    runner.train()
    weights = runner.model.module.state_dict()
    torch.save(weights, work_dir / f"weights.{os.environ['RANK']}.pt")


if __name__ == "__main__":
    run_tool(main)
