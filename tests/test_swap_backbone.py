"""``--backbone``: what it makes of stock configs and of ours, and what it refuses."""

import functools
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pytest
import torch
from cells import DONE, try_cell
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from stock import BACKBONES, STOCK
from torch import nn

from agent_attention.backbones import BACKBONES as FAMILIES
from mmengine_agent.backbone_flags import BackboneFlags, choices
from mmengine_agent.config_changes import write_inheriting
from mmengine_agent.errors import UserError
from mmengine_agent.optimizer_constructors import NoDecayConstructor
from mmengine_agent.published import IMAGENET_FILES
from mmengine_agent.run.setup import read_config

ROOT = Path(__file__).parents[1]
BY_HEAD = {each.head: each for each in STOCK}
PVT, SWIN = (64, 128, 320, 512), (96, 192, 384, 768)
RGB = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "bgr_to_rgb": True}


@functools.cache
def swapped(head: str, name: str = "agent_swin_t", **flags: Any) -> Config:
    """A stock config with a backbone; not to be changed."""
    return read_config(BY_HEAD[head].config, None, BackboneFlags(name, **flags))


def find(node: Any, path: str) -> Any:
    for key in path.split("."):
        node = node[int(key)] if key.isdigit() else node[key]
    return node


# ---- names


def test_every_size_of_every_backbone_has_a_name() -> None:
    known = choices()
    sizes = {(family, arch) for family in FAMILIES.values() for arch in family.ARCHS}
    assert {(each.family, each.options["arch"]) for each in known.values()} == sizes
    assert known.keys() >= IMAGENET_FILES.keys()
    with torch.device("meta"):
        model = known["agent_swin_b_384"].family(**known["agent_swin_b_384"].options)
    assert model.layers[0].blocks[0].attn.ah_bias.shape[3] == 96


# ---- what neck and heads get


@pytest.mark.parametrize(
    ("head", "wanted"),
    [
        ("RTMDet", {"backbone.out_indices": (1, 2, 3), "neck.in_channels": list(SWIN[1:])}),
        (
            "FCOS",  # the neck left the first map unread
            {
                "backbone.out_indices": (1, 2, 3),
                "neck.in_channels": list(SWIN[1:]),
                "neck.start_level": 0,
                "backbone.frozen_stages": 1,
            },
        ),
        ("YOLOv3", {"neck.in_channels": [768, 384, 192]}),
        ("YOLOF", {"backbone.out_indices": (3,), "neck.in_channels": 768}),
        (
            "Faster R-CNN, no neck",  # a dilated stage of stride 16
            {
                "backbone.out_indices": (2,),
                "rpn_head.in_channels": 384,
                "roi_head.bbox_roi_extractor.out_channels": 384,
                "roi_head.bbox_head.in_channels": 384,
            },
        ),
        ("Mask2Former, instances", {"panoptic_head.in_channels": list(SWIN)}),
        (
            "PSPNet",
            {
                "backbone.out_indices": (2, 3),
                "decode_head.in_channels": 768,
                "decode_head.in_index": 1,
                "auxiliary_head.in_channels": 384,
                "auxiliary_head.in_index": 0,
                "pretrained": None,
            },
        ),
        (
            "DeepLabV3+",
            {
                "backbone.out_indices": (0, 2, 3),
                "decode_head.in_channels": 768,
                "decode_head.c1_in_channels": 96,
                "decode_head.in_index": 2,
            },
        ),
        ("OCRNet", {"decode_head.0.in_channels": SWIN, "decode_head.1.in_channels": SWIN}),
        ("K-Net on FCN", {"decode_head.kernel_generate_head.in_channels": 768}),
        (
            "FastFCN",  # the neck hands the second map on; 2048 is its own output
            {
                "neck.in_channels": SWIN[1:],
                "decode_head.in_channels": 2048,
                "auxiliary_head.in_channels": 384,
                "auxiliary_head.in_index": 1,
            },
        ),
        ("Segmenter", {"backbone.out_indices": (2,), "decode_head.in_channels": 384}),
    ],
)
def test_neck_and_heads_get_the_channels_of_the_maps_that_they_read(head: str, wanted: Any) -> None:
    model = swapped(head).model
    found = {path: find(model, path) for path in wanted}
    same_kind = {
        p: type(w)(f) if isinstance(w, tuple) else f
        for (p, w), f in zip(wanted.items(), found.values(), strict=True)
    }
    assert same_kind == wanted
    assert "norm_eval" not in model.backbone and "depth" not in model.backbone


