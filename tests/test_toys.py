"""A mixer is one file and one line, and so is a backbone: what else there is finds them."""

import os
import re
import shutil
from pathlib import Path

import fork_server
import pytest
from tiny_runs import make_data
from tiny_tasks import CLASSES

ROOT = Path(__file__).parents[1]
CONFIG = """
_base_ = {base!r}
model = dict(
    backbone=dict(_delete_=True, type="ToyViT", mixer="mean"),
    neck=dict(in_channels=[8], out_channels=16, num_outs=1),
    decode_head=dict(
        in_channels=[16], in_index=[0], feature_strides=[16], channels=16, num_classes={classes}
    ),
)
data = dict(metainfo=dict(classes={names!r}), data_root={data!r})
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(**data, data_prefix=dict(img_path="train", seg_map_path="train_labels")),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(**data, data_prefix=dict(img_path="val", seg_map_path="val_labels")),
)
test_dataloader = val_dataloader
train_cfg = dict(max_iters=10, val_interval=10)
param_scheduler = [dict(type="PolyLR", end=10, by_epoch=False)]
default_hooks = dict(logger=dict(interval=5), checkpoint=dict(interval=10))
"""


def add(package: Path, name: str, kind: str, table: str) -> None:
    """Copy a file of tests/toys into a package, and write its line into the package's table."""
    shutil.copy(ROOT / "tests" / "toys" / f"{name}.py", package)
    path = package / "__init__.py"
    text = re.sub(rf"(?m)^{table}: .*\{{$", rf'\g<0>\n    "{name}": {kind},', path.read_text())
    line = f"from {'.'.join(package.parts[-2:])}.{name} import {kind}\n"
    path.write_text(text.replace("\nfrom ", f"\n{line}from ", 1))


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One in which the method has two files and two lines more."""
    method = tmp_path_factory.mktemp("toys") / "agent_attention"
    shutil.copytree(ROOT / "agent_attention", method)
    add(method / "mixers", "mean", "MeanMixer", "MIXERS")
    add(method / "backbones", "toy_vit", "ToyViT", "BACKBONES")
    return {**os.environ, "PYTHONPATH": f"{method.parent}:{ROOT}"}


def test_toys_are_trained_and_tested_in_a_semantic_fpn(
    environment: dict[str, str], tmp_path: Path
) -> None:
    data, config, work = make_data(tmp_path / "data"), tmp_path / "toy.py", tmp_path / "work"
    base = str(ROOT / "configs" / "demo" / "agent_pvt_semantic_fpn_demo.py")
    names = ("wall", "floor", "sky", *CLASSES)
    config.write_text(CONFIG.format(base=base, data=str(data), names=names, classes=len(names)))
    done = fork_server.run(
        ["tools/train.py", config, "--work-dir", work], cwd=ROOT, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert (work / "iter_10.pth").exists() and "mIoU" in done.stdout + done.stderr
    done = fork_server.run(
        [ROOT / "tools/test.py", config, work / "iter_10.pth"],
        cwd=tmp_path,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0 and "mIoU" in done.stdout + done.stderr, done.stderr
