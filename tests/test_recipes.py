"""Recipes train over a milestone, stop, go on and are tested: the short form of ``make recipes``.

The config is the published one, with its schedule, optimizer, hooks, sampler, workers, batch size
and pre-trained weights, on few small images; models have few channels and blocks. So small, the
sizes of a model are one but for drop path and the name of the weights, which a test holds, and so
are the schedules of 12 and 36 epochs; the tiny one of 12 is run for all.

It leaves out what ``make recipes`` does besides: each recipe for itself, models of full size, the
comparison with a run that was not stopped, SIGKILL, the tools after ``test.py``, ours and stock,
all training flags, and two processes.
"""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chain
import make_demo_data
import pytest
import recipe_steps
from chain import Case, Chain
from mmengine.config import Config
from said import faults
from small import Cut, read, recipes, write_config

DOORS = {
    "agent_pvt_maskrcnn": "mask-rcnn_agent-pvt-t_fpn_1x_coco",
    "agent_pvt_semantic_fpn": "fpn_agent-pvt-t_8xb2-40k_ade20k-512x512",
}
SHORT = Cut(epochs=2, sides=10, boxes=64, narrow=True)


# One each of what is new in the further recipes; ``make recipes`` runs the others.
FURTHER = (
    "mask-rcnn_agent-deit-s_sfp_lsj-100e_coco",
    "retinanet_flatten-pvtv2-b0_fpn_1x_coco",
    "upernet_agent-cswin-t_8xb2-160k_ade20k-512x512",
)


def run_for(name: str) -> str:
    """The recipe that is run for another, too: that of the tiny model, and of 12 epochs."""
    tiny = DOORS.get(name) or re.sub(r"(agent|flatten)-(pvt|swin)-[smlb]_", r"\1-\2-t_", name)
    shorter = tiny.replace("_3x_", "_1x_")
    return shorter if shorter in recipes() else tiny


# test_faults.py stops these two and goes on, test_worker_ends.py runs the second by the tool; what
# the tools make of their head and backbone, others here have
ELSEWHERE = (
    "mask-rcnn_agent-swin-t_fpn_1x_coco",
    "upernet_agent-swin-t_8xb2-160k_ade20k-512x512",
)


def is_run(name: str) -> bool:
    """Whether a recipe is run here, if it is run for others."""
    ours = re.search("agent-(pvt|swin)-", name) is not None
    return name in FURTHER or (ours and name not in ELSEWHERE)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures to train on and one without objects, two to test on."""
    folder = tmp_path_factory.mktemp("recipes") / "data"
    make_demo_data.generate(folder, train=5, val=2, size=64)
    return folder


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the small configs of all recipes."""
    return tmp_path_factory.mktemp("configs")


def small_config(name: str, folder: Path) -> Config:
    """The small config of a recipe; not to be changed."""
    path = folder / f"{name}.py"
    return read(path if path.exists() else write_config(recipes()[name], path, SHORT))


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Path]:
    """A folder whose checkpoints are not kept."""
    yield tmp_path
    chain.clean(tmp_path, everything=False)


@pytest.mark.parametrize("name", sorted({*filter(is_run, map(run_for, recipes()))}))
def test_a_recipe_trains_stops_goes_on_and_is_tested(name: str, data: Path, work: Path) -> None:
    run = Chain(Case(name, recipes()[name], cut=SHORT), work, data)
    for step in (recipe_steps.terminated, recipe_steps.resumed, recipe_steps.tested):
        step(run)
    assert not run.problems
    assert rates(run) > 1


def rates(run: Chain) -> int:
    """How many learning rates the log has: the schedule is that of the recipe, and moves."""
    lines = [line for path in chain.logs(run.stopped) for line in chain.lines(path)]
    return len({line["lr"] for line in lines if "loss" in line})


def without_lengths_and_sizes(cfg: Config) -> Any:
    """A config as a dict, without all that may differ in a small one."""
    cfg = copy.deepcopy(cfg)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.pipeline = [step.type for step in loader.dataset.pipeline]
    for part in cfg.param_scheduler:
        for key in ("begin", "end", "milestones"):
            part.pop(key, None)
    cfg.default_hooks.checkpoint.pop("interval")
    cfg.default_hooks.logger.pop("interval")
    for key in ("max_epochs", "max_iters", "val_interval"):
        cfg.train_cfg.pop(key, None)
    cfg.pop("randomness", None)
    cfg.model = {"type": cfg.model.type, "backbone": {**cfg.model.backbone, "arch": None}}
    return cfg.to_dict()


@pytest.mark.parametrize("name", recipes())
def test_a_small_config_differs_in_lengths_and_sizes_alone(name: str, configs: Path) -> None:
    small = small_config(name, configs)
    assert without_lengths_and_sizes(small) == without_lengths_and_sizes(read(recipes()[name]))
    for part in small.param_scheduler:
        assert not part.get("milestones") or 0 < min(part["milestones"]) < part["end"]


@pytest.mark.parametrize("name", recipes())
def test_so_small_a_recipe_is_the_one_that_is_run(name: str, configs: Path) -> None:
    one, other = (small_config(each, configs).to_dict() for each in (name, run_for(name)))
    for cfg in (one, other):
        backbone = cfg["model"]["backbone"]
        assert backbone.pop("drop_path_rate") > 0
        assert re.match("checkpoints/(agent|flatten)_", backbone["init_cfg"].pop("checkpoint"))
        for part in cfg["param_scheduler"]:
            part.pop("_scope_", None)  # mmengine's note of the base that it comes from
    assert one == other


@pytest.mark.parametrize(
    ("out", "err"),
    [
        ("the end\nmore\n", ""),
        ("Traceback (most recent call last):\nthe end\n", ""),
        ("11/25 - mmengine - WARNING - something new\nthe end\n", ""),
        ("the end\n", "Exception ignored in: <function>\n"),
        ("the end\n", "a line\n"),
        ("the end\n", "  0%|    | 0/2 [00:00<?, ?image/s]a line\n"),
        ("the end\n", "/home/me/agent_attention/pvt.py:3: UserWarning: The draw is False, it\n"),
        ("the end\n", "/x/site-packages/torch/a.py:3: UserWarning: something new\n  code()\n"),
    ],
)
def test_what_is_not_meant_is_found(out: str, err: str) -> None:
    assert faults(out, err, "^the end$")


def test_what_is_meant_is_no_fault() -> None:
    err = "--resume: work_dirs/a.pth\n 50%|##  | 1/2 [00:01<00:01, 1 image/s]"
    err += "/x/site-packages/torch/a.py:3: UserWarning: This DataLoader will create\n  code()\n"
    assert not faults("a line\nthe end\n\n", err, "^the end$")
