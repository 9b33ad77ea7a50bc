"""Attention swapped in models of timm, transformers, mmpretrain and diffusers: a table.

    make clients                                  # installs them, a few minutes
    PYTHONPATH=.:tests .venv-clients/bin/python tests/clients/swap.py timm diffusers

Whole maps and constant tokens give softmax attention, relative to the largest number; a removed
swap leaves the model bit for bit, and so do copies. Exit code 1 if something failed.
"""

import importlib.abc
import importlib.machinery
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import product
from typing import Any

import torch
from swap_cases import (
    Case,
    check_constant_tokens,
    check_removal,
    check_whole_maps,
    difference,
    prepare,
)
from torch import Tensor, nn

from agent_attention.swap import agent_sd

IMAGE = torch.randn(2, 3, 64, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Cases = Iterator[tuple[str, Case]]
FAMILIES: dict[str, Callable[[], Cases]] = {}


def family(function: Callable[[], Cases]) -> Callable[[], Cases]:
    """Note a package and its small models."""
    FAMILIES[function.__name__] = function
    return function


def with_image(model: nn.Module) -> Any:
    return model(IMAGE.to(next(model.parameters()).dtype))


def alone(module: nn.Module, x: Tensor) -> Any:
    return module(x)


@family
def transformers() -> Cases:
    import transformers as package

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 16}
    sizes |= {"intermediate_size": 32, "image_size": 64}
    names = ("ViT", "DeiT", "Dinov2", "Dinov2WithRegisters")
    for name, way in product(names, ("sdpa", "eager")):
        config = getattr(package, f"{name}Config")(**sizes, attn_implementation=way)
        options = {} if name.startswith("Dino") else {"interpolate_pos_encoding": True}

        def call(model: nn.Module, options: dict[str, Any] = options) -> Any:
            return model(IMAGE.to(model.dtype), **options).last_hidden_state

        model = getattr(package, f"{name}Model")(config)
        yield f"{name}, {way}", Case(prepare(model), call, lambda module, x: module(x)[0])


@family
def diffusers() -> Cases:
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import AttnProcessor

    model = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    case = Case(prepare(model), denoise, alone)
    check_agent_sd(case)
    yield "UNet2DConditionModel", case
    model.set_attn_processor(AttnProcessor())
    yield "UNet2DConditionModel, explicit", Case(prepare(model), denoise, alone)


def denoise(model: nn.Module, time: int = 981) -> Any:
    """One step of denoising a latent of 18 x 22."""
    latent, words = IMAGE[:, [0, 1, 2, 0], :18, :22], IMAGE[:, :2, 0, :16]
    weight = next(model.parameters())
    return model(latent.to(weight), time, words.to(weight)).sample


def check_agent_sd(case: Case) -> None:
    """Agents in the first steps, softmax after; merged tokens or none."""
    with torch.no_grad():
        wanted = denoise(case.model)
        with case.swap(None, steps=agent_sd(ratio=0, until=2), min_tokens=300) as swap:
            found = [denoise(case.model, time) for time in (981, 961, 941)]
            assert [row.queries for row in swap.report] == [396, 396, 396, 99] and swap.step == 2
            again = denoise(case.model, 981)  # the next image
        assert torch.equal(again, found[0]) and not torch.equal(found[0], wanted)
        assert torch.equal(found[2], denoise(case.model, 941))
        with case.swap(None, steps=agent_sd(ratio=0.4, until=2)) as swap:
            merged = [denoise(case.model, time) for time in (981, 961, 941)]
            assert swap.step == 2 and difference(merged[2:], [found[2]]) > 1e-6


@family
def timm() -> Cases:
    stand_in_for("torchvision")
    from timm.models.vision_transformer import VisionTransformer

    sizes = {"img_size": (64, 96), "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 0}
    for fused, registers, norm in ((True, 0, False), (True, 4, True), (False, 0, False)):
        model = VisionTransformer(**sizes, reg_tokens=registers, qk_norm=norm)
        for block in model.blocks:
            block.attn.fused_attn = fused
        name = f"ViT, {registers} registers, {'fused' if fused else 'explicit'}"
        yield name, Case(prepare(model), with_image, alone)


@family
def mmpretrain() -> Cases:
    stand_in_for("torchvision", *(f"mmpretrain.models.{name}" for name in _NOT_FOR_IMAGES))
    from mmpretrain.models.backbones import DistilledVisionTransformer, VisionTransformer

    arch = {"embed_dims": 16, "num_layers": 2, "num_heads": 2, "feedforward_channels": 32}
    sizes = {"arch": arch, "img_size": 64, "patch_size": 16}
    for name, model in (
        ("ViT", VisionTransformer(**sizes, out_type="raw")),
        ("DINOv2's, scaled layers", VisionTransformer(**sizes, layer_scale_init_value=0.1)),
        ("ViT, no class token", VisionTransformer(**sizes, with_cls_token=False, out_type="raw")),
        ("DeiT", DistilledVisionTransformer(**sizes)),
    ):
        yield name, Case(prepare(model), with_image, alone)


_NOT_FOR_IMAGES = ("multimodal", "utils.huggingface", "utils.tokenizer")  # want old transformers


class StandIn(types.ModuleType):
    """A package of which any name can be imported."""

    __path__: list[str] = []  # noqa: RUF012
    __all__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return AnyName(name, (), {})


class AnyName(type):
    """A class with any attribute."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return f"{cls.__name__}.{name}"


def stand_in_for(*names: str) -> None:
    """Import these from nowhere: no torchvision may be built for this torch.

    Backbones make no use of them.
    """

    class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
        def find_spec(self, name: str, *_: Any) -> Any:
            if any(f"{name}.".startswith(f"{each}.") for each in names):
                return importlib.machinery.ModuleSpec(name, self, is_package=True)
            return None

        def create_module(self, spec: Any) -> types.ModuleType:
            return StandIn(spec.name)

        def exec_module(self, module: types.ModuleType) -> None:
            pass

    sys.meta_path.insert(0, Finder())


def row_of(case: Case) -> list[str]:
    """What was found of one model; a swap in single precision too."""
    found = [max(check_whole_maps(case).values()), check_constant_tokens(case)]
    moved = check_removal(case)
    case.model.float()
    found += [max(check_whole_maps(case).values()), check_constant_tokens(case)]
    assert max(found[:2]) < 1e-7 and max(found[2:]) < 1e-5 and moved > 1e-6, (found, moved)
    return [*(f"{each:.0e}" for each in found), "bit for bit"]


def main() -> int:
    asked = sys.argv[1:] or list(FAMILIES)
    if unknown := [name for name in asked if name not in FAMILIES]:
        print(f"there is no {unknown[0]!r}; there are {', '.join(FAMILIES)}", file=sys.stderr)
        return 2
    names = [name for name in FAMILIES if name in asked]  # those with a stand-in come last
    head = "| attention swapped in | whole map | constant tokens | in float32 | | removed |"
    print(f"{head}\n|---|---|---|---|---|---|", flush=True)
    failed = False
    for name in names:
        release = version("onedl-mmpretrain" if name == "mmpretrain" else name)
        try:
            for label, case in FAMILIES[name]():
                print(f"| {name} {release} {label} | {' | '.join(row_of(case))} |", flush=True)
        except Exception as error:
            traceback.print_exc()
            failed = True
            print(f"| {name} {release} | FAILED: {type(error).__name__}: {error} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
