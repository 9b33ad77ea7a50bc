"""Every config builds and runs, and the recipes are those published."""

import copy
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from one_step import check_prediction, check_training_step, few_proposals
from recipe_tables import (
    AUGMENTATION,
    BATCHES,
    COCO_SCALE,
    FAMILY_HEADS,
    HEADS,
    IMAGENET,
    LAYER_DECAY,
    LOADING,
    NOT_THERE,
    PVT_LIKE,
    RECIPES,
    SCHEDULES,
    SHORT,
    TEST_SCALES,
    UNDECAYED,
    Recipe,
)
from torch import nn

from mmengine_agent import backbones as registered
from mmengine_agent.config_walk import walk

ROOT = Path(__file__).parents[1] / "configs"
PATHS = sorted(p for p in ROOT.rglob("*.py") if "_base_" not in p.relative_to(ROOT).parts)
NAMES = [str(path.relative_to(ROOT).with_suffix("")) for path in PATHS]
ADAPTERS = {"mmdet": "mmdet_agent", "mmseg": "mmseg_agent"}
BACKBONES = {
    "agent-pvt": "AgentPVT",
    "agent-swin": "AgentSwinTransformer",
    "agent-deit": "AgentViT",
    "agent-cswin": "AgentCSwin",
    "flatten-pvt": "FLattenPVT",
    "flatten-pvtv2": "FLattenPVTv2",
    "flatten-swin": "FLattenSwin",
    "flatten-cswin": "FLattenCSwin",
}
ARCHS = {"t": "tiny", "s": "small", "m": "medium", "l": "large", "b": "base", "b0": "b0"}
GRIDS: dict[str, set[tuple[int, int]]] = {
    "agent-pvt": {(12, 12), (16, 16), (28, 28)},
    "agent-swin": {(9, 9), (12, 12), (14, 14), (7, 7)},
    "agent-deit": {(7, 7)},
    "agent-cswin": {(3, 3), (4, 4)},
}
# one of each head on each family of backbones, the smallest; the others differ in size alone, or in
# the backbone, which test_stock_heads.py puts into each head
FAMILIES = ("agent-pvt", "agent-swin", "agent-deit")
RUN = {
    each.model[:2]: each.name for each in reversed(RECIPES.values()) if each.model[1] in FAMILIES
}
RUN = [*RUN.values(), *(name for name in NAMES if name.startswith("demo/"))]


# ---- configs and models ----


@functools.cache
def load(name: str) -> Config:
    """A config, read once: nobody may change it."""
    return Config.fromfile(ROOT / f"{name}.py")


def plain(name: str) -> dict[str, Any]:
    """A config as dicts and lists, without mmengine's notes of where a base comes from."""

    def copy_of(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: copy_of(child) for key, child in node.items() if key != "_scope_"}
        return [copy_of(child) for child in node] if isinstance(node, list) else node

    return copy_of(load(name)._cfg_dict.to_dict())


def find(node: Any, key: str) -> Any:
    """The value at a dotted key; '*' stands for each item of a list."""
    first, _, rest = key.partition(".")
    if first == "*":
        return [find(item, rest) for item in node]
    return find(node[first], rest) if rest else node[first]


@dataclass(frozen=True)
class Built:
    """A config and the model of it."""

    cfg: Config
    model: Any


def build(name: str, device: str) -> Built:
    """A config's model as mmengine's Runner builds it: from the registry of its scope."""
    cfg = copy.deepcopy(load(name))
    few_proposals(cfg.model)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device(device):
        return Built(cfg, MODELS.build(cfg.model))


@pytest.fixture(scope="module", params=RUN)
def built(request: pytest.FixtureRequest) -> Built:
    torch.manual_seed(0)
    return build(request.param, "cpu")


# ---- every config ----


def test_every_config_is_a_recipe_a_short_door_or_a_demo() -> None:
    recipes = {name for name in NAMES if not name.startswith(("demo/", "heads/"))}
    assert recipes == {*RECIPES, *SHORT}
    assert {load(name).default_scope for name in NAMES if name.startswith("demo/")} == {*ADAPTERS}


