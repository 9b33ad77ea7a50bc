"""Detectors that take more queries than an image has tokens say so, early or late."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config, ConfigDict
from torch import Tensor, nn

from mmdet_agent.queries import guard_queries, query_problems
from mmengine_agent.errors import UserError
from mmengine_agent.run.setup import read_config

DINO = "mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py"
TINY = {"type": "AgentPVT", "arch": "tiny", "out_indices": (1, 2, 3)}


def sized(width: int, height: int, queries: int) -> Config:
    cfg = read_config(DINO)
    cfg.model.backbone, cfg.model.num_queries = ConfigDict(TINY), queries
    resize = {"type": "Resize", "scale": (width, height), "keep_ratio": True}
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.pipeline = [ConfigDict(resize)]
    return cfg


def test_a_size_with_too_few_tokens_is_refused_before_the_run() -> None:
    tokens = 32 * 24 + 16 * 12 + 8 * 6 + 4 * 3  # of strides 8 to 64
    assert [*query_problems(sized(256, 192, tokens), ("train", "val"))] == []
    (problem,) = query_problems(sized(256, 192, tokens + 1), ("train", "val"))
    assert f"256 x 192 pixels have {tokens} tokens" in problem.text and problem.fatal
    assert f"model.num_queries={tokens + 1}" in problem.text and "--image-size" in problem.text


def test_heads_with_queries_of_their_own_take_any_size() -> None:
    cfg = sized(64, 64, 900)
    cfg.model.as_two_stage = False
    assert [*query_problems(cfg, ("train", "val"))] == []


class Encoder(nn.Module):
    def forward(self, query: Tensor, spatial_shapes: Tensor) -> Tensor:
        return query


def test_an_image_with_too_few_tokens_is_refused_where_it_comes() -> None:
    model = SimpleNamespace(as_two_stage=True, num_queries=7, encoder=Encoder())
    guard_queries(model)
    shapes = torch.tensor([[2, 3], [1, 2]])
    with pytest.raises(UserError, match=r"maps of 3 x 2, 2 x 1 has 6 tokens.* num_queries=7 "):
        model.encoder(query=torch.zeros(1, 6, 4), spatial_shapes=shapes)
    model.encoder(query=torch.zeros(1, 7, 4), spatial_shapes=shapes)
