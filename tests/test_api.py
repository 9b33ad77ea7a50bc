"""The Python API does what the commands do, says what they say, and is imported without effect."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tool_runs import CONFIGS, Tested, Trained

import agent_toolkit as toolkit


def test_the_import_imports_nothing_else() -> None:
    program = (
        "import sys, agent_toolkit as m; "
        "assert not {'torch', 'mmengine', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=120)


def test_a_test_gives_the_metrics_that_the_tool_writes(
    trained: Trained, tested: Tested, data: Path, tmp_path: Path
) -> None:
    config = Path(trained.task.config).stem  # by name
    found = toolkit.test(
        config,
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
    config = trained.folder / Path(trained.task.config).name
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


def test_a_training_leaves_what_a_test_takes(data: Path, tmp_path: Path) -> None:
    trained = toolkit.train(
        "agent_pvt_semantic_fpn_demo",
        data=data / "ade",
        iters=1,
        batch_size=2,
        workers=0,
        seed=0,
        work_dir=tmp_path,
        cfg_options={"val_cfg": None, "val_dataloader": None, "val_evaluator": None},
    )
    assert trained.checkpoint.is_file() and trained.config.is_file()
    assert trained.config.parent == tmp_path
    assert len(toolkit.Predictor(*trained).names) == 8


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": "ten"}, "argument --epochs: invalid int value"),
        ({"epochs": 1, "iters": 1}, "--epochs and --iters exclude each other"),
        ({"epoch": 1}, "unrecognized arguments: --epoch 1"),
        ({"nan": "maybe"}, "argument --nan: invalid choice"),
        ({"image_size": (64,)}, "argument --image-size: expected 2 arguments"),
        ({"lr": 1.0, "cfg_options": {"optim_wrapper.optimizer.lr": 2}}, "set the same thing"),
        ({"find_lr": True}, "agent-attention train --find-lr"),
        ({"data": "nowhere"}, "no data: looked for nowhere/"),
    ],
)
def test_a_mistake_raises_what_the_command_prints(
    given: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(toolkit.UserError) as error:
        toolkit.train(CONFIGS / "demo/agent_pvt_semantic_fpn_demo.py", work_dir=tmp_path, **given)
    assert message in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("image", [3, np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), "nowhere"])
def test_what_is_no_image_is_refused(image: Any, trained: Trained) -> None:
    config = trained.folder / Path(trained.task.config).name
    with pytest.raises(toolkit.UserError, match="image"):
        toolkit.Predictor(config, trained.checkpoint)(image)