def test_images_are_normalised_as_imagenets_rgb() -> None:
    for head in ("FCOS", "YOLOX", "RTMDet"):  # Caffe's BGR, none, BGR
        preprocessor = swapped(head).model.data_preprocessor
        assert {key: preprocessor[key] for key in RGB} == RGB
    steps = swapped("YOLOv3").train_dataloader.dataset.pipeline
    (expand,) = (step for step in steps if step.type == "Expand")
    assert expand.mean == [0, 0, 0]  # black stays black


def test_an_adamw_keeps_its_rates_and_another_optimizer_gets_our_recipes() -> None:
    dino, fcos = swapped("DINO").optim_wrapper, swapped("FCOS").optim_wrapper
    assert (dino.optimizer.lr, dino.paramwise_cfg.custom_keys.backbone.lr_mult) == (1e-4, 0.1)
    assert fcos.optimizer == {"type": "AdamW", "lr": 1e-4, "weight_decay": 0.05}
    assert fcos.clip_grad.max_norm == 35
    kept = swapped("FCOS", keep_optimizer=True).optim_wrapper
    assert kept.optimizer.type == "SGD" and "constructor" not in kept


def test_weights_are_those_that_are_asked_for() -> None:
    assert swapped("FCOS").model.backbone.init_cfg.checkpoint == "checkpoints/agent_swin_t.pth"
    scratch = swapped("FCOS", from_scratch=True).model.backbone
    assert scratch.init_cfg is None and "frozen_stages" not in scratch
    own = str(ROOT / "configs/agent_pvt_maskrcnn.py")
    cfg = read_config(own, None, BackboneFlags(pretrained="mine.pth"))
    assert cfg.model.backbone.init_cfg.checkpoint == "mine.pth"


def test_norms_and_tables_of_the_backbone_are_not_decayed_and_keep_their_rates() -> None:
    cfg = read_config(str(ROOT / "configs/demo/agent_pvt_semantic_fpn_small.py"))
    with DefaultScope.overwrite_default_scope("mmseg"):
        model = MODELS.build(cfg.model)
    wrapper = {
        "type": "OptimWrapper",
        "optimizer": {"type": "AdamW", "lr": 1.0, "weight_decay": 0.5},
    }
    paramwise = {"custom_keys": {"backbone": {"lr_mult": 0.1}}}
    groups = NoDecayConstructor(wrapper, paramwise)(model).optimizer.param_groups
    names = {p: name for name, p in model.named_parameters()}
    by_name = {names[group["params"][0]]: group for group in groups}
    for name, group in by_name.items():
        layer = model.get_submodule(name.rpartition(".")[0])
        decayed = not name.startswith("backbone.") or isinstance(layer, nn.Linear | nn.Conv2d)
        assert group["weight_decay"] == (0.5 if decayed else 0.0), name
        assert group["lr"] == (0.1 if name.startswith("backbone.") else 1.0)
    assert by_name["backbone.block1.0.attn.ah_bias"]["weight_decay"] == 0.0


# ---- what is refused


