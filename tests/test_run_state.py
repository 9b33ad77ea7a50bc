"""Whatever a run of mmengine may write into a checkpoint is read back, and gone on with.

The tests go over the registries of mmengine, mmdet and mmseg, so a new entry is tried or has to say
why it cannot be. Each saves in the middle of a run of a few numbers, resumes from that file in a
new run, and compares with the run that went on.
"""

import collections
import datetime
from pathlib import Path
from typing import Any

import mmdet.registry
import mmdet.utils
import mmengine.registry
import mmseg.registry
import mmseg.utils
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseAveragedModel
from mmengine.runner import Runner
from stop_hooks import add_hook, scramble
from tiny_runs import difference, toy, train

import mmdet_agent
import mmseg_agent
from mmengine_agent.checkpoints import load_local, without_functions
from mmengine_agent.errors import UserError
from mmengine_agent.run.train import require_schedules

mmdet.utils.register_all_modules(init_default_scope=False)
mmseg.utils.register_all_modules(init_default_scope=False)
OURS = (mmdet_agent, mmseg_agent)  # their import registers hooks
Options = dict[str, Any]


def entries(kind: str) -> list[str]:
    """Names in mmengine's registry and in those of mmdet and mmseg, with their scope.

    Without those that other tests have registered.
    """
    known = getattr(mmengine.registry, kind).module_dict
    found = sorted(name for name, each in known.items() if each.__module__.startswith("mmengine"))
    for package in (mmdet, mmseg):
        child = getattr(package.registry, kind, None)
        found += sorted(f"{package.__name__}.{name}" for name in child.module_dict) if child else []
    return found


def go_on_from_the_middle(folder: Path, *hooks: Options, **settings: Any) -> dict[str, Any]:
    """Fail unless a resumed run ends as an uninterrupted one; the content of the file between."""
    middle = folder / "middle.pth"
    for name in ("whole", "resumed"):
        cfg = toy(folder / name, **settings)
        cfg.custom_hooks = [*cfg.custom_hooks, *hooks]
        if name == "whole":
            train(add_hook(cfg, "SaveInTheMiddle", after=5, into=str(middle)), seed=1)
        else:
            scramble()
            train(cfg, resume=middle)
    last = "epoch_4.pth" if settings.get("by_epoch", True) else "iter_12.pth"
    assert difference(folder / "whole" / last, folder / "resumed" / last) is None
    return load_local(str(middle))


# --- schedulers

NEEDED: dict[str, Options] = {  # arguments, by what the name begins with
    "MultiStep": {"milestones": [2, 7]},
    "OneCycle": {"total_steps": 12, "eta_max": 0.1},
    "CosineRestart": {"periods": [4, 8], "restart_weights": [1.0, 0.5], "eta_min": 0.0},
    "CosineAnnealing": {"T_max": 6},
    "Step": {"step_size": 2},
    "Exponential": {"gamma": 0.9},
    "ReduceOnPlateau": {"monitor": "accuracy", "by_epoch": True, "patience": 0},
    "QuadraticWarmup": {"end": 8},
}


def scheduler(entry: str) -> Options:
    name = entry.rpartition(".")[2]
    stem = next((stem for stem in NEEDED if name.startswith(stem)), "")
    found = {"type": entry, "by_epoch": False, **NEEDED.get(stem, {})}
    return {**found, "param_name": "lr"} if name.endswith("ParamScheduler") else found


@pytest.mark.parametrize("entry", entries("PARAM_SCHEDULERS"))
def test_a_run_with_any_scheduler_goes_on(entry: str, tmp_path: Path) -> None:
    found = go_on_from_the_middle(tmp_path, param_scheduler=[scheduler(entry)])
    (state,) = found["param_schedulers"]
    assert "last_step" in state and not any(map(callable, state.values()))


@pytest.mark.parametrize("entry", entries("PARAM_SCHEDULERS"))
def test_a_scheduler_saved_by_a_stock_tool_is_read(entry: str, tmp_path: Path) -> None:
    """Stock tools save functions that a scheduler keeps; they are left out, and set up anew."""
    runner = Runner.from_cfg(toy(tmp_path, param_scheduler=[scheduler(entry)]))
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    (saved,) = runner.build_param_scheduler(runner.param_schedulers)
    (built,) = runner.build_param_scheduler(runner.cfg.param_scheduler)
    torch.save({"param_schedulers": [saved.state_dict()]}, tmp_path / "stock.pth")
    (read,) = load_local(str(tmp_path / "stock.pth"))["param_schedulers"]
    assert read == without_functions(saved.state_dict())
    built.load_state_dict(read)
    kept = vars(built)
    assert all(callable(kept[key]) for key in saved.state_dict().keys() - read.keys())


