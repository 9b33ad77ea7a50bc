"""The Python API trains, says what the commands say, and is imported without effect.

What it makes of the tools' runs is compared in test_tools.py, which has them.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tool_runs import CONFIGS

import agent_toolkit as toolkit


def test_the_import_imports_nothing_else() -> None:
    program = (
        "import sys, agent_toolkit as m; "
        "assert not {'torch', 'mmengine', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=120)


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
