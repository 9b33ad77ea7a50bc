"""From the flags of ``tools/predict.py`` to files: cuts images up, predicts in batches, writes."""

from argparse import Namespace
from collections.abc import Iterator
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmengine_agent.backbone_flags import BackboneFlags
from mmengine_agent.errors import UserError
from mmengine_agent.predict.classes import classes_of
from mmengine_agent.predict.inputs import Frame, find, read
from mmengine_agent.predict.model import Predictor, choose_device, load_model
from mmengine_agent.predict.output import write_listing, write_predictions
from mmengine_agent.predict.sliding_window import Tile, cover
from mmengine_agent.run.setup import read_config
from mmengine_agent.task import task_of


def predict(flags: Namespace) -> None:
    """Predict on files and write what is found.

    Raises:
        UserError: if flags make no sense, or some inputs cannot be read; the others are finished.
    """
    _require_sense(flags)
    cfg = read_config(flags.config, flags.cfg_options, BackboneFlags.of(flags))
    paths, faults = find(flags.inputs)
    if not paths:
        raise UserError("\n  ".join(["there is nothing to predict on:", *faults]))
    model, meta = load_model(cfg, flags.checkpoint, choose_device(flags.device))
    classes = classes_of(cfg, meta, flags.classes)
    writer = task_of(cfg).writer(classes, model, flags.score_thr)
    if flags.tile is not None and not writer.joins_tiles:
        raise UserError(f"--tile: tiles of a {type(model).__name__} are not joined; leave it out")
    predictor, out = Predictor(model, cfg), Path(flags.out)
    draw, save = not flags.no_draw, not flags.no_results
    with tqdm(paths, unit="file") as bar:
        tiles = _predict_tiles(bar, predictor, flags, faults)
        results = (
            (frame, writer.merge(frame.image.shape[:2], map(itemgetter(1, 2), some)))
            for frame, some in groupby(tiles, key=itemgetter(0))
        )
        try:
            images = write_predictions(results, out, writer, draw, save)
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            raise UserError(f"--out {out}: cannot write there: {error.strerror}") from error
    if images:
        info = {"config": flags.config, "checkpoint": flags.checkpoint}
        write_listing(out, images, writer, info, legend=draw)
        print(f"predicted on {len(images)} images or frames: {out}")
    if faults:
        raise UserError("\n  ".join([f"{len(faults)} inputs have a fault:", *faults]))


def _require_sense(flags: Namespace) -> None:
    """Raise UserError for flags that make no sense, before anything is loaded."""
    if flags.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, got {flags.batch_size}")
    if flags.tile is None and flags.overlap is not None:
        raise UserError("--overlap is of tiles: give --tile SIZE too")
    if flags.tile is not None and flags.tile < 32:
        raise UserError(f"--tile must be at least 32 pixels, got {flags.tile}")
    if flags.overlap is not None and not 0 <= flags.overlap < flags.tile:
        raise UserError(f"--overlap must be from 0 to less than --tile, got {flags.overlap}")
    if flags.no_draw and flags.no_results:
        raise UserError("--no-draw and --no-results together leave nothing to write")


def _predict_tiles(
    bar: tqdm, predictor: Predictor, flags: Namespace, faults: list[str]
) -> Iterator[tuple[Frame, Tile, Any]]:
    """Each tile of each frame of the files of a bar, with the model's data sample of it."""
    overlap = flags.overlap if flags.overlap is not None else (flags.tile or 0) // 8
    waiting = (
        (frame, tile)
        for frame in read(bar, predictor.load, faults)
        for tile in cover(frame.image.shape[0], frame.image.shape[1], flags.tile, overlap)
    )
    while batch := list(islice(waiting, flags.batch_size)):
        samples = predictor([frame.image[tile.area] for frame, tile in batch])
        while batch:  # dropped one by one, so that nothing is kept of what is done
            frame, tile = batch.pop(0)
            bar.set_postfix(frame=frame.number or 0, row=tile.rows.end)
            yield frame, tile, samples.pop(0)
