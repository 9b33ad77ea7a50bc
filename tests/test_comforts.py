"""Training flags and test-time augmentation, on configs; runs of them are in test_tools.py."""

import warnings
from argparse import ArgumentParser, Namespace
from typing import Any

import pytest
import torch
from mmcv.ops import RoIAlign
from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.hooks import EarlyStoppingHook
from tool_runs import CONFIGS, TASKS
from torch import nn

from mmdet_agent.task import TASK as DETECTION
from mmengine_agent.errors import UserError
from mmengine_agent.run import flags as training
from mmengine_agent.run import mixed_precision, tta
from mmengine_agent.run.exit import explain
from mmengine_agent.run.setup import read_config

Parts = dict[str, Any]


def flags(*arguments: str) -> Namespace:
    parser = ArgumentParser()
    training.add_training_flags(parser)
    return parser.parse_args(arguments)


def with_flags(task: str, *arguments: str) -> Config:
    cfg = Config.fromfile(CONFIGS / TASKS[task].config)
    training.apply_training_flags(cfg, flags(*arguments))
    return cfg


def custom_hooks(cfg: Config) -> Parts:
    return {hook["type"]: hook for hook in cfg.get("custom_hooks", [])}


tasks = pytest.mark.parametrize("task", TASKS)


# --- flags


@tasks
def test_without_flags_nothing_changes(task: str) -> None:
    cfg = with_flags(task)
    assert cfg.to_dict() == Config.fromfile(CONFIGS / TASKS[task].config).to_dict()


@tasks
def test_averages_keep_the_decay(task: str) -> None:
    assert custom_hooks(with_flags(task, "--ema"))["EMAHook"]["momentum"] == pytest.approx(2e-4)
    cfg = with_flags(task, "--ema", "0.9")
    training.set_ema(cfg, 0.99)  # once more, as with a config that was dumped
    assert [hook["type"] for hook in cfg.custom_hooks].count("EMAHook") == 1
    assert custom_hooks(cfg)["EMAHook"]["momentum"] == pytest.approx(0.01)


@tasks
def test_gradients_are_clipped_and_accumulated(task: str) -> None:
    cfg = with_flags(task, "--clip-grad", "0.5", "--accumulate", "4")
    assert cfg.optim_wrapper.clip_grad == {"max_norm": 0.5}
    assert cfg.optim_wrapper.accumulative_counts == 4


def test_an_iteration_without_a_step_is_no_reason_to_warn() -> None:
    text = "Detected call of `scheduler.step()` before `optimizer.step()`. In PyTorch"
    with pytest.warns(UserWarning, match="Detected call"):
        warnings.warn(text, stacklevel=1)
    with_flags("detection", "--accumulate", "2")
    with warnings.catch_warnings(record=True) as seen:
        warnings.warn(text, stacklevel=1)
    assert not seen


@pytest.mark.parametrize(("task", "gain"), [("detection", 0.0011), ("segmentation", 0.11)])
def test_training_stops_when_the_score_no_longer_grows(task: str, gain: float) -> None:
    settings = custom_hooks(with_flags(task, "--early-stop", "2"))["EarlyStoppingHook"]
    assert settings.pop("type") == "EarlyStoppingHook"
    assert settings["monitor"] in TASKS[task].metrics
    hook = EarlyStoppingHook(**settings)
    scores = [0.1, 0.1 + gain, 0.1 + gain, 0.1 + 1.5 * gain]
    assert [hook._check_stop_condition(score)[0] for score in scores] == [False] * 3 + [True]


