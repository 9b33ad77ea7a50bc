"""Backbones with softmax mixers are the plain ones of mmdet and mmseg, from their own weights."""

import re
from collections.abc import Mapping

import pytest
import torch
from helpers import SMALL_SWIN, seed_weights, seeded_input, small_backbone
from mmdet.models.backbones import PyramidVisionTransformer, SwinTransformer
from mmseg.models.backbones import VisionTransformer
from torch import Tensor, nn

Weights = dict[str, Tensor]
close = torch.testing.assert_close


def renamed(weights: Mapping[str, Tensor], names: Mapping[str, str]) -> Weights:
    """Weights under names in which each pattern is replaced."""
    found = {}
    for key, value in weights.items():
        for pattern, name in names.items():
            key = re.sub(pattern, name, key)
        found[key] = value
    return found


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 96), (96, 64)])
def test_swin(size: tuple[int, int]) -> None:
    plain = SwinTransformer(
        embed_dims=8,
        depths=SMALL_SWIN["depths"],
        num_heads=SMALL_SWIN["num_heads"],
        window_size=7,
        drop_path_rate=0.0,
    )
    seed_weights(plain)
    plain.eval()  # which returns nothing
    weights = renamed(
        plain.state_dict(),
        {
            r"^patch_embed\.projection": "patch_embed.proj",
            r"^stages": "layers",
            r"attn\.w_msa": "attn",
            r"ffn\.layers\.0\.0": "mlp.fc1",
            r"ffn\.layers\.1": "mlp.fc2",
        },
    )
    for key in [key for key in weights if "downsample" in key]:
        # its four pixels are in the order of nn.Unfold: channel by channel, row by row
        value = weights[key]
        weights[key] = (
            value.unflatten(-1, (-1, 2, 2)).permute(*range(value.dim() - 1), -1, -2, -3).flatten(-3)
        )
    model = small_backbone("swin", mixers=("windows",) * 4).eval()
    mine = model.state_dict()
    weights |= {key: mine[key] for key in mine if key.endswith("relative_position_index")}
    model.load_state_dict(weights)
    x = seeded_input(2, *size)
    close(model(x), tuple(plain(x)), rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("size", [(224, 224), (64, 100)])
def test_vit(size: tuple[int, int]) -> None:
    plain = VisionTransformer(
        img_size=224,
        embed_dims=8,
        num_layers=4,
        num_heads=2,
        out_indices=(0, 1, 2, 3),
        with_cls_token=True,
        interpolate_mode="bicubic",
        patch_bias=True,
    )
    seed_weights(plain)
    plain.eval()  # which returns nothing
    weights = renamed(
        plain.state_dict(),
        {
            r"^patch_embed\.projection": "patch_embed.proj",
            r"^layers": "blocks",
            r"\.ln(\d)": r".norm\1",
            r"attn\.attn\.in_proj_": "attn.qkv.",
            r"attn\.attn\.out_proj": "attn.proj",
            r"ffn\.layers\.0\.0": "mlp.fc1",
            r"ffn\.layers\.1": "mlp.fc2",
        },
    )
    model = small_backbone("vit", mixers="softmax").eval()
    model.load_state_dict(weights)
    x = seeded_input(2, *size)
    for out, want in zip(model(x), plain(x), strict=True):
        close(out, want, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_pvt() -> None:
    plain = PyramidVisionTransformer(
        embed_dims=8,
        num_layers=(1, 2, 1, 1),
        num_heads=(1, 2, 3, 4),
        mlp_ratios=(2, 2, 2, 2),
        sr_ratios=(8, 4, 2, 1),
        drop_path_rate=0.0,
        pretrain_img_size=224,
    )
    seed_weights(plain)
    plain.eval()  # which returns nothing
    weights: Weights = {}
    for key, value in plain.state_dict().items():
        stage, part, rest = re.fullmatch(r"layers\.(\d)\.(\d)\.(.*)", key).groups()  # type: ignore[union-attr]
        number = int(stage) + 1
        if part == "0":
            weights[f"patch_embed{number}.{rest.replace('projection', 'proj')}"] = value
            continue
        if rest.endswith("pos_embed"):  # the first in the list of blocks
            weights[f"pos_embed{number}"] = value
            continue
        block, _, rest = rest.partition(".")
        start = f"block{number}.{int(block) - 1}."
        if "in_proj" in rest:
            kind, dim = rest.rpartition("_")[2], len(value) // 3
            weights[f"{start}attn.q.{kind}"] = value[:dim]
            weights[f"{start}attn.kv.{kind}"] = value[dim:]
            continue
        names = {
            r"attn\.attn\.out_proj": "attn.proj",
            r"ffn\.layers\.0\.": "mlp.fc1.",
            r"ffn\.layers\.[34]\.": "mlp.fc2.",
        }
        ((rest, value),) = renamed({rest: value}, names).items()
        weights[start + rest] = value.flatten(1) if value.shape[-2:] == (1, 1) else value
    model: nn.Module = small_backbone("pvt", mixers=("reduced",) * 4).eval()
    model.load_state_dict(weights)
    x = seeded_input(2, 64, 96)
    close(model(x), tuple(plain(x)), rtol=1e-4, atol=1e-4)
