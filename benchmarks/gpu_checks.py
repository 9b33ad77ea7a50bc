"""Whether a device gives the numbers of the definition: what ``gpu_day.py`` checks.

Each backbone and mixer is computed on the device in the way that it chooses there, and on the CPU
in float32 by the plain definition. Differences are relative: the norm of the difference over that
of what is wanted, all maps or all gradients together.
"""

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from candidates import build
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from agent_attention.backbones import BACKBONES
from agent_attention.compute.guard import using
from agent_attention.mixers import MIXERS, build_mixer
from agent_attention.mixers.base import Mixer

Pair = tuple[int, int]
HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
# largest relative differences; those of gradients are of all parameters together
VALUES, GRADIENTS = 1e-4, 1e-3
HALF = {"bfloat16": (3e-2, 1e-1), "float16": (5e-3, 3e-2)}  # of maps, of gradients
LARGEST = {"float32": 1e18, "bfloat16": 1e18, "float16": 6e4}  # of docs/mixers.md, on a GPU
POWERS = (4, 12, 17, 18, 19, 20, 30)  # of ten, tried as queries, keys and values


CHECKED = [f"{name}-{'b0' if 'v2' in name else 't'}" for name in BACKBONES]


class Check(NamedTuple):
    """A figure and what it may be; a figure that is not finite passes no limit."""

    what: str
    where: str
    figure: float
    limit: float
    at_least: bool = False  # the limit is the smallest figure that passes, not the largest

    @property
    def passed(self) -> bool:
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit


def check_backbone(name: str, size: Pair, device: torch.device) -> Iterator[Check]:
    """Maps and gradients of one of ``candidates.MODELS`` in all types and memory orders."""
    model, images = build(name, "ours").eval(), random((1, 3, *size), 0)
    with using(way="plain"):
        wanted = results(model, images)
    model, images = model.to(device), images.to(device)
    yield from compare("float32", name, results(model, images), wanted, (VALUES, GRADIENTS))
    exact = results(model, images)
    for half, dtype in HALVES.items():
        with torch.autocast(device.type, dtype):
            found = results(model, images)
        yield from compare(f"autocast to {half}", name, found, exact, HALF[half])
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = images.to(memory_format=torch.channels_last)
    found = results(model, images)
    yield from compare("channels last", name, found, exact, (VALUES, GRADIENTS))


def check_mixer(name: str, size: Pair, device: torch.device) -> Iterator[Check]:
    """Result and gradients of one of ``MIXERS`` in float32."""
    torch.manual_seed(0)
    mixer = build_mixer(name, 64, 2, table_shape=(14, 14)).eval()
    for parameter in mixer.parameters():
        nn.init.normal_(parameter, 0, 0.2)
    tokens = random((2, size[0] * size[1], 64), 0).requires_grad_()
    found = []
    for place in ("cpu", device):
        mixer, x = mixer.to(place), tokens.detach().to(place).requires_grad_()
        with using(way="plain" if place == "cpu" else None):
            out = mixer(x, size)
        weighted = (out * random(tuple(out.shape), 1).to(place)).sum()
        found.append(([out], [*torch.autograd.grad(weighted, [x, *mixer.parameters()])]))
    yield from compare("float32, of mixers", name, found[1], found[0], (VALUES, GRADIENTS))


def check_compiled(name: str, size: Pair, device: torch.device, backend: str) -> Iterator[Check]:
    """A compiled backbone gives the maps and gradients of the one it was made of."""
    model, images = build(name, "ours").eval().to(device), random((1, 3, *size), 0).to(device)
    exact = results(model, images)
    compiled: Any = torch.compile(copy.deepcopy(model), backend=backend)
    found = results(compiled, images)
    limits = (VALUES, GRADIENTS)
    yield from compare(f"torch.compile, {backend}", name, found, exact, limits)


def check_kernels(name: str, size: Pair, device: torch.device) -> Iterator[Check]:
    """Attention of a backbone without masks takes torch's fused kernels, and no others.

    The figure is 0, or 1 where torch finds that no such kernel can compute it.
    """
    model, images = build(name, "ours").to(device), random((2, 3, *size), 0).to(device)
    kernels = {"flash": SDPBackend.FLASH_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION}
    for kind, dtype in (("flash", torch.bfloat16), ("flash", torch.float16), ("efficient", None)):
        refused = 0.0
        with sdpa_kernel(kernels[kind]), torch.autocast("cuda", dtype, enabled=dtype is not None):
            try:
                results(model, images)
            except RuntimeError:  # "No available kernel"
                refused = 1.0
        label = str(dtype or torch.float32).removeprefix("torch.")
        yield Check(f"the {kind} kernel alone, {label}", name, refused, 0.0)