@pytest.mark.parametrize("name", NAMES)
def test_a_config_imports_its_adapter_and_its_backbone_has_no_classes(name: str) -> None:
    cfg = load(name)
    # mmseg's Mask2Former takes its parts from mmdet
    others = ["mmdet.models"] if name.startswith("heads/mask2former") else []
    imports = [*others * (cfg.default_scope == "mmseg"), ADAPTERS[cfg.default_scope]]
    assert cfg.custom_imports.to_dict() == {"imports": imports, "allow_failed_imports": False}
    found = [node["backbone"] for _, node in walk(cfg.model) if "backbone" in node]
    assert found and not any("num_classes" in backbone for backbone in found)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_has_the_published_size_and_agents(name: str) -> None:
    """Built without memory for its weights; its backbone is the one of our registry."""
    built = build(name, "meta")
    backbone = built.model.backbone
    assert type(backbone) is getattr(registered, built.cfg.model.backbone.type)
    if name.startswith("heads/"):
        assert (ROOT / f"{name}.py").read_text().count("no score is known") == 1
        return  # test_swap_backbone.py has the others' channels
    taken = built.model.neck if built.model.with_neck else built.model.decode_head
    channels = taken.in_channels
    assert [*np.atleast_1d(channels)] == backbone.feature_info.channels()
    millions = sum(parameter.numel() for parameter in built.model.parameters()) / 1e6
    if name.startswith("demo/"):
        assert millions < 40
        return
    recipe = RECIPES[SHORT.get(name, (name, None))[0]]
    assert abs(millions - recipe.parameters) < 1  # not all are rounded: 121.6 is published as 121
    if name in SHORT:
        assert round(millions, 1) == SHORT[name][1]
    grids, known = agent_grids(backbone), GRIDS.get(recipe.model[1], set())
    assert grids <= known and len(grids) >= min(2, len(known))


def agent_grids(backbone: nn.Module) -> set[tuple[int, int]]:
    """The agent grids of all blocks of a backbone."""
    shapes = (getattr(module, "agent_shape", None) for module in backbone.modules())
    return {tuple(shape) for shape in shapes if shape is not None}


def test_a_loss_step_reaches_the_first_layer(built: Built) -> None:
    check_training_step(built.model)


def test_a_prediction_step_gives_a_result_for_each_image(built: Built) -> None:
    check_prediction(built.model)


# ---- the recipes ----


@pytest.fixture(params=RECIPES.values(), ids=RECIPES)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return request.param


def test_a_backbone_is_the_published_one(recipe: Recipe) -> None:
    _, family, size, schedule = recipe.model
    file = f"{family}_{size}".replace("-", "_")
    wanted = {
        "type": BACKBONES[family],
        "arch": ARCHS[size],
        "drop_path_rate": recipe.drop_path,
        "init_cfg": {"type": "Pretrained", "checkpoint": f"checkpoints/{file}.pth"},
    }
    if schedule == "lsj-100e":
        wanted["out_indices"] = (11,)  # the last block's map alone
    assert plain(recipe.name)["model"]["backbone"] == wanted


def test_the_optimizer_and_the_batch_are_the_published_ones(recipe: Recipe) -> None:
    rates = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    # dicts in whole: no clipping, and per-parameter settings for all but PVT
    wanted: dict[str, Any] = {"type": "OptimWrapper", "optimizer": {"type": "AdamW", **rates}}
    _, family, _, schedule = recipe.model
    if family not in PVT_LIKE:
        wanted["optimizer"]["betas"] = (0.9, 0.999)
        undecayed = {name: {"decay_mult": 0.0} for name in UNDECAYED[family]}
        wanted |= copy.deepcopy(LAYER_DECAY) if schedule == "lsj-100e" else {"paramwise_cfg": {}}
        wanted["paramwise_cfg"]["custom_keys"] = undecayed
    cfg, batch = plain(recipe.name), BATCHES.get(schedule, 2)
    assert cfg["optim_wrapper"] == wanted
    assert cfg["train_dataloader"]["batch_size"] == batch
    assert cfg["auto_scale_lr"] == {"enable": False, "base_batch_size": 8 * batch}


