"""Score over resolution and agents: train with some agents, test with others at other sizes.

    python benchmarks/resolution.py --out work_dirs/resolution --camvid DIR
    python benchmarks/resolution.py --out work_dirs/resolution --costs
    python benchmarks/resolution_page.py --study work_dirs/resolution      # tables and plots

A run is a data set, the agents that a segmentor (Semantic FPN, Agent-PVT-T, from scratch) is
trained with, and a seed. Each trained model is tested with all agents of ``SETTINGS``, at all
``PLACES``: the test pictures enlarged or made smaller, and several pictures in one, which is a
larger scene with objects of the same size. Each run leaves a JSON file; the same command leaves
out what is done and goes on with what was stopped. Started several times at once, the processes
share the runs. Costs are to be measured on an otherwise idle machine.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import reporting
import study
import torch
from candidates import at_least
from filelock import FileLock
from measure import peak_memory, times
from mmengine.config import Config
from resolution_agents import (
    PLACES,
    SETTINGS,
    TRAINED,
    Place,
    grids_at,
    names_by_grids,
    set_agents,
)
from resolution_test import test_everywhere
from study_config import AGENTS, Plan, Run, make_config

from agent_toolkit.commands.flops import build, count
from mmengine_agent.errors import UserError
from mmengine_agent.files import atomic_folder
from mmengine_agent.run.exit import run_tool

EXTENT, THINGS = (0.03, 0.12), 40  # shapes of 15 to 60 pixels in scenes of 512, at most 40
CAMVID_SIDE = 360  # shorter side of CamVid's pictures, in pixels


class Trial(NamedTuple):
    """What is trained on what."""

    data: str
    agents: str  # one of ``TRAINED``
    seed: int

    @property
    def name(self) -> str:
        return f"{self.data}-{self.agents}-seed{self.seed}"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="results and data are here")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="%(default)s")
    add("--budget", type=at_least(1), default=500, help="iterations of a run (%(default)s)")
    add("--batch", type=at_least(1), default=4, help="images of a batch (%(default)s)")
    add("--rate", type=float, default=1e-3, help="learning rate (%(default)s)")
    add("--bfloat16", action="store_true", help="train under autocast to bfloat16")
    add("--camvid", type=Path, metavar="DIR", help="CamVid: train, trainannot, val, valannot")
    add("--no-scenes", action="store_true", help="only CamVid")
    add("--only", nargs="+", metavar="NAME", help="these runs, such as scenes-base-seed0")
    add("--train-images", type=at_least(1), default=160, help="scenes (%(default)s)")
    text = "of each data set (%(default)s); from 9 on, all places have a picture"
    add("--test-images", type=at_least(1), default=18, help=text)
    add("--size", type=at_least(64), default=512, help="side of scenes in pixels (%(default)s)")
    text = "shapes' longest side as a part of the scene's (%(default)s)"
    add("--extent", type=float, nargs=2, default=EXTENT, metavar=("LOW", "HIGH"), help=text)
    add("--things", type=at_least(1), default=THINGS, help="shapes of a scene (%(default)s)")
    text = "side of CamVid's training crops (%(default)s)"
    add("--camvid-size", type=at_least(64), default=320, help=text)
    add("--threads", type=at_least(1), help="CPU threads of torch")
    add = parser.add_mutually_exclusive_group().add_argument
    add("--prepare", action="store_true", help="make the data, and stop")
    add("--list", action="store_true", help="print the names of the runs that are not done")
    add("--costs", action="store_true", help="measure time, memory and multiply-adds")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    wanted = [trial for trial in trials(args) if not result_path(args, trial).exists()]
    if args.costs:
        measure_costs(args)
    elif args.list:
        print("\n".join(trial.name for trial in wanted))
    else:
        args.out.mkdir(parents=True, exist_ok=True)
        with FileLock(args.out / "data.lock"):
            folders = prepare_data(args)
        for trial in [] if args.prepare else wanted:
            path = result_path(args, trial)
            if study.claim_run(path):
                reporting.say(f"{trial.name} ...")
                found = carry_out(trial, plan_of(args, trial), folders, path)
                reporting.write_json(path, found | {"extent": args.extent})


def trials(args: argparse.Namespace) -> list[Trial]:
    """All runs, the most telling first: one seed of all, then the next.

    Raises:
        UserError: if there is none, or ``--only`` names one that there is not.
    """
    sets = ["scenes"] * (not args.no_scenes) + ["camvid"] * bool(args.camvid)
    found = {
        trial.name: trial
        for seed in args.seeds
        for data in sets
        for trial in (Trial(data, agents, seed) for agents in TRAINED)
        if agents_differ(trial, side_of(args, data))
    }
    unknown = [name for name in args.only or found if name not in found]
    if unknown:
        raise UserError(f"--only: there is no run {unknown[0]}; there are {', '.join(found)}")
    if not found:
        raise UserError("--no-scenes leaves no data set; name --camvid DIR")
    return [found[name] for name in args.only or found]


def agents_differ(trial: Trial, side: int) -> bool:
    """Whether no name before it in ``TRAINED`` comes to the same grids, as the rule does."""
    before = TRAINED[: TRAINED.index(trial.agents)]
    own = grids_at(trial.agents, (side, side))
    return own not in [grids_at(name, (side, side)) for name in before]


def side_of(args: argparse.Namespace, data: str) -> int:
    """Side of training images in pixels."""
    return int(args.size if data == "scenes" else args.camvid_size)


def plan_of(args: argparse.Namespace, trial: Trial) -> Plan:
    return Plan(args.budget, args.batch, side_of(args, trial.data), args.rate, args.bfloat16, 100)


def result_path(args: argparse.Namespace, trial: Trial) -> Path:
    """The JSON file of a run."""
    plan = plan_of(args, trial)
    kind = f"{plan.budget}x{plan.batch}at{plan.size}" + "-bfloat16" * plan.bfloat16
    return Path(args.out, f"{trial.name}-{kind}.json")


def carry_out(trial: Trial, plan: Plan, folders: dict[str, Path], path: Path) -> dict[str, Any]:
    """Train and test, from the last checkpoint if there is one; what the JSON file has."""
    work_dir, data = path.with_suffix(""), folders[trial.data]
    cfg = config_of(trial, plan, data, work_dir)
    study.train(cfg)
    native = plan.size if trial.data == "scenes" else CAMVID_SIDE
    checkpoint = work_dir / f"iter_{plan.budget}.pth"
    tested = study.test_config(cfg, checkpoint, "test")
    scores = test_everywhere(tested, trial.data, data, plan.size / native)
    for each in work_dir.glob("*.pth"):
        each.unlink()
    return {
        **reporting.header(),
        **{**trial._asdict(), **plan._asdict()},
        **{"last_loss": statistics.mean(study.losses(work_dir)[-2:]), "scores": scores},
    }


def config_of(trial: Trial, plan: Plan, data: Path, work_dir: Path) -> Config:
    """The config of a run's training: that of the study of mixers, with these agents."""
    run = Run("segmentor", trial.data, "agent", trial.seed)
    cfg = make_config(run, plan, ("agent",) * len(AGENTS), data, work_dir)
    cfg.model.backbone.agent_shapes = SETTINGS[trial.agents]
    return cfg


