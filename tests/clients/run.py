"""Other people's software, put to work on every backbone: a table.

    make clients                                  # installs it, a few minutes
    PYTHONPATH=.:tests .venv-clients/bin/python tests/clients/run.py peft torchao

What it does to a model takes effect, and the numbers are those that the model's plain modules give.
Exit code 1 if something failed.
"""

import argparse
import copy
import sys
import tempfile
import traceback
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from helpers import blocks_of, seed_weights, seeded_input
from torch import Tensor, nn

from agent_attention import load_backbone
from agent_attention.backbones import BACKBONES
from agent_attention.compute.guard import using

X = seeded_input(1, 224, 320)
MODES = (torch.no_grad, torch.enable_grad)
SAME = 1e-5  # relative: executors round elsewhere than plain modules
CLIENTS: dict[str, Callable[[nn.Module], str]] = {}


def client(function: Callable[[nn.Module], str]) -> Callable[[nn.Module], str]:
    """Note a client: it gets a model in evaluation mode, and says what it has found."""
    CLIENTS[function.__name__.replace("_", "-")] = function
    return function


def maps(model: nn.Module, way: str | None = None) -> list[Tensor]:
    """The model's maps; those of its plain modules with ``way="plain"``."""
    with torch.no_grad(), using(way=way):
        return list(model(X))


def difference(found: Any, wanted: Any) -> float:
    """Of maps: the largest, relative to the largest number that is wanted."""
    return max(
        ((a - b).abs().max() / b.abs().max()).item() for a, b in zip(found, wanted, strict=True)
    )


def holds_to_plain(
    model: nn.Module, base: list[Tensor], least: float, most: float, off: float = 1e-4
) -> str:
    """The model gives its plain modules' numbers, so far from those that it gave before."""
    wanted = maps(model, "plain")
    for mode in MODES:
        with mode():
            found = [out.detach() for out in model(X)]
        other = difference(found, wanted)
        assert other < off, f"{mode.__name__}: {other:.2g} from its plain modules"
    change = difference(wanted, base)
    assert least <= change <= most, f"changed by {change:.2g}, not {least} to {most}"
    return f"changed by {change:.1g}, as its modules say"


@client
def peft(model: nn.Module) -> str:
    """LoRA on every linear layer: in inference, in training, and merged."""
    from peft import LoraConfig, get_peft_model

    base = maps(model)
    layers = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    config = LoraConfig(r=4, target_modules=layers, init_lora_weights=False)
    adapted = get_peft_model(model, config)  # type: ignore[arg-type]
    said = holds_to_plain(adapted, base, 1e-3, 10)
    adapted.train()
    sum(out.square().mean() for out in adapted(X)).backward()
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * len(layers) and all("lora" in name for name in trained)
    assert all(p.grad.any() for p in adapted.parameters() if p.requires_grad)
    wanted = maps(adapted.eval())
    assert difference(maps(adapted.merge_and_unload()), wanted) < 1e-4
    return f"LoRA on {len(layers)} layers {said}; all trained; merged alike"


@client
def torchao(model: nn.Module) -> str:
    """Weights of eight bits."""
    from torchao.quantization import (
        Int8DynamicActivationInt8WeightConfig,
        Int8WeightOnlyConfig,
        quantize_,
    )

    base = maps(model)
    found = []
    for name, config, off in (
        ("weights", Int8WeightOnlyConfig(), 1e-4),
        # activations of eight bits: what differs by rounding may fall on another step
        ("dynamic", Int8DynamicActivationInt8WeightConfig(), 0.05),
    ):
        small = copy.deepcopy(model)
        quantize_(small, config)
        kinds = {type(m.weight) for m in small.modules() if isinstance(m, nn.Linear)}
        assert kinds.isdisjoint({Tensor, nn.Parameter}), kinds
        found.append(f"{name} {holds_to_plain(small, base, 1e-6, 0.2, off)}")
    return "; ".join(found)


@client
def accelerate(model: nn.Module) -> str:
    """Weights that are on a disk, or on a CPU, but for the time of a call."""
    from accelerate import cpu_offload, disk_offload, init_empty_weights
    from accelerate import load_checkpoint_and_dispatch as dispatch
    from safetensors.torch import save_model

    base, device = maps(model), torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        with init_empty_weights():
            empty = smallest(type(model)).eval()
        save_model(model, f"{folder}/model.safetensors")
        loaded = dispatch(empty, f"{folder}/model.safetensors", device_map={"": "cpu"})
        holds_to_plain(loaded, base, 0, SAME)
        on_disk = disk_offload(copy.deepcopy(model), f"{folder}/weights", device)
        holds_to_plain(on_disk, base, 0, SAME)
        elsewhere = cpu_offload(copy.deepcopy(model), device)
        assert any(p.is_meta for p in elsewhere.parameters())
        holds_to_plain(elsewhere, base, 0, SAME)
    return "loaded into an empty model, from a CPU and a disk: unchanged"