@torch.no_grad()
def check_range(name: str, size: Pair, device: torch.device) -> Iterator[Check]:
    """How large queries, keys and values of a mixer of ``MIXERS`` may be for finite results."""
    for label, largest in LARGEST.items():
        dtype = getattr(torch, label)
        tokens = random((2, size[0] * size[1], 64), 0).to(device, dtype)
        mixer = scalable(name, tokens, size)
        if label == "float16":
            found = largest if is_finite(mixer, tokens, size, largest) else 0.0
        else:
            held = [is_finite(mixer, tokens, size, 10.0**power) for power in POWERS]
            good = held.index(False) if False in held else len(held)
            found = 10.0 ** POWERS[good - 1] if good else 0.0
        yield Check(f"finite up to, {label}", name, found, largest, at_least=True)


def scalable(name: str, tokens: Tensor, size: Pair) -> Mixer:
    """A mixer whose projections of these tokens are numbers from -1 to 1.

    What stands behind the mixing, projection and convolution, gets small weights: it may leave a
    type's range by itself.
    """
    torch.manual_seed(0)
    mixer = build_mixer(name, 64, 2, table_shape=(14, 14)).eval().to(tokens)
    for module in mixer.modules():
        if isinstance(module, nn.Conv2d) or module is mixer.proj:
            module.weight.mul_(0.01)
    for linear in mixer.projections():
        linear.register_forward_hook(scale_to_one)
    mixer(tokens, size)
    for linear in mixer.projections():
        linear._forward_hooks.clear()
    return mixer


def scale_to_one(linear: nn.Linear, _: Any, out: Tensor) -> Tensor:
    """A hook that divides a layer's weights by its largest result."""
    most = out.abs().amax()
    linear.weight.div_(most)
    if linear.bias is not None:
        linear.bias.div_(most)
    return out / most


def is_finite(mixer: Mixer, tokens: Tensor, size: Pair, scale: float) -> bool:
    """Whether a mixer's result is finite for queries, keys and values from -scale to scale."""
    mixer = copy.deepcopy(mixer)
    for linear in mixer.projections():
        for parameter in linear.parameters():
            parameter.mul_(scale)
    return bool(mixer(tokens, size).isfinite().all())


# --- comparing


def check_all(
    models: list[str], compiled: list[str], size: Pair, device: torch.device, backend: str
) -> Iterator[Check]:
    """All checks, one after the other; of what a machine cannot do, an error is raised."""
    for name in models:
        yield from check_backbone(name, size, device)
    for name in models if device.type == "cuda" else []:
        if name.startswith("pvt"):
            yield from check_kernels(name, size, device)
    for name in MIXERS:
        yield from check_mixer(name, (9, 13), device)
        yield from check_range(name, (8, 12), device)
    for name in compiled:
        yield from check_compiled(name, size, device, backend)


def results(model: nn.Module, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The maps, and the gradients of all parameters that have one, of a weighted sum of maps."""
    model.zero_grad(set_to_none=True)
    outs = list(model(images))
    losses = [
        (out.float() * random(tuple(out.shape), 1 + i).to(out.device)).sum() / out.numel() ** 0.5
        for i, out in enumerate(outs)
    ]
    torch.stack(losses).sum().backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return [out.detach() for out in outs], gradients


Results = tuple[list[Tensor], list[Tensor]]


def compare(
    what: str, where: str, found: Results, wanted: Results, limits: tuple[float, float]
) -> Iterator[Check]:
    """A check of the maps and one of the gradients."""
    for kind, one, other, limit in zip(("maps", "gradients"), found, wanted, limits, strict=True):
        yield Check(f"{kind}, {what}", where, difference(one, other), limit)


def difference(found: list[Tensor], wanted: list[Tensor]) -> float:
    """‖found - wanted‖ / ‖wanted‖ of lists of tensors, in float64 on the CPU."""
    one, other = (
        torch.cat([x.detach().cpu().double().flatten() for x in each]) for each in (found, wanted)
    )
    return float((one - other).norm() / other.norm())


def random(shape: tuple[int, ...], seed: int) -> Tensor:
    """Standard normal numbers, the same on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
