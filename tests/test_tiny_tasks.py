"""The small recipes of the fault bench are the published ones, but for their size."""

from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from tiny_runs import make_data
from tiny_tasks import CONFIGS, EPOCH, RECIPES, TASKS, small_config

# what decides how a run is killed, stopped and gone on with
KEPT = (
    "optim_wrapper",
    "env_cfg",
    "train_dataloader.batch_size",
    "train_dataloader.num_workers",
    "train_dataloader.persistent_workers",
    "train_dataloader.sampler",
    "train_dataloader.batch_sampler",
    "val_dataloader.num_workers",
    "val_dataloader.persistent_workers",
    "model.backbone.type",
    "model.backbone.drop_path_rate",
    "model.decode_head.norm_cfg",
    "model.decode_head.dropout_ratio",
    "custom_hooks",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("tasks") / "data")


def value(cfg: Config, name: str) -> Any:
    """A setting by its dotted name; None if there is none, or an empty one."""
    node: Any = cfg
    for key in name.split("."):
        node = node.get(key) if node else None
    return node or None


def kinds(node: Any) -> Any:
    """The types in a tree of configs, in their order."""
    if isinstance(node, list):
        return [kinds(each) for each in node]
    if not isinstance(node, dict):
        return None
    parts = [kinds(each) for each in node.values() if isinstance(each, list | dict)]
    return [node.get("type"), *parts]


@pytest.mark.parametrize("name", RECIPES)
def test_a_small_recipe_is_the_published_one(name: str, data: Path) -> None:
    published = Config.fromfile(CONFIGS / TASKS[name].config)
    small = small_config(name, data)
    for key in KEPT:
        assert value(small, key) == value(published, key), key
    for key in ("param_scheduler", "default_hooks", "train_dataloader.dataset.pipeline"):
        assert kinds(value(small, key)) == kinds(value(published, key)), key
    assert small.train_dataloader.num_workers and small.train_dataloader.persistent_workers


@pytest.mark.parametrize("name", RECIPES)
def test_a_small_recipe_decays_some_parameters_and_others_not(name: str, data: Path) -> None:
    cfg = small_config(name, data)
    init_default_scope(cfg.default_scope)
    groups = build_optim_wrapper(MODELS.build(cfg.model), cfg.optim_wrapper).param_groups
    assert len({group["weight_decay"] for group in groups}) == 2


@pytest.mark.parametrize("factor", [1, 3])
@pytest.mark.parametrize("name", RECIPES)
def test_all_changes_of_the_learning_rate_lie_within_the_run(
    name: str, factor: int, data: Path
) -> None:
    length = factor * TASKS[name].length
    warm_up, main = small_config(name, data, length).param_scheduler
    unit = EPOCH if main.by_epoch else 1
    changes = [each * unit for each in main.get("milestones", [main.begin])]
    assert 0 < warm_up.end <= changes[0] and changes == sorted(set(changes))
    assert changes[-1] < main.end * unit == length


def test_milestones_keep_their_share_of_the_run(data: Path) -> None:
    for factor in (1, 2, 9):
        cfg = small_config("mask-rcnn-recipe", data, factor * 12 * EPOCH)
        assert cfg.param_scheduler[1].milestones == [8 * factor, 11 * factor]
        assert cfg.train_cfg.max_epochs == 12 * factor
