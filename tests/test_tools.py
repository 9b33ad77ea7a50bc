"""The tools, run as users run them: training, resuming, testing, many processes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from tool_runs import (
    Tested,
    Trained,
    bash,
    dump_flags,
    logged,
    output,
    python,
    train_flags,
)

import agent_toolkit as toolkit

# ---- training and testing ----


def test_training_writes_a_checkpoint_and_logs_each_iteration(trained: Trained) -> None:
    assert trained.checkpoint.is_file()
    assert [line["step"] for line in logged(trained.folder)] == [1, 2]


def test_training_validates(trained: Trained) -> None:
    for metric in trained.task.metrics:
        assert f"{metric}: " in trained.output


def test_auto_scale_lr_follows_the_batch(trained: Trained) -> None:
    assert "batch size of 8 and the current batch size is 4" in trained.output
    assert "Scaling the original LR by 0.5" in trained.output


def test_testing_prints_the_metrics_and_writes_them(trained: Trained, tested: Tested) -> None:
    report = tested.report
    assert report["config"] == str(trained.config)
    assert report["checkpoint"] == str(trained.checkpoint)
    assert report["seconds"] > 0
    assert set(trained.task.metrics) <= report["metrics"].keys()
    for metric in trained.task.metrics:
        assert f"{metric}: {report['metrics'][metric]:.4f}" in tested.output
    assert str(tested.folder / "metrics.json") in tested.output


def test_predictions_are_written_and_drawn_for_each_image(tested: Tested) -> None:
    assert len(tested.predictions) == 4
    drawn = [*(tested.folder / "pictures").rglob("*.[jp][pn]g")]
    for name in tested.predictions:
        assert sum(name in path.name for path in drawn) == 1


def test_resuming_goes_on_where_the_checkpoint_ends(
    trained: Trained, data: Path, tmp_path: Path
) -> None:
    task = trained.task
    if task.data == "coco":  # the newest checkpoint of the work directory
        (tmp_path / trained.checkpoint.name).symlink_to(trained.checkpoint)
        (tmp_path / "last_checkpoint").write_text(str(tmp_path / trained.checkpoint.name))
        resume = ["--resume"]
    else:  # one that is named
        resume = ["--resume", str(trained.checkpoint)]
    flags = train_flags(task, tmp_path, data, *task.four, "val_cfg=None", "val_dataloader=None")
    flags += ["val_evaluator=None", "train_cfg.val_interval=99"]
    output(python("train.py", str(trained.config), *resume, *flags, cwd=tmp_path))
    assert [line["step"] for line in logged(tmp_path)] == [3, 4]
    assert (tmp_path / task.checkpoints[1]).is_file()
    left = Config.fromfile(tmp_path / trained.config.name)
    assert (left.resume, left.load_from) == (False, None)  # whoever takes it goes on from nowhere


def test_the_config_in_the_work_directory_and_any_checkpoint_are_tested_without_flags(
    trained: Trained, tested: Tested, tmp_path: Path
) -> None:
    sure = tmp_path / "sure.pth"  # of class 1, whatever it is shown
    checkpoint = torch.load(trained.checkpoint, weights_only=False)
    checkpoint["state_dict"][trained.task.class_bias][1] = 1000
    torch.save({"state_dict": checkpoint["state_dict"]}, sure)

    config = tmp_path / trained.config.name
    text = (trained.folder / config.name).read_text()
    config.write_text(f"{text}\nresume = True\n")  # as a stock tool may leave it
    flags = dump_flags(trained.task, tmp_path)
    done = python("test.py", str(config), str(sure), *flags, cwd=tmp_path)
    again = Tested(tmp_path, output(done))
    assert again.predictions.keys() == tested.predictions.keys()
    for prediction in again.predictions.values():
        assert trained.task.labels(prediction).unique().tolist() == [1]


def test_other_tools_take_the_config_in_the_work_directory(
    trained: Trained, tmp_path: Path
) -> None:
    config, program = trained.folder / trained.config.name, tmp_path / "program.py"
    program.write_text(f"""