# --- data


def prepare_data(args: argparse.Namespace) -> dict[str, Path]:
    """The folders of the data sets by name; makes those that are not there.

    Raises:
        UserError: if CamVid is asked for and is not there.
    """
    found: dict[str, Path] = {}
    if not args.no_scenes:
        name = f"scenes-{args.train_images}-{args.test_images}-{args.size}-{args.things}"
        found["scenes"] = args.out / "data" / name
        sizes = (args.train_images, args.test_images, args.size)
        layout = ("--extent", *args.extent, "--shorter", 1, 1, "--things", args.things)
        study.draw_scenes(found["scenes"], *sizes, *layout)
    if args.camvid:
        found["camvid"] = args.out / "data" / f"camvid-{args.test_images}"
        if not found["camvid"].is_dir():
            study.prepare_camvid(args.camvid, found["camvid"], args.test_images)
    for folder in found.values():
        for place in PLACES.values():
            join_pictures(folder / "ade", place)
    return found


def join_pictures(folder: Path, place: Place) -> None:
    """Write the test pictures and labels of a place, if they are not there."""
    for kind, suffix in (("images", "jpg"), ("annotations", "png")):
        out = folder / kind / place.split
        if out.is_dir():
            continue
        paths = sorted((folder / kind / "validation").glob(f"*.{suffix}"))
        each = place.rows * place.columns
        with atomic_folder(out) as new:
            for first in range(0, len(paths) - each + 1, each):
                pictures = [
                    np.asarray(cv2.imread(str(path), -1)) for path in paths[first : first + each]
                ]
                rows = [pictures[i : i + place.columns] for i in range(0, each, place.columns)]
                whole = np.concatenate([np.concatenate(row, axis=1) for row in rows])
                cv2.imwrite(str(new / f"{first:04}.{suffix}"), whole)


# --- costs


def measure_costs(args: argparse.Namespace) -> None:
    """Time, peak memory and multiply-adds of the segmentor at each size with each agents."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cfg = config_of(Trial("scenes", "published", 0), Plan(size=args.size), args.out, args.out)
    model = build(cfg, "cpu").to(device)
    records: list[dict[str, Any]] = []
    for place, size in sizes(args.size):
        reporting.say(f"{size[0]}x{size[1]} ...")
        image = torch.randn(1, 3, *size, device=device)
        steps = {names[0]: step(model, names[0], image) for names in names_by_grids(size).values()}
        every = times(steps, 5 if device.type == "cpu" else 30)
        for grids, names in names_by_grids(size).items():
            cfg.model.backbone.agent_shapes = SETTINGS[names[0]]
            records.append(
                {
                    **{"place": place, "size": size, "agents": names, "grids": grids},
                    **{"times": every[names[0]], "median": statistics.median(every[names[0]])},
                    "peak_memory": peak_memory(steps[names[0]], device),
                    "multiply_adds": count(cfg, size)["model"].multiply_adds,
                }
            )
        head = {**reporting.header(), "device": str(device), "dtype": "float32"}
        reporting.write_json(args.out / "costs.json", {**head, "records": records})
    print(f"written: {args.out / 'costs.json'}")


def step(model: torch.nn.Module, agents: str, image: torch.Tensor) -> Callable[[], Any]:
    """A forward with these agents."""

    @torch.no_grad()
    def forward() -> Any:
        set_agents(model, agents)
        return model(image, mode="tensor")

    return forward


def sizes(side: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Each size that scenes have in a place, once, with its name: (H, W) in pixels."""
    found: dict[tuple[int, int], str] = {}
    for name, place in PLACES.items():
        factor = place.factor * side
        found.setdefault((round(factor * place.rows), round(factor * place.columns)), name)
    yield from ((name, size) for size, name in found.items())


if __name__ == "__main__":
    run_tool(main)