@pytest.mark.parametrize("bfloat", [True, False])
@tasks
def test_mixed_precision_is_bfloat16_where_the_gpu_has_it(
    task: str, bfloat: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixed_precision, "get_device", lambda: "cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bfloat)
    wrapper = with_flags(task, "--amp").optim_wrapper
    assert wrapper.type == "AmpOptimWrapper"
    assert ("loss_scale" in wrapper, wrapper.get("dtype")) == (
        (False, "bfloat16") if bfloat else (True, None)
    )


@pytest.mark.parametrize("fast", [True, False])
def test_mixed_precision_on_a_cpu_is_bfloat16(
    fast: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mixed_precision, "get_device", lambda: "cpu")
    monkeypatch.setattr(mixed_precision, "has_fast_bfloat16", lambda: fast)
    assert with_flags("segmentation", "--amp").optim_wrapper.type == "CPUAmpOptimWrapper"
    assert ("no instructions for bfloat16" in capsys.readouterr().err) == (not fast)


def test_operations_of_mmcv_get_float32_on_a_cpu() -> None:
    """They know no bfloat16 there; around them losses are computed in it."""
    model = nn.ModuleList([nn.Conv2d(3, 4, 1), RoIAlign(2)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapper = mixed_precision.CPUAmpOptimWrapper(optimizer=optimizer)
    image, box = torch.ones(1, 3, 8, 8), torch.tensor([[0.0, 1.0, 1.0, 6.0, 6.0]])
    with wrapper.optim_context(model):
        maps = model[0](image)
        part = model[1](maps, box.bfloat16())
        part.float().sum().backward()
    assert maps.dtype == part.dtype == torch.bfloat16
    assert torch.allclose(part.float(), maps[..., :2, :2].float())
    assert model[0].weight.grad is not None and model[0].weight.grad.dtype == torch.float32
    assert "forward" not in vars(model[1])


@tasks
def test_a_logger_is_added_once(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(training.LOGGERS, "wandb", ("WandbVisBackend", "json"))
    kinds = [
        backend.type for backend in with_flags(task, "--log-to", "wandb").visualizer.vis_backends
    ]
    assert kinds == ["LocalVisBackend", "WandbVisBackend"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ema", "1"], ["--ema", "between 0 and 1"]),
        (["--clip-grad", "0"], ["--clip-grad", "positive"]),
        (["--accumulate", "-1"], ["--accumulate", "positive"]),
        (["--early-stop", "0"], ["--early-stop", "positive"]),
        (["--amp"], ["--amp", "GPU"]),
        (["--log-to", "wandb"], ["--log-to wandb", "pip install nosuchpackage"]),
    ],
)
def test_what_cannot_be_is_said(
    arguments: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixed_precision, "get_device", lambda: "cpu")
    monkeypatch.setitem(training.LOGGERS, "wandb", ("WandbVisBackend", "nosuchpackage"))
    with pytest.raises(UserError) as caught:
        with_flags("detection", *arguments)
    assert all(word in str(caught.value) for word in words)


# --- test-time augmentation


LOAD, PACK = {"type": "LoadImageFromFile"}, {"type": "PackDetInputs"}
RESIZES = {
    "scale": ({"scale": (200, 100), "keep_ratio": True}, [(150, 75), (200, 100), (250, 125)]),
    "scale_factor": ({"scale_factor": 2.0}, [1.5, 2.0, 2.5]),
}


@pytest.mark.parametrize("key", RESIZES)
def test_each_scale_is_tested_both_ways(key: str) -> None:
    settings, wanted = RESIZES[key]
    resize = {"type": "Resize", **settings}
    pack = {**PACK, "meta_keys": ("img_id", "ori_shape")}
    load, views = tta.augmented([LOAD, resize, pack], DETECTION.tta_step)
    assert load == LOAD and views["type"] == "TestTimeAug"
    resizes, flips, packs = views["transforms"]
    assert resizes == [{**resize, key: scale} for scale in wanted]
    assert [step["prob"] for step in flips] == [0, 1]
    assert [step["type"] for step in packs] == ["PackDetInputs"]
    assert {"flip", "flip_direction"} <= set(TRANSFORMS.build(packs[0]).meta_keys)


def test_without_a_resize_the_image_itself_is_scaled() -> None:
    load, views = tta.augmented([LOAD, PACK], dict)
    assert load == LOAD
    assert [step["scale_factor"] for step in views["transforms"][0]] == [0.75, 1, 1.25]


@tasks
def test_the_wrapper_is_that_of_the_task(task: str) -> None:
    cfg = Config.fromfile(CONFIGS / TASKS[task].config)
    inner = cfg.model
    tta.set_tta(cfg)
    assert cfg.model.type == ("DetTTAModel" if task == "detection" else "SegTTAModel")
    assert cfg.model.module.backbone == inner.backbone
    assert cfg.test_dataloader.dataset.pipeline[-1]["type"] == "TestTimeAug"


def test_masks_that_cannot_be_left_out_are_refused() -> None:
    cfg = read_config("mmdet::solov2/solov2_r50_fpn_1x_coco.py")
    with pytest.raises(UserError, match=r"--tta: mmdet merges the boxes of .* a SOLOv2 cannot"):
        tta.set_tta(cfg)


@pytest.mark.parametrize(
    ("evaluator", "wanted"),
    [
        ({"type": "CocoMetric", "metric": "segm"}, ("coco/segm_mAP", 0.001)),
        ({"type": "CocoMetric", "metric": ["segm", "bbox"]}, ("coco/bbox_mAP", 0.001)),
        ([{"type": "Mine"}, {"type": "CocoPanopticMetric"}], ("coco_panoptic/PQ", 0.1)),
        ({"type": "VOCMetric", "metric": "mAP", "prefix": "mine"}, ("mine/mAP", 0.001)),
    ],
)
def test_early_stopping_judges_by_the_evaluators_own_score(evaluator: Any, wanted: Any) -> None:
    cfg = Config.fromfile(CONFIGS / TASKS["detection"].config)
    cfg.val_evaluator = evaluator
    training.set_early_stop(cfg, 3)
    hook = custom_hooks(cfg)["EarlyStoppingHook"]
    assert (hook["monitor"], hook["min_delta"]) == wanted


def test_an_evaluator_without_a_known_score_cannot_stop_a_run() -> None:
    cfg = Config.fromfile(CONFIGS / TASKS["detection"].config)
    cfg.val_evaluator = {"type": "Mine"}
    with pytest.raises(UserError, match=r"--early-stop: no main score is known .* \(Mine\)"):
        training.set_early_stop(cfg, 3)


def test_what_a_logger_refuses_is_one_sentence() -> None:
    refused = type("UsageError", (Exception,), {"__module__": "wandb.errors.errors"})
    told = explain(refused("No API key configured."))
    assert told == "--log-to wandb: No API key configured; WANDB_MODE=offline needs no account"


@tasks
def test_a_config_s_own_augmentation_comes_first(task: str) -> None:
    cfg = Config.fromfile(CONFIGS / TASKS[task].config)
    cfg.tta_pipeline, cfg.tta_model = [{"type": "Mine"}], {"type": "MyModel"}
    inner = cfg.model
    tta.set_tta(cfg)
    assert cfg.test_dataloader.dataset.pipeline == [{"type": "Mine"}]
    assert cfg.model.type == "MyModel" and cfg.model.module == inner


@pytest.mark.parametrize("resizes", [[{}], [{"scale": (4, 4)}, {"scale": (2, 2)}]])
def test_other_pipelines_cannot_be_augmented(resizes: list[Parts]) -> None:
    steps = [{"type": "Resize", **settings} for settings in resizes]
    with pytest.raises(UserError, match=r"--tta: .* Resize.* tta_pipeline and tta_model"):
        tta.augmented([LOAD, *steps, PACK], dict)