@pytest.mark.parametrize(
    ("config", "name", "said"),
    [
        *(
            (each.config, "agent_pvt_t", each.refused)
            for each in STOCK
            if each.refused and "vit-l" not in each.config
        ),
        (
            "mmseg::mobilenet_v3/mobilenet-v3-d8_lraspp_4xb4-320k_cityscapes-512x1024.py",
            "agent_pvt_t",
            "stride 2",
        ),
        (BY_HEAD["RTMDet"].config, "agent_deit_s", "take a pyramid"),
        (BY_HEAD["RTMDet"].config, "resnet50", "there is none of that name; .*agent_pvt_t"),
        (
            "mmdet::rtmdet/rtmdet_tiny_8xb32-300_coco.py",
            "agent_pvt_t",
            "did you mean mmdet::rtmdet/rtmdet_tiny_8xb",
        ),
        (
            "mmdet::misc/d2_retinanet_r50-caffe_fpn_ms-90k_coco.py",
            "agent_pvt_t",
            "no model.backbone to be replaced",
        ),
        ("mmdot::a/b.py", "agent_pvt_t", "there is no package mmdot"),
    ],
)
def test_what_cannot_be_is_one_sentence(config: str, name: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        read_config(config, None, BackboneFlags(name))
    assert "\n" not in str(error.value)


def test_flags_that_contradict_each_other_are_refused() -> None:
    parser = ArgumentParser()
    BackboneFlags.add_to(parser, training=True)
    with pytest.raises(UserError, match="give one of them"):
        BackboneFlags.of(parser.parse_args(["--pretrained", "a.pth", "--from-scratch"]))
    with pytest.raises(UserError, match="goes with --backbone"):
        BackboneFlags.of(parser.parse_args(["--keep-optimizer"]))


# ---- written configs, and the table


@pytest.mark.parametrize("head", ["RTMDet", "PSPNet", "OCRNet"])
def test_a_written_config_is_the_swapped_one(head: str, tmp_path: Path) -> None:
    base, out = BY_HEAD[head].config, tmp_path / "mine.py"
    wanted = swapped(head)
    write_inheriting(out, base, wanted, "a head")
    found = Config.fromfile(out)
    assert without_scopes(found.to_dict()) == without_scopes(wanted.to_dict())
    assert 3 * len(out.read_text().splitlines()) < len(wanted.pretty_text.splitlines())


def without_scopes(node: Any) -> Any:
    """A config without mmengine's notes of where a base comes from."""
    if isinstance(node, dict):
        return {key: without_scopes(child) for key, child in node.items() if key != "_scope_"}
    return [*map(without_scopes, node)] if isinstance(node, list) else node


@pytest.mark.parametrize(
    ("head", "backbone"), [("RTMDet", "agent_pvt_t"), ("Segmenter", "agent_swin_t")]
)
def test_a_stock_head_trains_predicts_and_is_counted(head: str, backbone: str) -> None:
    assert try_cell(BY_HEAD[head], backbone) == DONE


def test_the_page_has_the_table_of_the_list() -> None:
    text = (ROOT / "docs/any_head.md").read_text()
    lines = [line.removeprefix("| ") for line in text.splitlines() if line.startswith("| ")]
    rows = [line.split(" | ") for line in lines if "`mmdet::" in line or "`mmseg::" in line]
    listed = [(head, config.strip("`")) for head, config, *_ in rows]
    assert listed == [(each.head, each.config) for each in STOCK]
    assert all(DONE in row[2] or BY_HEAD[row[0]].refused in row[2] for row in rows)
    assert f"| {' | '.join(BACKBONES)} |" in text


# ---- agents


def test_agents_are_set_and_nothing_else() -> None:
    plain = read_config("agent_pvt_semantic_fpn")
    for agents in ("bounded", 49):
        cfg = read_config("agent_pvt_semantic_fpn", None, BackboneFlags(agents=agents))
        assert cfg.model.backbone.pop("agent_shapes") == agents
        assert cfg.model == plain.model
    vit = next(name for name in choices() if name.startswith("agent_deit"))
    cfg = read_config(BY_HEAD["Segmenter"].config, None, BackboneFlags(vit, agents="bounded"))
    assert cfg.model.backbone.agent_shape == "bounded"


def test_agents_of_a_backbone_without_any_are_refused() -> None:
    with pytest.raises(UserError, match="--agents: ResNet has none"):
        read_config(BY_HEAD["RetinaNet"].config, None, BackboneFlags(agents="rule"))
