"""What is compared, and the steps it is compared on. Shared by ``backbones.py`` and ``growth.py``.

For each size of backbone: ours (with gradient checkpointing too), the published formulation with
the same weights, and mmdet's softmax backbone of the same widths, depths and heads. mmdet is
imported where it is asked for: the others need torch alone.
"""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from measure import allocated, peak_memory, saved_bytes
from published import Published
from torch import Tensor, nn

from agent_attention.backbones import BACKBONES, pvt, pyramid, swin
from mmengine_agent.errors import UserError

MODELS = {  # 'pvt-t' for tiny, 'flatten_pvt_v2-b0'
    f"{name}-{arch if arch[-1].isdigit() else arch[0]}": (name, arch)
    for name, family in BACKBONES.items()
    for arch in family.ARCHS
}
BASELINES = ("ours", "ours-cp", "published", "softmax", "resnet-50")
MODES = ("inference", "training")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SMALLEST = 32  # side of an image, in pixels


@dataclass(frozen=True)
class Setting:
    """Where and on which images a step runs; below float32 it runs under autocast."""

    device: torch.device
    dtype: torch.dtype
    batch: int
    size: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (self.batch, 3, *self.size)

    def described(self) -> dict[str, Any]:
        """For a JSON file."""
        dtype = str(self.dtype).removeprefix("torch.")
        where = {"device": str(self.device), "dtype": dtype}
        return {**where, "batch": self.batch, "size": list(self.size)}

    def images(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(self.shape, generator=generator).to(self.device)

    def autocast(self) -> torch.autocast:
        enabled = self.dtype != torch.float32
        return torch.autocast(self.device.type, self.dtype if enabled else None, enabled=enabled)


class Step:
    """One inference or training step of a backbone; drop path is 0, gradients are let go.

    The mode is set once and not in each step, since a change of mode may drop what a model keeps.
    """

    def __init__(self, model: nn.Module, setting: Setting, mode: str) -> None:
        self.model, self.setting, self.mode = model.to(setting.device), setting, mode
        self.model.train(mode == "training")
        self.images = setting.images()

    def __call__(self) -> None:
        training = self.mode == "training"
        with torch.set_grad_enabled(training):
            outs = self.forward()
        if training:
            total = torch.stack([out.float().mean() for out in outs]).sum()
            total.backward()
            self.model.zero_grad(set_to_none=True)

    def forward(self) -> Sequence[Tensor]:
        """The maps of the images."""
        with self.setting.autocast():
            return self.model(self.images)

    def first(self) -> int:
        """Do the first step; the bytes that the model keeps from it for later ones."""
        return allocated(self, self.setting.device).held

    def memory(self) -> dict[str, int | None]:
        """Bytes: at most during a step, and those that a forward keeps for backward."""
        device, training = self.setting.device, self.mode == "training"
        return {
            "peak_memory": peak_memory(self, device),
            "saved_bytes": saved_bytes(self.forward, device) if training else None,
        }


def build(name: str, baseline: str, **options: Any) -> nn.Module:
    """A model of ``MODELS`` in the form of a baseline, with seeded weights.

    Args:
        name: key of ``MODELS``; of no matter to ResNet-50.
        baseline: one of ``BASELINES``.
        options: arguments of our backbones, such as ``agent_shapes``.
    """
    torch.manual_seed(0)
    if baseline == "resnet-50":
        from mmdet.models.backbones import ResNet

        return ResNet(depth=50)
    family, arch = MODELS[name]
    if baseline == "softmax":
        return SOFTMAX[family](arch)
    kind: Any = BACKBONES[family]
    model = kind(arch=arch, with_cp=baseline == "ours-cp", **options)
    return Published(model) if baseline == "published" else model


def softmax_pvt(arch: str) -> nn.Module:
    from mmdet.models.backbones import PyramidVisionTransformer

    sizes = pvt.ARCHS[arch]
    return PyramidVisionTransformer(
        embed_dims=sizes["embed_dims"][0],  # times a stage's heads
        num_layers=sizes["depths"],
        num_heads=sizes["num_heads"],
        mlp_ratios=sizes["mlp_ratios"],
        sr_ratios=[stage.sr_ratio for stage in pyramid.STAGES],
        drop_path_rate=0.0,
    )


def softmax_swin(arch: str) -> nn.Module:
    from mmdet.models.backbones import SwinTransformer

    sizes = swin.ARCHS[arch]
    return SwinTransformer(
        embed_dims=sizes["embed_dim"],
        depths=sizes["depths"],
        num_heads=sizes["num_heads"],
        window_size=7,
        drop_path_rate=0.0,
    )


SOFTMAX = {"pvt": softmax_pvt, "swin": softmax_swin}  # mmdet's, by the name in BACKBONES


# --- flags


def add_flags(parser: ArgumentParser, models: Sequence[str]) -> None:
    """The flags that both benchmarks of backbones take."""
    parser.add_argument(
        "--models",
        type=one_of(MODELS),
        nargs="+",
        default=[list(models)],
        metavar="NAME",
        help=f"of {', '.join(MODELS)}; default: {' '.join(models)}",
    )
    parser.add_argument("--batch", type=at_least(1), default=1, help="images (%(default)s)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="%(choices)s")
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], help="default: cuda where there is one"
    )
    parser.add_argument("--threads", type=at_least(1), help="CPU threads of torch")
    parser.add_argument("--repeats", type=at_least(1), default=7, help="rounds (%(default)s)")
    parser.add_argument("--out", default="work_dirs/benchmarks", metavar="DIR", help="%(default)s")


def one_of(allowed: Iterable[str]) -> Callable[[str], list[str]]:
    """Type of a flag that takes names of ``allowed``, separated by commas."""

    def names(text: str) -> list[str]:
        found = [name for name in text.split(",") if name]
        for name in found:
            if name not in allowed:
                raise ArgumentTypeError(f"no {name!r}; there are {', '.join(allowed)}")
        return found

    return names


def flat(lists: list[list[str]]) -> list[str]:
    """What ``one_of`` gives for several arguments, in order and each once."""
    return list(dict.fromkeys(name for names in lists for name in names))


def at_least(least: int) -> Callable[[str], int]:
    """Type of a flag that takes a whole number from ``least``."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise ArgumentTypeError(f"{text!r} is no whole number from {least}")
        return int(text)

    return number


def setting(args: Namespace, size: Sequence[int]) -> Setting:
    """The setting that the flags describe; sets the number of threads.

    Raises:
        UserError: if there is no GPU but one is asked for, or the images are too small.
    """
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU; leave the flag out to use the CPU")
    if min(size) < SMALLEST:
        raise UserError(f"sides must be at least {SMALLEST} pixels, got {size[0]}x{size[1]}")
    if args.threads:
        torch.set_num_threads(args.threads)
    return Setting(torch.device(device), DTYPES[args.dtype], args.batch, (size[0], size[1]))
