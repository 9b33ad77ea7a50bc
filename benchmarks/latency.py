"""Latency and score of one model in torch, compiled, and exported to ONNX Runtime and OpenVINO.

    python benchmarks/latency.py CONFIG CHECKPOINT --data-root DIR --calibration DIR

All get images of the test set in memory and give boxes, masks or labels at the images' own size:
resizing, and what comes after the network, is part of the time. Candidates take turns, image by
image. The score is that of the whole test set. What is not installed is left out, and so is int8
without --calibration, a folder of images like those to come (not the tested ones).

Writes DIR/latency.json with every single time, and the exported files.
"""

import io
import logging
import shutil
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import reporting
import torch
from candidates import at_least
from measure import seconds
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from study_page import write_page

from agent_attention.runtime import Model, Result
from mmengine_agent.data.user_data import DataFlags, point_at, require_data
from mmengine_agent.errors import UserError
from mmengine_agent.export.precision import calibration_images, change_precision
from mmengine_agent.export.scores import add_prediction
from mmengine_agent.predict.model import Predictor, load_model
from mmengine_agent.run.exit import run_tool
from mmengine_agent.run.setup import KeyValues, make_parser, read_config
from mmengine_agent.task import task_of

EXPORT = Path(__file__).parents[1] / "tools/export.py"
EAGER = "eager"
ENGINES = {"ONNX Runtime": "onnxruntime", "OpenVINO": "openvino"}
TITLES = ["", "precision", "first call, s", "median, ms", "/ eager", "score", "difference"]

Record = dict[str, Any]
Predict = Callable[[np.ndarray], Any]  # image (H, W, 3) uint8 BGR to a data sample or a Result


class Candidate(NamedTuple):
    """A way to run the model."""

    name: str
    precision: str
    load: Callable[[], Predict]


def parse_args() -> Namespace:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("config", help="best the one that a training left")
    add("checkpoint")
    add("--data-root", metavar="DIR", help="of the test set; default: the config's own")
    add("--calibration", type=Path, metavar="DIR", help="images for int8")
    add("--calibration-images", type=at_least(1), default=100, metavar="N", help="%(default)s")
    text = "of the test set that are timed, of the size that most have (%(default)s)"
    add("--images", type=at_least(1), default=4, metavar="N", help=text)
    add("--rounds", type=at_least(1), default=20, help="turns of each candidate (%(default)s)")
    add("--threads", type=at_least(1), help="of all candidates; default: torch's choice")
    add("--no-compile", action="store_true", help="leave torch.compile out, which needs a compiler")
    add("--cfg-options", nargs="+", action=KeyValues, metavar="KEY=VALUE")
    add("--out", type=Path, default=Path("work_dirs/latency"), metavar="DIR", help="%(default)s")
    text = "put the table into a page, between its marks, such as docs/deployment.md"
    add("--page", type=Path, metavar="FILE", help=text)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    logging.disable(logging.WARNING)  # mmengine's tables of each evaluation
    if args.threads:
        torch.set_num_threads(args.threads)
    cfg = read_config(args.config, args.cfg_options)
    task_of(cfg)  # registers what configs name
    init_default_scope(cfg.get("default_scope") or "mmdet")
    if args.data_root:
        point_at(cfg, DataFlags(root=args.data_root))
    require_data(cfg, "test")
    args.out.mkdir(parents=True, exist_ok=True)
    images, shape = timed_images(cfg, args.images)
    files = exported_files(cfg, args, shape)
    records = measure(candidates(cfg, args, files), cfg, images, args.rounds)
    size = list(images[0].shape[:2])
    report = {**reporting.header(), "size": size, "rounds": args.rounds, "records": records}
    reporting.write_json(args.out / "latency.json", report)
    rows = [row(record, records[0]) for record in records]
    print(reporting.table(TITLES, rows, labels=2))
    print(f"written: {args.out}/latency.json")
    if args.page:
        write_page(args.page, {"latency": page_text(report, rows)})


# ---- what is compared


def timed_images(cfg: Config, count: int) -> tuple[list[np.ndarray], tuple[int, int]]:
    """The first images (H, W, 3) uint8 BGR of the test set, of the size that most have.

    And (H, W) of what the network gets of them, for agents that follow the size.
    """
    loader = test_images(cfg)
    paths = [loader.dataset.get_data_info(number)["img_path"] for number in range(len(loader))]
    model: Any = torch.nn.Identity()
    predictor = Predictor(model, cfg)
    images = [predictor.load(Path(path)) for path in paths[:200]]
    ((size, _),) = Counter(image.shape for image in images).most_common(1)
    alike = [image for image in images if image.shape == size][:count]
    height, width = predictor.prepare({"img": alike[0], "img_id": 0})["inputs"].shape[1:]
    return alike, (height, width)


def test_images(cfg: Config) -> Any:
    """A config's test data, read by this process."""
    here = {"num_workers": 0, "persistent_workers": False}
    return Runner.build_dataloader({**cfg.test_dataloader, **here})