@client
def grad_cam(model: nn.Module) -> str:
    """What an image's class is seen by, on the last block's norm."""
    with stand_in_for_torchvision():
        from pytorch_grad_cam import EigenCAM, GradCAM, HiResCAM, LayerCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    classifier = nn.Sequential(model, LastMean()).eval()
    layer = blocks_of(model)[-1].norm1
    size = model(X)[-1].shape[-2:]

    def to_map(x: Tensor) -> Tensor:
        return x[:, -size.numel() :].mT.unflatten(2, size)  # a class token has no place

    for kind in (GradCAM, HiResCAM, LayerCAM, EigenCAM):
        cam = kind(classifier, [layer], to_map)
        found = cam(X.clone(), [ClassifierOutputTarget(3)])
        assert found.shape == (1, *X.shape[-2:]) and found.any(), kind.__name__
        cam.activations_and_grads.release()
        if kind is GradCAM:
            wanted = nn.functional.interpolate(
                by_hand(classifier, layer, to_map), X.shape[-2:], mode="bilinear"
            )
            both = torch.stack([torch.from_numpy(found).flatten(), wanted.flatten()])
            assert torch.corrcoef(both)[0, 1] > 0.99, "other than by hand"
    return "GradCAM as by hand, HiResCAM, LayerCAM, EigenCAM"


class LastMean(nn.Module):
    """The last map's mean over the image, as a class for each channel."""

    def forward(self, outs: tuple[Tensor, ...]) -> Tensor:
        return outs[-1].mean((2, 3))


def by_hand(model: nn.Module, layer: nn.Module, to_map: Callable[[Tensor], Tensor]) -> Tensor:
    """GradCAM's map (1, 1, H, W), of the equations of arXiv 1610.02391."""
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, args, out: seen.append(out))
    score = model(X)[0, 3]
    handle.remove()
    (slope,) = torch.autograd.grad(score, seen)
    values, slopes = to_map(seen[0]), to_map(slope)
    return (values * slopes.mean((2, 3), keepdim=True)).sum(1, keepdim=True).relu().detach()


@contextmanager
def stand_in_for_torchvision() -> Iterator[None]:
    """What grad-cam imports of it, which is for its examples and for SESS alone.

    A torchvision that was built for another torch cannot be imported.
    """
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    modules = {name: types.ModuleType(name) for name in names}
    for module in modules.values():
        vars(module).update(dict.fromkeys(("Compose", "Normalize", "ToTensor", "resize")))
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


@client
def safetensors(model: nn.Module) -> str:
    """Written, and read into another model in two ways."""
    from safetensors.torch import load_model, save_model

    base = maps(model)
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, path := f"{folder}/model.safetensors")
        for load in (load_model, load_backbone):
            other = smallest(type(model)).eval()
            load(other, path)
            assert difference(maps(other), base) == 0
    return "bit for bit, with load_model and load_backbone"


@client
def torch_flops(model: nn.Module) -> str:
    """torch's counter: as many on every device, with gradients and without, at two sizes."""
    from torch.utils.flop_counter import FlopCounterMode

    totals = []
    for size in ((224, 224), (256, 320)):
        counts = set()
        for device in ("cpu", "meta"):
            moved = copy.deepcopy(model).to(device)
            for mode in MODES:
                with mode(), FlopCounterMode(display=False) as counter:
                    moved(torch.zeros(1, 3, *size, device=device))
                counts.add(counter.get_total_flops())
        assert len(counts) == 1, counts
        totals.append(f"{counts.pop() / 2e9:.2f} G at {size[0]} x {size[1]}")
    return "; ".join(totals)


@client
def traced_flops(model: nn.Module) -> str:
    """A counter that traces the model, as fvcore and mmengine do; it knows no attention kernel."""
    from mmengine.analysis import FlopAnalyzer

    counter = FlopAnalyzer(model, X)
    counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    total = counter.total()
    assert total > 0
    return f"{total / 1e9:.2f} G at {X.shape[2]} x {X.shape[3]}, attention apart"


def smallest(kind: Any) -> nn.Module:
    """A backbone of a class, in its smallest architecture."""
    model: nn.Module = kind(next(iter(kind.ARCHS)))
    return model


def attempt(name: str, family: str) -> str:
    """What a client says, or the end of its traceback."""
    torch.manual_seed(0)
    model = seed_weights(smallest(BACKBONES[family])).eval()
    try:
        return CLIENTS[name](model)
    except Exception as error:
        traceback.print_exc()
        return f"FAILED: {type(error).__name__}: {str(error).splitlines()[:1]}"


def version_of(name: str) -> str:
    package = {"torch-flops": "torch", "traced-flops": "onedl-mmengine"}.get(name, name)
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("only", nargs="*", metavar="NAME", help=f"of {', '.join(CLIENTS)}")
    names = parser.parse_args().only or list(CLIENTS)
    if unknown := [name for name in names if name not in CLIENTS]:
        parser.error(f"there is no {unknown[0]!r}; there are {', '.join(CLIENTS)}")
    print(f"| client | {' | '.join(BACKBONES)} |\n|---|{'---|' * len(BACKBONES)}", flush=True)
    failed = False
    for name in names:
        found = [attempt(name, family) for family in BACKBONES]
        failed |= any(each.startswith("FAILED") for each in found)
        print(f"| {version_of(name)} | {' | '.join(found)} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