def test_the_schedule_is_the_published_one(recipe: Recipe) -> None:
    cfg = plain(recipe.name)
    length, schedulers = SCHEDULES[recipe.model[3]]
    assert cfg["param_scheduler"] == schedulers
    assert length.items() <= cfg["train_cfg"].items()
    loop = "EpochBasedTrainLoop" if "max_epochs" in length else "IterBasedTrainLoop"
    assert cfg["train_cfg"]["type"] == loop


def test_images_are_prepared_as_published(recipe: Recipe) -> None:
    cfg = plain(recipe.name)
    kind = kind_of_images(recipe)
    tested = [{**COCO_SCALE, "scale": TEST_SCALES[kind]}]
    for split, steps in (("train", AUGMENTATION[kind]), ("test", tested)):
        pipeline = cfg[f"{split}_dataloader"]["dataset"]["pipeline"]
        assert [step for step in pipeline if step["type"] not in LOADING] == steps
    preprocessor = cfg["model"]["data_preprocessor"]
    assert {key: preprocessor[key] for key in IMAGENET} == IMAGENET


def kind_of_images(recipe: Recipe) -> str:
    if recipe.task == "ade":
        return "ade"
    _, family, _, schedule = recipe.model
    if schedule == "lsj-100e":
        return "lsj coco"
    return "pvt coco" if family in PVT_LIKE else "swin coco"


def test_the_data_and_the_scores_are_the_published_ones(recipe: Recipe) -> None:
    cfg = plain(recipe.name)
    kind = {"coco": "CocoDataset", "ade": "ADE20KDataset"}[recipe.task]
    for split in ("train", "val", "test"):
        dataset = cfg[f"{split}_dataloader"]["dataset"]
        assert dataset["type"] == kind
        for step in dataset["pipeline"]:
            if kind == "ADE20KDataset" and step["type"] == "LoadAnnotations":
                assert step["reduce_zero_label"] is True
    evaluator = cfg["test_evaluator"]
    if recipe.task == "ade":
        assert evaluator["iou_metrics"] == ["mIoU"]
    else:
        metric = evaluator["metric"]  # a name or a list of names
        kinds = ["bbox"] if recipe.model[0] == "retinanet" else ["bbox", "segm"]
        assert ([metric] if isinstance(metric, str) else metric) == kinds


def test_the_heads_are_the_published_ones(recipe: Recipe) -> None:
    model = plain(recipe.name)["model"]
    wanted = {**HEADS[recipe.model[0]], **FAMILY_HEADS.get(recipe.model[:2], {})}
    assert {key: find(model, key) for key in wanted} == wanted


def test_a_recipe_says_its_command_and_its_published_scores(recipe: Recipe) -> None:
    text = (ROOT / f"{recipe.name}.py").read_text()
    assert f"bash tools/dist_train.sh configs/{recipe.name}.py 8\n" in text
    cost = f"# Cost: {recipe.parameters} M parameters, "
    assert cost in text
    if not recipe.scores:
        assert "# Expected: no score is known; the authors report none " in text
        assert "(counted here by tools/get_flops.py)" in text
        return
    kinds = ("box AP", "mask AP") if recipe.task == "coco" else ("mIoU", "mAcc")
    scores = ", ".join(f"{score} {kind}" for score, kind in zip(recipe.scores, kinds, strict=False))
    assert f"# Expected: {scores} (reported by the authors" in text
    assert ("without code, config or weights" in text) == (recipe.model[1][:7] == "flatten")


@pytest.mark.parametrize("name", SHORT)
def test_a_short_door_leads_to_its_recipe(name: str) -> None:
    assert plain(name) == plain(SHORT[name][0])


@pytest.mark.parametrize("name", [n for n in RECIPES if RECIPES[n].model[1] in UNDECAYED])
def test_what_is_not_decayed_are_parameters(name: str) -> None:
    backbone = build(name, "meta").model.backbone
    names = [f"backbone.{name}" for name, _ in backbone.named_parameters()]
    keys = load(name).optim_wrapper.paramwise_cfg.custom_keys
    without = {key for key in keys if not any(key in each for each in names)}
    assert without == NOT_THERE.get(RECIPES[name].model[1], set())