def exported_files(cfg: Config, args: Namespace, shape: tuple[int, int]) -> dict[str, Path]:
    """ONNX files by precision; that of int8 is the first one, written anew."""
    calibration_images(args)  # says what is wrong with them before minutes are spent
    files = {"fp32": args.out / "fp32.onnx"}
    command = [sys.executable, str(EXPORT), args.config, args.checkpoint]
    command += ["--out", str(files["fp32"]), "--shape", *map(str, shape)]
    if args.cfg_options:
        command += ["--cfg-options", *(f"{k}={v}" for k, v in args.cfg_options.items())]
    if subprocess.run(command).returncode:
        raise UserError("tools/export.py cannot export this model, see above")
    if args.calibration is not None:
        files["int8"] = Path(shutil.copy(files["fp32"], args.out / "int8.onnx"))
        # scores come later, with those of the others
        flags = {**vars(args), "precision": "int8", "data_root": None}
        change_precision(files["int8"], cfg, Namespace(**flags))
    return files


def candidates(cfg: Config, args: Namespace, files: dict[str, Path]) -> list[Candidate]:
    """Those that can run here, eager first."""
    found = [Candidate(EAGER, "fp32", partial(load_torch, cfg, args.checkpoint, False))]
    if not args.no_compile:
        load = partial(load_torch, cfg, args.checkpoint, True)
        found.append(Candidate("backbone compiled", "fp32", load))
    for title, engine in ENGINES.items():
        if find_spec(engine) is None:
            reporting.say(f"{title} is left out: pip install {engine}")
            continue
        for precision, path in files.items():
            load = partial(load_exported, path, engine, torch.get_num_threads())
            found.append(Candidate(title, precision, load))
    return found


def load_torch(cfg: Config, checkpoint: str, compiled: bool) -> Predict:
    """The model as mmdet or mmseg runs it."""
    model, _ = load_model(cfg, checkpoint, torch.device("cpu"))
    if compiled:
        model.backbone.compile()
    predictor = Predictor(model, cfg)
    return lambda image: predictor([image])[0]


def load_exported(path: Path, engine: str, threads: int) -> Predict:
    """An exported file in an engine."""
    model = Model(path, engine, threads)
    return lambda image: model(image[..., ::-1], 0.0)


# ---- what is measured


def measure(
    ways: list[Candidate], cfg: Config, images: list[np.ndarray], rounds: int
) -> list[Record]:
    """A record of each candidate, all timed in turns."""
    records: list[Record] = []
    ready: list[Predict] = []
    for way in ways:
        reporting.say(f"{way.name}, {way.precision}: first call and score ...")
        started = time.perf_counter()
        predict = way.load()
        predict(images[0])
        first = time.perf_counter() - started
        score = score_of(predict, cfg)
        records.append({"name": way.name, "precision": way.precision, "first": first})
        records[-1] |= {"score": score, "times": []}
        ready.append(predict)
    for turn in range(-len(images), rounds):  # the first go over all images is not counted
        for record, predict in zip(records, ready, strict=True):
            took = seconds(partial(predict, images[turn % len(images)]))
            record["times"] += [took] if turn >= 0 else []
    for record in records:
        record["median"] = statistics.median(record["times"])
    return records


def score_of(predict: Predict, cfg: Config) -> float:
    """The main score on the test set, in points."""
    main = task_of(cfg).main_score(cfg)
    loader = test_images(cfg)
    evaluator = Evaluator(cfg.test_evaluator)
    evaluator.dataset_meta = loader.dataset.metainfo
    model: Any = torch.nn.Identity()
    read = Predictor(model, cfg).load
    with redirect_stdout(io.StringIO()):  # pycocotools prints how far it is
        for data in loader:
            for sample in data["data_samples"]:
                add(sample, predict(read(Path(sample.img_path))))
            evaluator.process(data_samples=data["data_samples"], data_batch=data)
        metrics = evaluator.evaluate(len(loader.dataset))
    return 100 * float(metrics[main.key]) / main.perfect


def add(sample: Any, found: Any) -> None:
    """Put a prediction into a data sample of the test set."""
    if isinstance(found, Result):
        add_prediction(sample, found)
        return
    for name in ("pred_instances", "pred_sem_seg"):
        if name in found:
            setattr(sample, name, getattr(found, name))


# ---- what is shown


def row(record: Record, eager: Record) -> list[str]:
    """A line of the table."""
    return [
        *(record["name"], record["precision"], f"{record['first']:.1f}"),
        reporting.milliseconds(record["median"]),
        reporting.decimals(record["median"] / eager["median"]),
        reporting.decimals(record["score"], 1),
        f"{round(record['score'] - eager['score'], 1) + 0.0:+.1f}",  # no -0.0
    ]


def page_text(report: Record, rows: list[list[str]]) -> str:
    """The table with its machine and command."""
    height, width = report["size"]
    where = f"{report['cpu']}, {report['threads']} threads, torch {report['torch']}"
    return (
        f"*Measured here* on images of {width} x {height} pixels, medians of {report['rounds']} "
        f"turns ({where}, {report['date'][:10]}; `{report['command']}`):\n\n"
        f"{reporting.markdown(TITLES, rows)}"
    )


if __name__ == "__main__":
    run_tool(main)
