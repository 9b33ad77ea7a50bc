"""A stock config with another backbone through the tools, as a user types it."""

import json
from pathlib import Path

import pytest
from tool_runs import output, python, refusal

RTMDET = "mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py"
SEGFORMER = "mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py"
SMALL = ("--image-size", "64", "64", "--batch-size", "3", "--workers", "0")


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short training on the generated set."""
    folder = tmp_path_factory.mktemp("rtmdet")
    split = "--{0}-ann annotations/instances_{0}2017.json --{0}-images {0}2017"
    sets = " ".join(split.format(each) for each in ("train", "val")).split()
    flags = ["--backbone", "flatten_pvtv2_b0", "--from-scratch", "--epochs", "1", *SMALL]
    done = python("train.py", RTMDET, *flags, "--data-root", str(data / "coco"), *sets, cwd=folder)
    said = output(done)
    assert "FLattenPVTv2 (flatten_pvtv2_b0) in place of CSPNeXt, stages 1, 2, 3 of 64" in said
    return folder / "work_dirs/rtmdet_tiny_8xb32-300e_coco_flatten_pvtv2_b0"


def test_the_config_of_a_training_needs_no_flag_to_test_and_predict(run: Path, data: Path) -> None:
    config, checkpoint = str(run / "rtmdet_tiny_8xb32-300e_coco.py"), str(run / "epoch_1.pth")
    home = run.parents[1]
    output(python("test.py", config, checkpoint, cwd=home))
    assert "coco/bbox_mAP" in json.loads((run / "metrics.json").read_text())["metrics"]
    image = str(data / "coco/val2017/000000000001.jpg")
    output(python("predict.py", config, checkpoint, image, "--no-draw", cwd=home))
    assert (home / "predictions/predictions.json").is_file()


def test_a_stock_config_is_counted_and_written_with_a_backbone(tmp_path: Path) -> None:
    flags = ["--backbone", "agent_swin_t", "--shape", "64", "64", "--json", "flops.json"]
    output(python("get_flops.py", SEGFORMER, *flags, cwd=tmp_path))
    parts = json.loads((tmp_path / "flops.json").read_text())["parts"]
    assert round(parts["backbone"]["parameters"] / 1e6) == 28
    written = ["agent_pvt_t", "--pretrained", "mine.pth", "--out", "mine.py"]
    output(python("with_backbone.py", SEGFORMER, *written, cwd=tmp_path))
    assert "checkpoint='mine.pth'" in (tmp_path / "mine.py").read_text()


def test_a_mistake_is_one_message(tmp_path: Path) -> None:
    said = refusal(python("train.py", RTMDET, "--backbone", "agent_pvt_t", cwd=tmp_path))
    assert "no pre-trained weights: looked for checkpoints/agent_pvt_t.pth" in said
    assert "--from-scratch" in said and not [*tmp_path.iterdir()]
