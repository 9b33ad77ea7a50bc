"""The simple feature pyramid, and the rates of layers that a detector with it is trained with."""

from typing import Any

import pytest
import torch
from helpers import normal, seed_weights
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn
from torch.nn import functional as F

import mmdet_agent
import mmseg_agent
from agent_attention.backbones import AgentViT
from mmengine_agent.errors import UserError
from mmengine_agent.optimizer_constructors import LayerDecayConstructor, learning_rates
from mmengine_agent.simple_feature_pyramid import ChannelLayerNorm, SimpleFeaturePyramid

SMALL_VIT = {"embed_dim": 16, "depth": 3, "num_heads": 2, "base_grid": 3}


def neck(**arguments: Any) -> SimpleFeaturePyramid:
    return seed_weights(SimpleFeaturePyramid(**{"in_channels": 8, "out_channels": 6, **arguments}))


def norm(x: Tensor, layer: Any) -> Tensor:
    """LayerNorm over the channels, in full."""
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).square().mean(1, keepdim=True)
    weight, bias = (each[:, None, None] for each in (layer.weight, layer.bias))
    return (x - mean) / (variance + 1e-6).sqrt() * weight + bias


def doubled(x: Tensor, layer: Any) -> Tensor:
    """Each place becomes 2 x 2, each of them its own product: (B, C, H, W) -> (B, C', 2H, 2W)."""
    places = torch.einsum("bchw,cdij->bdhiwj", x, layer.weight)
    return places.flatten(4, 5).flatten(2, 3) + layer.bias[:, None, None]


def projected(x: Tensor, layers: Any) -> Tensor:
    first, norm1, second, norm2 = layers
    x = norm(torch.einsum("bchw,dc->bdhw", x, first.weight[:, :, 0, 0]), norm1)
    return norm(F.conv2d(x, second.weight, padding=1), norm2)


