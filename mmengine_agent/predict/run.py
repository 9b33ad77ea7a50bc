"""From the flags of ``tools/predict.py`` to files: cuts images up, predicts in batches, writes."""

from argparse import Namespace
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmengine_agent.errors import UsageError, UserError
from mmengine_agent.predict.classes import classes_of
from mmengine_agent.predict.inputs import Frame, find, read
from mmengine_agent.predict.memory import LEAST_TILE, Limit, give_back
from mmengine_agent.predict.model import Predictor, choose_device, load_model
from mmengine_agent.predict.output import write_listing, write_predictions
from mmengine_agent.predict.sliding_window import Tile, cover
from mmengine_agent.run.setup import config_of
from mmengine_agent.task import task_of


def predict(flags: Namespace) -> None:
    """Predict on files and write what is found.

    Raises:
        UserError: if flags make no sense, or some inputs cannot be read; the others are finished.
    """
    _require_sense(flags)
    cfg = config_of(flags)
    paths, faults = find(flags.inputs)
    if not paths:
        raise UserError("\n  ".join(["there is nothing to predict on:", *faults]))
    device = choose_device(flags.device)
    model, meta = load_model(cfg, flags.checkpoint, device)
    classes = classes_of(cfg, meta, flags.classes)
    writer = task_of(cfg).writer(classes, model, flags.score_thr)
    if flags.tile is not None and not writer.joins_tiles:
        raise UserError(f"--tile: tiles of a {type(model).__name__} are not joined; leave it out")
    task_of(cfg).save_memory(model)
    predictor, out = Predictor(model, cfg, full_size=bool(flags.max_memory)), Path(flags.out)
    limit = None
    if flags.max_memory:
        limit = Limit.of(flags.max_memory, predictor, device, writer.joins_tiles)
    draw, save = not flags.no_draw, not flags.no_results
    with tqdm(paths, unit="file") as bar:
        waiting = _cut(bar, predictor, flags, faults, limit)
        tiles = _predict_tiles(
            bar, predictor, _batches(waiting, flags.batch_size, limit), bool(limit)
        )
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
    if flags.tile is not None and flags.max_memory is not None:
        raise UsageError("--tile and --max-memory both say how large tiles are: give one of them")
    if flags.tile is None and flags.max_memory is None and flags.overlap is not None:
        raise UserError("--overlap is of tiles: give --tile SIZE or --max-memory SIZE too")
    if flags.tile is not None and flags.tile < 32:
        raise UserError(f"--tile must be at least 32 pixels, got {flags.tile}")
    least = flags.tile or LEAST_TILE
    if flags.overlap is not None and not 0 <= flags.overlap < least:
        least = "--tile" if flags.tile else f"{least}, the least tile of --max-memory"
        raise UserError(f"--overlap must be from 0 to less than {least}, got {flags.overlap}")
    if flags.no_draw and flags.no_results:
        raise UserError("--no-draw and --no-results together leave nothing to write")


Part = tuple[Frame, Tile]


def _cut(
    bar: tqdm,
    predictor: Predictor,
    flags: Namespace,
    faults: list[str],
    limit: Limit | None,
) -> Iterator[Part]:
    """Each tile of each frame of the files of a bar; what does not fit is a fault."""
    said: set[str] = set()  # what is the same for many images is printed once
    for frame in read(bar, predictor.load, faults):
        height, width = frame.image.shape[:2]
        side = flags.tile
        if limit:
            try:
                side = limit.tile_side(height, width)
            except UserError as error:
                faults.append(f"{frame.path}: {error}")
                continue
            if (line := limit.describe(height, width, side)) not in said:
                bar.write(line)
            said.add(line)
        overlap = flags.overlap if flags.overlap is not None else (side or 0) // 8
        for tile in cover(height, width, side, overlap):
            yield frame, tile


def _batches(parts: Iterable[Part], most: int, limit: Limit | None) -> Iterator[list[Part]]:
    """Parts that go to the model together: ``most``, or as many as fit. Read when needed only."""
    batch: list[Part] = []
    for part in parts:
        if batch and limit and not limit.takes([(f.image, tile) for f, tile in [*batch, part]]):
            yield batch
            batch = []
        batch.append(part)
        if len(batch) == most:
            yield batch
            batch = []
    if batch:
        yield batch


def _predict_tiles(
    bar: tqdm, predictor: Predictor, batches: Iterable[list[Part]], limited: bool
) -> Iterator[tuple[Frame, Tile, Any]]:
    """Each tile of each frame, with the model's data sample of it."""
    for batch in batches:
        if limited:
            give_back()
        samples = predictor([frame.image[tile.area] for frame, tile in batch])
        while batch:  # dropped one by one, so that nothing is kept of what is done
            frame, tile = batch.pop(0)
            bar.set_postfix(frame=frame.number or 0, row=tile.rows.end)
            yield frame, tile, samples.pop(0)