def test_a_scheduler_that_ends_before_it_begins_is_named() -> None:
    schedules: list[Options] = [{"type": "LinearLR", "end": 500}, {"type": "CosineAnnealingLR"}]
    require_schedules(Config({"param_scheduler": schedules}))
    schedules[1] |= {"begin": 500, "end": 400}
    message = r"param_scheduler\[1\] \(CosineAnnealingLR\) begins at 500 and ends at 400"
    with pytest.raises(UserError, match=message):
        require_schedules(Config({"param_scheduler": schedules}))


# --- optimizers and their wrappers

NOT_BUILT = {  # why an entry cannot be tried here, and the error that says so
    "LBFGS": ("wants a closure, which mmengine's wrapper does not give", TypeError),
    "Muon": ("trains matrices alone, and a layer has a bias too", ValueError),
    "Optimizer": ("is the base class of all", TypeError),
    "SparseAdam": ("wants sparse gradients", RuntimeError),
    "ZeroRedundancyOptimizer": ("wants several processes", (ValueError, RuntimeError, TypeError)),
    "AmpOptimWrapper": ("wants a GPU", (AssertionError, ValueError)),
    "ApexOptimWrapper": ("wants the package apex", (AssertionError, ImportError)),
    "ColossalAIOptimWrapper": ("wants the package colossalai", (TypeError, ImportError)),
    "DeepSpeedOptimWrapper": ("wants the package deepspeed", (AssertionError, ImportError)),
}


def try_in_a_run(entry: str, folder: Path, *hooks: Options, **settings: Any) -> None:
    if entry in NOT_BUILT:
        with pytest.raises(NOT_BUILT[entry][1]):
            go_on_from_the_middle(folder, *hooks, **settings)
    else:
        go_on_from_the_middle(folder, *hooks, **settings)


@pytest.mark.parametrize("entry", entries("OPTIMIZERS"))
def test_a_run_with_any_optimizer_goes_on(entry: str, tmp_path: Path) -> None:
    settings = {"optim_wrapper.optimizer": {"type": entry, "lr": 0.01, "_delete_": True}}
    try_in_a_run(entry, tmp_path, **settings)


@pytest.mark.parametrize("entry", entries("OPTIM_WRAPPERS"))
def test_a_run_with_any_optimizer_wrapper_goes_on(entry: str, tmp_path: Path) -> None:
    try_in_a_run(entry, tmp_path, **{"optim_wrapper.type": entry})