from mmengine.config import Config
from mmengine.runner import Runner
cfg = Config.fromfile({str(config)!r})
cfg.work_dir = {str(tmp_path)!r}
Runner.from_cfg(cfg)
""")
    output(python(program, cwd=tmp_path))


# ---- the Python API ----


def test_a_test_gives_the_metrics_that_the_tool_writes(
    trained: Trained, tested: Tested, data: Path, tmp_path: Path
) -> None:
    found = toolkit.test(
        trained.config,
        trained.checkpoint,
        data=data / trained.task.data,
        work_dir=tmp_path,
        workers=0,
        cfg_options={"test_dataloader.batch_size": 1},
    )
    assert found == json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    for name in trained.task.metrics:
        assert found[name] == pytest.approx(tested.report["metrics"][name], abs=1e-3)


def test_predictions_are_those_of_the_tool(trained: Trained, tested: Tested, data: Path) -> None:
    name, wanted = next(iter(tested.predictions.items()))
    (path,) = (data / trained.task.data).rglob(f"*val*/{name}.jpg")
    config = trained.folder / trained.config.name
    options = dict(setting.split("=") for setting in trained.task.settings if "pad_size" in setting)
    options = {key: int(value) for key, value in options.items()}
    predictor = toolkit.Predictor(
        config, trained.checkpoint, score_threshold=0, cfg_options=options
    )
    found = predictor(path)
    labels = np.sort(trained.task.labels(wanted).flatten().numpy())
    ours = found.labels if found.label_map is None else found.label_map
    assert np.array_equal(np.sort(ours.flatten()), labels)
    kept = found.to_supervision()
    height, width = Image.open(path).size[::-1]
    count = len(kept["class_id"])
    assert kept["xyxy"].shape == (count, 4) and kept["mask"].shape == (count, height, width)
    assert kept["mask"].dtype == bool and len(kept["data"]["class_name"]) == count
    assert set(kept["data"]["class_name"]) <= set(predictor.names)
    again = predictor(Image.open(path))  # RGB, and decoded by another library
    assert type(again) is toolkit.Prediction


def test_what_is_no_image_is_refused(trained: Trained) -> None:
    config = trained.folder / trained.config.name
    predictor = toolkit.Predictor(config, trained.checkpoint)
    for image in (3, np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), "nowhere"):
        with pytest.raises(toolkit.UserError, match="image"):
            predictor(image)


# ---- flags ----


def test_all_comforts_at_once_train(trained: Trained, data: Path, tmp_path: Path) -> None:
    task = trained.task
    asked = ["--ema", "0.5", "--clip-grad", "1", "--accumulate", "2", "--early-stop", "3"]
    asked += ["--amp"] if task.data == "ade" else []
    arguments = train_flags(task, tmp_path, data, *task.two)
    said = output(python("train.py", str(trained.config), *asked, *arguments, cwd=tmp_path))
    state = torch.load(tmp_path / task.checkpoints[0], weights_only=False)
    assert "ema_state_dict" in state
    assert "grad_norm" in said
    assert any(not torch.equal(a, b) for a, b in pairs(state))


def pairs(state: dict[str, Any]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Each weight and its average."""
    averages = {k.removeprefix("module."): v for k, v in state["ema_state_dict"].items()}
    return [(v, averages[k]) for k, v in state["state_dict"].items()]


def test_augmentation_tests_a_checkpoint(trained: Trained, data: Path, tmp_path: Path) -> None:
    task = trained.task
    where = ["--data-root", str(data / task.data), "--work-dir", str(tmp_path)]
    what = [str(trained.config), str(trained.checkpoint), "--tta"]
    said = output(python("test.py", *what, *where, cwd=tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    wanted = [name for name in task.metrics if "segm" not in name]
    assert set(wanted) <= metrics.keys()
    assert ("boxes alone" in said) == (task.data == "coco")
    assert not any("segm" in name for name in metrics)
    left = Config.fromfile(tmp_path / trained.config.name)  # for whoever predicts with it
    assert "TTA" not in left.model.type and left.get("load_from") is None


# ---- many processes ----


def test_two_processes_log_the_losses_of_one_with_their_batches_together(
    trained: Trained, data: Path, tmp_path: Path
) -> None:
    task = trained.task
    flags = train_flags(task, tmp_path, data, *task.two, "train_dataloader.batch_size=2")
    both = output(bash("dist_train.sh", str(trained.config), "2", *flags, cwd=tmp_path))
    assert "batch size of 8 and the current batch size is 4" in both

    # the second losses also show that the processes took the same step, and together
    for alone, together in zip(logged(trained.folder), logged(tmp_path), strict=True):
        names = {key for key in alone if "loss" in key}
        assert len(names) >= 2
        for name in [*names, "lr"]:
            assert together[name] == pytest.approx(alone[name], rel=1e-3, abs=1e-5), name
    assert (tmp_path / task.checkpoints[0]).is_file()


def test_two_processes_test_as_one_does(
    trained: Trained, tested: Tested, data: Path, tmp_path: Path
) -> None:
    what = (str(trained.config), str(trained.checkpoint), "2")
    flags = ["--data-root", str(data / trained.task.data), *dump_flags(trained.task, tmp_path)]
    both = Tested(tmp_path, output(bash("dist_test.sh", *what, *flags, cwd=tmp_path)))
    assert both.report["metrics"] == tested.report["metrics"]
    assert both.evaluation["confusion"] == tested.evaluation["confusion"]
    assert same(both.predictions, tested.predictions)


def same(one: Any, other: Any) -> bool:
    """Whether two predictions agree: dicts, lists and tensors of them."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor):
        return one.shape == other.shape and torch.allclose(one, other, atol=1e-5)
    return bool(one == other)
