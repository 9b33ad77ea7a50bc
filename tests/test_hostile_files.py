"""A checkpoint that wants a command run is refused on every way a checkpoint comes in."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fork_server
import make_demo_data
import pytest
import torch

ROOT = Path(__file__).parents[1]
CONFIG = "configs/demo/agent_pvt_semantic_fpn_demo.py"
TINY = ["train_cfg.max_iters=1", "train_cfg.val_interval=1", "train_dataloader.batch_size=1"]


class Command:
    """Unpickled by pickle itself, this runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (self.command,)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "demo"
    make_demo_data.generate(out, train=2, val=1, size=64)
    return out / "ade"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    path = tmp_path / "hostile.pth"
    torch.save({"state_dict": {}, "meta": Command(f"touch {tmp_path}/executed")}, path)
    torch.load(path, weights_only=False)
    assert (tmp_path / "executed").exists()  # the file is as hostile as it should be
    (tmp_path / "executed").unlink()
    return path


def arguments(way: str, hostile: Path, data: Path) -> list[str]:
    """The command line that leads the file in."""
    out = str(hostile.parent / "out")
    run = [CONFIG, "--work-dir", out, "--data-root", str(data)]
    return {
        "init_cfg": [
            "tools/train.py",
            "configs/agent_pvt_semantic_fpn.py",
            *run[1:],
            "--cfg-options",
            *TINY,
            f"model.backbone.init_cfg.checkpoint={hostile}",
        ],
        "load_from": ["tools/train.py", *run, "--cfg-options", *TINY, f"load_from={hostile}"],
        "resume": ["tools/train.py", *run, "--resume", str(hostile), "--cfg-options", *TINY],
        "test": ["tools/test.py", CONFIG, str(hostile), *run[1:]],
        "convert": ["tools/convert_checkpoint.py", str(hostile), f"{out}.pth"],
    }[way]


@pytest.mark.parametrize("way", ["init_cfg", "load_from", "resume", "test", "convert"])
def test_a_tool_refuses_the_file_and_names_it(way: str, hostile: Path, data: Path) -> None:
    ran = fork_server.run(arguments(way, hostile, data), cwd=ROOT)
    assert ran.returncode == 1
    assert not (hostile.parent / "executed").exists()
    assert str(hostile) in ran.stderr
    assert "it names posix.system" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_checkpoint_of_another_model_is_not_tested(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"state_dict": {"weight": torch.zeros(2)}}, path)
    ran = fork_server.run(arguments("test", path, data), cwd=ROOT)
    assert ran.returncode == 1
    assert f"{path} does not fit the config" in ran.stderr
    assert "Traceback" not in ran.stderr


def det_inferencer(weights: Path) -> Any:
    from mmdet.apis import DetInferencer

    config = str(ROOT / "configs/demo/agent_pvt_maskrcnn_demo.py")
    return DetInferencer(config, str(weights), device="cpu", show_progress=False)


def seg_inferencer(weights: Path) -> Any:
    from mmseg.apis import MMSegInferencer

    return MMSegInferencer(str(ROOT / CONFIG), str(weights), device="cpu")


@pytest.mark.parametrize("inferencer", [det_inferencer, seg_inferencer])
def test_an_inferencer_refuses_the_file(inferencer: Callable[[Path], Any], hostile: Path) -> None:
    with pytest.raises(ValueError, match=r"it names posix\.system"):
        inferencer(hostile)
    assert not (hostile.parent / "executed").exists()


@pytest.mark.parametrize(
    ("inferencer", "config", "key"),
    [
        (det_inferencer, "configs/demo/agent_pvt_maskrcnn_demo.py", "predictions"),
        (seg_inferencer, CONFIG, "predictions"),
    ],
)
def test_an_inferencer_takes_our_config_by_path(
    inferencer: Callable[[Path], Any], config: str, key: str, tmp_path: Path, data: Path
) -> None:
    from agent_toolkit.commands.flops import build
    from mmengine_agent.run.setup import read_config

    model = build(read_config(str(ROOT / config)), "meta").to_empty(device="cpu")
    for parameter in model.state_dict().values():
        parameter.zero_()
    weights = tmp_path / "weights.pth"
    torch.save({"state_dict": model.state_dict(), "meta": {}}, weights)
    image = str(next((data / "images/validation").iterdir()))
    found = inferencer(weights)(image)
    assert key in found