def test_the_state_of_a_loss_scaler_is_read(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 1)
    optimizer, scaler = torch.optim.SGD(layer.parameters()), torch.amp.GradScaler("cpu")
    scaler.scale(layer(torch.ones(1, 2)).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    torch.save({"optimizer": {"loss_scaler": scaler.state_dict()}}, tmp_path / "a.pth")
    state = load_local(str(tmp_path / "a.pth"))["optimizer"]["loss_scaler"]
    assert state == scaler.state_dict()


# --- averages and other hooks

AVERAGES = ["ExponentialMovingAverage", "MomentumAnnealingEMA", "StochasticWeightAverage"]


@pytest.mark.parametrize("kind", [*AVERAGES, "mmdet.ExpMomentumEMA"])
def test_a_run_with_any_average_goes_on(kind: str, tmp_path: Path) -> None:
    found = go_on_from_the_middle(tmp_path, {"type": "EMAHook", "ema_type": kind})
    assert found["ema_state_dict"]["steps"] > 0


def test_all_kinds_of_averages_are_tried() -> None:
    assert averages_in(mmengine.registry.MODELS) == set(AVERAGES)
    assert averages_in(mmdet.registry.MODELS) == {"ExpMomentumEMA"}
    assert averages_in(mmseg.registry.MODELS) == set()


def averages_in(registry: Any) -> set[str]:
    kinds = {name: kind for name, kind in registry.module_dict.items() if isinstance(kind, type)}
    return {name for name, kind in kinds.items() if issubclass(kind, BaseAveragedModel)}


HOOK_OPTIONS: dict[str, Options] = {
    "BadLossesHook": {"policy": "stop", "limit": 1},
    "BadSamplesHook": {"policy": "error", "log_dir": "."},
    "EarlyStoppingHook": {"monitor": "accuracy", "patience": 9},
    "mmdet.PipelineSwitchHook": {"switch_epoch": 9, "switch_pipeline": []},
}
NO_HOOK = {  # why a hook cannot be tried here, and the error that says so
    "NPUProfilerHook": ("wants the package torch_npu", ImportError),
    "PrepareTTAHook": ("wants a model of test-time augmentation", TypeError),
    "RFSearchHook": ("wants a search of receptive fields", KeyError),
    "mmdet.MeanTeacherHook": ("wants a teacher", AssertionError),
    "mmdet.MemoryProfilerHook": ("wants the package memory_profiler", ImportError),
    "mmdet.NumClassCheckHook": ("wants a data set with classes", AttributeError),
    "mmdet.SetEpochInfoHook": ("wants a model that counts epochs", AttributeError),
    "mmdet.YOLOXModeSwitchHook": ("wants a data set with mosaics", AttributeError),
}
OF_EVERY_RUN = {"CheckpointHook", "SafeCheckpointHook", "ExactResumeHook", "InterruptHook"}
OF_TESTS = {"SaveInTheMiddle", "SendSignal", "FaultHook", "Progress", "FillDisk"}
HOOKS = [name for name in entries("HOOKS") if name not in OF_EVERY_RUN | OF_TESTS]


@pytest.mark.parametrize("entry", HOOKS)
def test_a_run_with_any_hook_goes_on(
    entry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where hooks write that are given no folder
    hook = {"type": entry, **HOOK_OPTIONS.get(entry, {})}
    if entry in NO_HOOK:
        with pytest.raises(NO_HOOK[entry][1]):
            go_on_from_the_middle(tmp_path, hook)
    else:
        go_on_from_the_middle(tmp_path, hook)


@pytest.mark.parametrize("by_epoch", [True, False])
def test_a_run_with_either_sampler_of_mmengine_goes_on(by_epoch: bool, tmp_path: Path) -> None:
    found = go_on_from_the_middle(tmp_path, by_epoch=by_epoch)
    assert found["meta"]["iter"] == 5


@pytest.mark.parametrize("entry", entries("DATA_SAMPLERS"))
def test_no_sampler_puts_anything_into_a_checkpoint(entry: str) -> None:
    assert not hasattr(mmengine.registry.DATA_SAMPLERS.get(entry), "state_dict")


# --- what a hook or a data set of one's own may put into the message hub

VALUES: dict[str, Any] = {
    "counter": collections.Counter([3, 3, 5]),
    "ordered": collections.OrderedDict(b=1, a=2),
    "default": collections.defaultdict(list, a=[1]),
    "deque": collections.deque([1, 2], maxlen=3),
    "moments": [datetime.datetime(2026, 1, 2, 3, 4, 5), datetime.date(2026, 1, 2)],
    "times": [datetime.time(3, 4), datetime.timedelta(seconds=5), datetime.timezone.utc],
    "zoned": datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
    "paths": [Path("a/b.pth"), Path("/a")],
    "scalars": [np.float32(0.5), np.float64(2.5), np.int64(3), np.bool_(True), np.str_("a")],
    "arrays": [np.arange(6).reshape(2, 3), np.zeros((0, 2), np.float32), np.array(["ab", "c"])],
    "torch": [torch.Size([1, 2]), torch.device("cpu"), torch.bfloat16, torch.strided],
    "sets": [{1, 2}, frozenset([3]), 1j],
}


@pytest.mark.parametrize("name", VALUES)
def test_what_a_hook_counts_as_data_is_read_and_saved_again(name: str, tmp_path: Path) -> None:
    """Containers of the standard library become plain ones."""
    content = {"message_hub": {"runtime_info": {name: VALUES[name]}}}
    for path in (tmp_path / "a.pth", tmp_path / "b.pth"):
        torch.save(content, path)
        assert b"_agent" not in path.read_bytes()
        content = load_local(str(path))
    found = content["message_hub"]["runtime_info"][name]
    plain = {"default": dict, "deque": list}.get(name, lambda value: value)
    same(found, plain(VALUES[name]))


def same(found: Any, wanted: Any) -> None:
    assert isinstance(found, type(wanted))
    if isinstance(wanted, list):
        for pair in zip(found, wanted, strict=True):
            same(*pair)
    else:
        assert np.array_equal(found, wanted) if isinstance(wanted, np.ndarray) else found == wanted


SPARSE = torch.eye(3).to_sparse()
QUANTIZED = torch.quantize_per_tensor(torch.arange(4.0), 0.5, 2, torch.qint8)
UNSIGNED = torch.arange(5).to(torch.uint16)


@pytest.mark.parametrize("tensor", [SPARSE, QUANTIZED, UNSIGNED], ids=["coo", "qint8", "uint16"])
def test_tensors_of_other_kinds_are_read(tensor: torch.Tensor, tmp_path: Path) -> None:
    torch.save({"a": tensor}, tmp_path / "a.pth")
    found = load_local(str(tmp_path / "a.pth"))["a"]
    assert found.dtype == tensor.dtype and found.layout == tensor.layout
    dense, wanted = (each.dequantize() if each.is_quantized else each for each in (found, tensor))
    assert torch.equal(dense.to_dense(), wanted.to_dense())
