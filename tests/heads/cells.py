"""One cell of the table of heads: a stock config with a backbone, small, through its steps."""

import copy
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from one_step import SIZE, check_training_step, few_proposals, is_detector, packed_batch
from stock import Stock

from agent_toolkit.commands import flops as get_flops
from mmengine_agent.backbone_flags import BackboneFlags
from mmengine_agent.class_counts import set_class_count
from mmengine_agent.config_walk import walk
from mmengine_agent.errors import UserError
from mmengine_agent.run.setup import read_config

_QUERIES = {"num_queries": 24, "num_proposals": 24, "num_dn_queries": 10}
CLASSES, THINGS = 7, 5
DONE = "trained, predicted, counted"


def small(cfg: Config) -> Config:
    """A config whose model takes seconds on a CPU, in place."""
    few_proposals(cfg.model)
    set_class_count(cfg.model, CLASSES, THINGS)
    cfg.model.setdefault("data_preprocessor", cfg.get("data_preprocessor"))
    cfg.model.data_preprocessor.pop("batch_augments", None)
    for _, node in walk(cfg.model):
        if "score_thr" in node:
            node.score_thr = 0.0  # what has learnt nothing is sure of nothing
        node.update({key: min(node[key], most) for key, most in _QUERIES.items() if key in node})
    return cfg


def try_cell(stock: Stock, backbone: str) -> str:
    """What a config does with a backbone, or the sentence with which it is refused.

    Raises:
        AssertionError: if it does not do it.
    """
    try:
        cfg = small(read_config(stock.config, None, BackboneFlags(backbone, from_scratch=True)))
    except UserError as error:
        assert stock.refused and stock.refused in str(error), error
        return str(error)
    assert not stock.refused, "it was not refused"
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model: Any = revert_sync_batchnorm(MODELS.build(copy.deepcopy(cfg.model)))
    model.init_weights()
    for name, weights in model.named_parameters():
        if "fc_reg" in name:  # random ones move boxes out of the image, where mmdet pastes no mask
            weights.data.zero_()
    MessageHub.get_current_instance().update_info("epoch", 0)  # TOOD asks for it
    steps = [step for _, step in walk(cfg.train_dataloader)]
    panoptic = "LoadPanopticAnnotations"  # with masks unless it says otherwise
    masks = any(step.get("with_mask", step.get("type") == panoptic) for step in steps)
    check_training_step(model, masks)
    check_gradients(model, masks)
    check_prediction(model)
    counts = get_flops.count(cfg, (SIZE, 2 * SIZE))
    assert counts["model"].multiply_adds > counts["backbone"].multiply_adds > 0
    return DONE


def check_gradients(model: Any, masks: bool) -> None:
    """Every parameter of the backbone gets one, as DDP asks for."""
    model.train()
    losses, _ = model.parse_losses(model(**packed_batch(model, True, masks), mode="loss"))
    losses.backward()
    without = [name for name, p in model.backbone.named_parameters() if p.grad is None]
    assert not [name for name in without if model.backbone.get_parameter(name).requires_grad]


@torch.no_grad()
def check_prediction(model: Any) -> None:
    """There is a result for each image, of its size."""
    results = model.eval()(**packed_batch(model, training=False), mode="predict")
    assert len(results) == 2
    for each in results:
        if not is_detector(model):
            assert each.pred_sem_seg.data.shape == (1, SIZE, SIZE)
        elif "pred_panoptic_seg" in each:
            assert each.pred_panoptic_seg.sem_seg.shape == (1, SIZE, SIZE)
        else:
            found = each.pred_instances
            assert len(found.scores) == len(found.labels) == len(found)
            assert "masks" not in found or found.masks.shape[1:] == (SIZE, SIZE)