def definition(x: Tensor, model: SimpleFeaturePyramid) -> list[Tensor]:
    """The five levels, as figure 2 and the appendix of the paper have them."""
    four, eight, sixteen, thirty_two = (list(level.children()) for level in model.levels)  # type: ignore[union-attr]
    quarter = doubled(F.gelu(norm(doubled(x, four[0]), four[1])), four[3])
    height, width = (side // 2 * 2 for side in x.shape[2:])
    corners = [x[:, :, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)]
    half = torch.stack(corners).amax(0)
    outs = [
        projected(quarter, four[4:]),
        projected(doubled(x, eight[0]), eight[1:]),
        projected(x, sixteen),
        projected(half, thirty_two[1:]),
    ]
    return [*outs, outs[-1][:, :, ::2, ::2]]


@pytest.mark.parametrize("size", [(2, 2), (3, 5), (4, 6), (7, 7), (13, 10)])
def test_the_levels_are_those_of_the_definition_at_any_size(size: tuple[int, int]) -> None:
    model, x = neck(), normal(3, (2, 8, *size))
    outs, wanted = model(x), definition(x, model)
    (h, w), down = size, (size[0] // 2, size[1] // 2)
    sizes = [(4 * h, 4 * w), (2 * h, 2 * w), size, down, (-(-down[0] // 2), -(-down[1] // 2))]
    assert [tuple(out.shape) for out in outs] == [(2, 6, *each) for each in sizes]
    for out, one in zip(outs, wanted, strict=True):
        torch.testing.assert_close(out, one, atol=2e-5, rtol=2e-5)


def test_it_takes_the_last_map_of_several() -> None:
    model, maps = neck(), [normal(seed, (1, 8, 4, 4)) for seed in (1, 2)]
    for out, one in zip(model(tuple(maps)), model(maps[1]), strict=True):
        assert torch.equal(out, one)


def test_every_parameter_gets_a_gradient_of_its_own_map() -> None:
    model, x = neck(), normal(3, (2, 8, 4, 4)).requires_grad_()
    sum(out.square().mean() for out in model(x)).backward()
    for name, parameter in [*model.named_parameters(), ("x", x)]:
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_more_levels_are_every_second_place() -> None:
    four, six = (neck(num_outs=count)(normal(3, (1, 8, 9, 9))) for count in (4, 6))
    assert len(four) == 4 and len(six) == 6
    assert torch.equal(six[4], four[3][:, :, ::2, ::2])
    assert torch.equal(six[5], six[4][:, :, ::2, ::2])


def test_what_it_does_not_take_is_refused_by_name() -> None:
    for arguments in ({"in_channels": 2}, {"out_channels": 0}, {"num_outs": 3}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            neck(**arguments)
    with pytest.raises(ValueError, match="in_channels=8, its map 4"):
        neck()(torch.zeros(1, 4, 4, 4))
    with pytest.raises(ValueError, match="1x4 is too small"):
        neck()(torch.zeros(1, 8, 1, 4))


@pytest.mark.parametrize("scope", ["mmdet", "mmseg"])
def test_both_tasks_know_it(scope: str) -> None:
    assert mmdet_agent.SimpleFeaturePyramid is mmseg_agent.SimpleFeaturePyramid
    with DefaultScope.overwrite_default_scope(scope):
        built = MODELS.build({"type": "SimpleFeaturePyramid", "in_channels": 8})
    assert type(built) is SimpleFeaturePyramid
    built.init_weights()
    assert [out.shape[1] for out in built(torch.zeros(1, 8, 2, 2))] == [256] * 5


# ---- a detector with it


@pytest.fixture(scope="module")
def detector() -> Any:
    """RetinaNet on a small ViT."""
    model = {
        "type": "RetinaNet",
        "backbone": {"type": "AgentViT", "arch": SMALL_VIT, "out_indices": (2,)},
        "neck": {"type": "SimpleFeaturePyramid", "in_channels": 16, "out_channels": 8},
        "bbox_head": {
            "type": "RetinaHead",
            "num_classes": 2,
            "in_channels": 8,
            "stacked_convs": 1,
            "feat_channels": 8,
            "norm_cfg": {"type": "ChannelLayerNorm"},
            "anchor_generator": {
                "type": "AnchorGenerator",
                "octave_base_scale": 4,
                "scales_per_octave": 1,
                "ratios": [1.0],
                "strides": [4, 8, 16, 32, 64],
            },
            "bbox_coder": {"type": "DeltaXYWHBBoxCoder"},
            "loss_cls": {"type": "FocalLoss", "use_sigmoid": True},
            "loss_bbox": {"type": "L1Loss"},
        },
        "train_cfg": {
            "assigner": {"type": "MaxIoUAssigner", "pos_iou_thr": 0.5, "neg_iou_thr": 0.4},
            "allowed_border": -1,
            "pos_weight": -1,
        },
    }
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmdet"):
        return MODELS.build(model)


def optimizer(model: nn.Module, **paramwise: Any) -> Any:
    return build_optim_wrapper(
        model,
        {
            "type": "OptimWrapper",
            "optimizer": {"type": "AdamW", "lr": 1.0, "weight_decay": 0.1},
            "constructor": "LayerDecayConstructor",
            "paramwise_cfg": {"layer_decay_rate": 0.5, **paramwise},
        },
    )


def test_a_step_changes_every_parameter_of_a_detector(detector: Any) -> None:
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    boxes = torch.tensor([[4.0, 4, 36, 30], [20, 24, 90, 60]])
    sample = DetDataSample(gt_instances=InstanceData(bboxes=boxes, labels=torch.tensor([0, 1])))
    sample.set_metainfo({"img_shape": (64, 96), "pad_shape": (64, 96)})
    before = {name: p.detach().clone() for name, p in detector.named_parameters()}
    wrapper = optimizer(detector)
    for group in wrapper.optimizer.param_groups:
        group["lr"] *= 1e-3
    losses = detector(normal(3, (1, 3, 64, 96)), [sample], mode="loss")
    loss, _ = detector.parse_losses(losses)
    wrapper.update_params(loss)
    for name, parameter in detector.named_parameters():
        assert torch.isfinite(parameter).all(), name
        assert not torch.equal(parameter, before[name]), name


def test_rates_fall_from_the_heads_to_the_embeddings(detector: Any) -> None:
    keys = {"pos_embed": {"decay_mult": 0.0}, "proj.weight": {"lr_mult": 3.0}}
    wrapper = optimizer(detector, flat_decay_mult=0.0, custom_keys=keys)
    names = {parameter: name for name, parameter in detector.named_parameters()}
    assert len(wrapper.optimizer.param_groups) == len(names)
    for group in wrapper.optimizer.param_groups:
        (parameter,) = group["params"]
        name = names[parameter]
        stage = 4  # of the neck and the heads
        if name.startswith("backbone."):
            stage = int(name.split(".")[2]) + 1 if "blocks" in name else 0
        assert group["lr"] == 0.5 ** (4 - stage) * (3 if "proj.weight" in name else 1), name
        flat = parameter.dim() == 1 or "pos_embed" in name
        assert group["weight_decay"] == (0 if flat else 0.1), name


def test_rates_are_of_all_parameters_of_the_stages() -> None:
    model = AgentViT(SMALL_VIT, out_indices=(2,), final_norm=True)
    rates = learning_rates(model, 0.5)
    without = [name for name, parameter in model.named_parameters() if parameter not in rates]
    assert without == ["norm.weight", "norm.bias"]


def test_layer_decay_wants_a_backbone_of_ours_and_numbers() -> None:
    with pytest.raises(UserError, match="takes our backbones"):
        optimizer(nn.Linear(2, 2))
    for number in (None, 0.0, 1.5, "0.7"):
        with pytest.raises(UserError, match=r"paramwise_cfg\.layer_decay_rate, above 0"):
            optimizer(nn.Linear(2, 2), layer_decay_rate=number)
    wrapper = {"optimizer": {"type": "AdamW"}}
    with pytest.raises(UserError, match=r"optimizer\.lr"):
        LayerDecayConstructor(wrapper, {"layer_decay_rate": 0.5})


def test_a_norm_over_channels_is_that_of_its_definition() -> None:
    layer, x = seed_weights(ChannelLayerNorm(6)), normal(4, (2, 6, 3, 5))
    torch.testing.assert_close(layer(x), norm(x, layer), atol=1e-6, rtol=1e-6)
