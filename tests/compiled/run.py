"""Every backbone under ``torch.compile``, in full size: a table.

    make compiled                                             # all, about an hour on two cores
    PYTHONPATH=.:tests .venv/bin/python tests/compiled/run.py swin --shapes open --modes train
    PYTHONPATH=.:tests .venv/bin/python tests/compiled/run.py --narrow --backend aot_eager

*Open* shapes are ``dynamic=True``, one graph for three sizes of images; *fixed* ones
``dynamic=False`` and one size. Training has gradients of all parameters. Seconds are those of the
first call, by the clock and of all cores; differences are relative, of maps to the largest number,
of each parameter's gradient to its largest or to a thousandth of the largest of all.
Exit code 1 if a model takes another graph than its first, differs by more than 1e-4 or takes more
than three minutes.
"""

import argparse
import resource
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from helpers import normal, seed_weights, small_backbone, weighted
from torch import Tensor, nn
from torch._dynamo.eval_frame import _debug_get_cache_entry_list
from torch._inductor.utils import fresh_cache

from agent_attention.backbones import BACKBONES, Backbone

SHAPES = {"open": True, "fixed": False}
MODES = ("eval", "train")
# none square, which would be a graph for squares; sides that no stride divides; small and large
IMAGES = [(2, 3, 224, 320), (2, 3, 161, 97), (3, 3, 256, 449)]
SAME = 1e-4
MOST_SECONDS = 180
HEAD = "backbone          shapes  mode   seconds  of cores  graphs  maps     gradients"


class Found(NamedTuple):
    """What one model has given."""

    seconds: float  # of the first call
    cpu_seconds: float
    graphs: int
    maps: float
    gradients: float | None

    def is_right(self, backend: str) -> bool:
        """Whether all is as it should be."""
        same = max(self.maps, self.gradients or 0) <= SAME
        return same and self.graphs == 1 and (self.seconds < MOST_SECONDS or backend != "inductor")


def run_once(
    model: Callable[[Tensor], Any], x: Tensor, parameters: list[nn.Parameter]
) -> tuple[list[Tensor], list[Tensor]]:
    """Maps, and gradients of the parameters where they are wanted."""
    outs = model(x)
    if not torch.is_grad_enabled():
        return list(outs), []
    grads = torch.autograd.grad(weighted(outs), parameters, materialize_grads=True)
    return [out.detach() for out in outs], list(grads)


def difference(found: list[Tensor], wanted: list[Tensor], least: float = 0.0) -> float:
    """The largest difference, relative to the largest number of a tensor, or to ``least``."""
    each = zip(found, wanted, strict=True)
    return max(((a - b).abs().max() / b.abs().max().clamp(min=least)).item() for a, b in each)


def try_model(model: nn.Module, dynamic: bool, mode: str, backend: str) -> Found:
    """Compile a model and compare it with itself."""
    torch.compiler.reset()
    model.train(mode == "train")
    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic, backend=backend)
    parameters, seconds = list(model.parameters()), []
    maps, gradients = 0.0, 0.0
    with torch.set_grad_enabled(mode == "train"), fresh_cache():
        for shape in IMAGES if dynamic else IMAGES[:1]:
            x = normal(1, shape)
            begin, cpu_begin = time.perf_counter(), cpu_seconds()
            found = run_once(compiled, x, parameters)
            seconds += [(time.perf_counter() - begin, cpu_seconds() - cpu_begin)]
            wanted = run_once(model, x, parameters)
            maps = max(maps, difference(found[0], wanted[0]))
            if mode == "train":
                least = 1e-3 * max(grad.abs().max().item() for grad in wanted[1])
                gradients = max(gradients, difference(found[1], wanted[1], least))
    graphs = len(_debug_get_cache_entry_list(Backbone.forward.__code__))
    return Found(*seconds[0], graphs, maps, gradients if mode == "train" else None)


def cpu_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="BACKBONE", help=f"of {', '.join(BACKBONES)}")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--backend", default="inductor")
    parser.add_argument("--narrow", action="store_true", help="the small models of the tests")
    args = parser.parse_args()
    if unknown := set(args.names) - set(BACKBONES):
        parser.error(f"no backbone {', '.join(sorted(unknown))}; there are {', '.join(BACKBONES)}")
    print(HEAD, flush=True)
    failed = 0
    for name in args.names or BACKBONES:
        model = small_backbone(name) if args.narrow else seed_weights(BACKBONES[name]())
        for shapes in args.shapes:
            for mode in args.modes:
                row = f"{name:17} {shapes:7} {mode:5}"
                try:
                    found = try_model(model, SHAPES[shapes], mode, args.backend)
                except Exception as error:  # the next one may be right
                    traceback.print_exc(limit=-3)
                    print(f"{row} failed: {type(error).__name__}", flush=True)
                    failed += 1
                    continue
                right = found.is_right(args.backend)
                failed += not right
                grads = "-" if found.gradients is None else f"{found.gradients:.1e}"
                print(
                    f"{row} {found.seconds:8.0f} {found.cpu_seconds:9.0f} {found.graphs:7}  "
                    f"{found.maps:.1e}  {grads}{'' if right else '  WRONG'}",
                    flush=True,
                )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
