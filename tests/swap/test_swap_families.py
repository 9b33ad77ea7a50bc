"""Every family that this environment has: identities, removal, copies, half precision."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import SMALL, SMALL_VIT, normal
from mmdet.models.backbones import PyramidVisionTransformer, PyramidVisionTransformerV2
from mmseg.models.backbones import MixVisionTransformer, VisionTransformer
from swap_cases import (
    Case,
    check_constant_tokens,
    check_removal,
    check_whole_maps,
    difference,
    prepare,
)
from torch import Tensor, nn

from agent_attention import AgentPVT, AgentViT
from agent_attention.backbones import lean
from agent_attention.compute.guard import using
from agent_attention.swap import Agent, Clusters, Nystrom, PooledKeys, swap_attention

IMAGE = normal(3, (2, 3, 64, 96))  # maps of 16x24, 8x12, 4x6 and 2x3
SIZES = {384: (16, 24), 96: (8, 12), 24: (4, 6), 25: (4, 6), 6: (2, 3)}
PYRAMID = {"embed_dims": 8, "num_layers": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2]}
PLAIN = {"img_size": 64, "embed_dims": 16, "num_layers": 2, "num_heads": 2, "out_indices": (0, 1)}


class TorchViT(nn.Module):
    """torch's own encoder behind a convolution, its tokens in batches or in front of them."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 16, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        return self.encoder(x) if self.batch_first else self.encoder(x.transpose(0, 1))


def with_image(model: nn.Module) -> Any:
    return model(IMAGE.to(next(model.parameters()).dtype))


def with_size(module: nn.Module, x: Tensor) -> Any:
    return module(x, SIZES[x.shape[1]])


def alone(module: nn.Module, x: Tensor) -> Any:
    return module(x)


def as_torch(module: nn.Module, x: Tensor) -> Any:
    return module(x, x, x)[0]


CASES: dict[str, Callable[[], Case]] = {
    "AgentPVT": lambda: Case(
        prepare(AgentPVT(SMALL, mixers=("reduced", "reduced", "softmax", "softmax"))),
        with_image,
        with_size,
    ),
    "AgentViT": lambda: Case(
        prepare(AgentViT(SMALL_VIT, mixers="softmax", out_indices=(1, 3))), with_image, with_size
    ),
    "mmdet PVT": lambda: Case(
        prepare(PyramidVisionTransformer(pretrain_img_size=64, **PYRAMID)), with_image, with_size
    ),
    "mmdet PVTv2": lambda: Case(
        prepare(PyramidVisionTransformerV2(**PYRAMID)), with_image, with_size
    ),
    "mmseg MixVisionTransformer": lambda: Case(
        prepare(MixVisionTransformer(**PYRAMID)), with_image, with_size
    ),
    "mmseg VisionTransformer": lambda: Case(prepare(VisionTransformer(**PLAIN)), with_image, alone),
    "without a class token": lambda: Case(
        prepare(VisionTransformer(with_cls_token=False, **PLAIN)), with_image, alone
    ),
    "torch": lambda: Case(prepare(TorchViT(True)), with_image, as_torch, {"size": "patches"}),
    "torch, tokens first": lambda: Case(
        prepare(TorchViT(False)),
        with_image,
        lambda m, x: as_torch(m, x.transpose(0, 1)),
        {"size": (4, 6)},
    ),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


def test_whole_maps_are_softmax(case: Case) -> None:
    found = check_whole_maps(case)
    assert max(found.values()) < 1e-12
    case.model.float()
    assert max(check_whole_maps(case).values()) < 1e-5


def test_constant_tokens_are_softmax(case: Case) -> None:
    assert check_constant_tokens(case) < 1e-12


def test_what_is_removed_was_never_there(case: Case) -> None:
    assert check_removal(case) > 1e-5  # and while it was there, it did something


@pytest.mark.parametrize("name", ["AgentViT", "mmseg VisionTransformer"])
@pytest.mark.parametrize(
    "form",
    [Agent((2, 3)), Nystrom((2, 3)), PooledKeys((3, 3)), Agent(clusters=Clusters(2, 0.6, 0.2))],
)
def test_other_precisions(name: str, form: Any) -> None:
    case = CASES[name]()
    with case.swap(form):
        wanted = case.outputs(case.model.float())
        with torch.autocast("cpu", torch.bfloat16):
            assert difference(case.outputs(), wanted) < 0.1
        for dtype in (torch.bfloat16, torch.float16):
            found = [out.float() for out in case.outputs(case.model.to(dtype))]
            assert difference(found, wanted) < 0.1
        case.model.float()
        loss = sum(out.square().mean() for out in case.call(case.model))
        loss.backward()  # gradients go through, for those who tune in evaluation mode
    layers = {**dict(case.model.named_parameters())}
    assert all(
        w.grad.any() for key, w in layers.items() if "attn" in key and key.endswith("weight")
    )


def test_a_detector_and_hooks_of_others() -> None:
    """The family is found inside another model, and hooks stay and are called."""
    model = nn.ModuleDict({"backbone": CASES["mmseg VisionTransformer"]().model})
    seen: list[str] = []
    hook = model["backbone"].layers[0].attn.attn.register_forward_hook(lambda *_: seen.append("x"))
    with swap_attention(model, Agent((2, 2)), min_tokens=0) as swap:
        with_image(model["backbone"])
        assert [row.name for row in swap.report] == [f"backbone.layers.{i}.attn" for i in (0, 1)]
    assert seen == ["x"]
    with_image(model["backbone"])
    hook.remove()
    assert seen == ["x", "x"]


def test_forms_by_name_and_training() -> None:
    case = CASES["AgentViT"]()
    names = ["blocks.0.attn", "blocks.2.attn"]
    forms = {names[0]: PooledKeys((2, 3)), names[1]: Agent((2, 3))}
    with case.swap(forms, training=True) as swap:
        case.model.train()
        case.call(case.model)
        assert [row.name for row in swap.report if row.used] == names
        case.model.blocks[0].attn.attn_drop = 0.1
        with pytest.raises(ValueError, match=r"blocks.0.attn .*drops attention weights out"):
            case.call(case.model)
    case.model.eval()
    with pytest.raises(ValueError, match=r"there is no attention blocks\.9\.attn"):
        case.swap({"blocks.9.attn": Agent()})


def test_blocks_of_this_package_still_run_in_the_lean_executor() -> None:
    case = CASES["AgentViT"]()
    with case.swap(Agent((2, 3))), torch.no_grad():
        wanted = case.outputs()
        assert lean.takes(case.model.blocks, torch.zeros(1, 25, 8))
        with using(way="plain"):
            assert not lean.takes(case.model.blocks, torch.zeros(1, 25, 8))
            assert difference(case.outputs(), wanted) < 1e-12
