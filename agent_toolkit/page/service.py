"""What the page does for its users: no Gradio, and nothing of one user that another one sees."""

import logging
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from agent_toolkit.page import markup
from agent_toolkit.page.agents import Agents, draw_panels, record_agents, view_pixel
from agent_toolkit.page.models import WAYS, PageModel
from agent_toolkit.page.pictures import Gallery, read_picture
from agent_toolkit.page.results import Saved, draw_result, keep, save_picture, save_result
from mmengine_agent.errors import UserError

_NOTHING = "Drop a picture on the left, and what the model sees in it is shown here."
_FAULT = "Something went wrong on the server. Its log says what; another picture may work."
Report = Callable[[float, str], None]  # share of the work that is done, and a word on it


class Found(NamedTuple):
    """What a model found in an image."""

    result: Any  # of ``Writer.merge``
    note: str


class Work:
    """An image, and all that was computed of it."""

    def __init__(self, image: np.ndarray) -> None:
        self.image = image  # (H, W, 3) uint8 BGR
        self.found: list[Found] = []  # of each model
        self.agents: dict[int, Agents] = {}  # by model, when a pixel is clicked


class Session:
    """What is kept for one user; no dataclass, whose contents Gradio would copy."""

    def __init__(self) -> None:
        self.work: Work | None = None
        self.look = (0, 0.5, 0.5)  # the model and the pixel that were clicked
        self.stop = False  # asked for


class Choice(NamedTuple):
    """What is chosen of some, and how many there are."""

    chosen: int
    among: Sequence[int]


class Looked(NamedTuple):
    """The panels of a pixel, and what there is to choose."""

    html: str
    stage: Choice
    block: Choice
    head: Choice  # -1 is the mean of all


class Service:
    """All that the page's buttons do.

    Args:
        models: one or two, which see the same images.
        gallery: of images to pick.
        most: bytes of a file that may be uploaded.
    """

    def __init__(self, models: Sequence[PageModel], gallery: Gallery, most: int) -> None:
        self.models, self.gallery, self.most = models, gallery, most
        self.has_objects = any(model.has_objects for model in models)
        self.has_labels = not all(model.has_objects for model in models)

    def open(self, session: Session, data: bytes, way: str, report: Report) -> None:
        """Read a picture, and predict on it with every model.

        Raises:
            UserError: if it cannot be read, or memory runs out; the session stays as it was.
        """
        report(0, "reading the picture")
        self.predict(session, Work(read_picture(data, self.most)), way, report)

    def predict(self, session: Session, work: Work, way: str, report: Report) -> None:
        """Predict on an image with every model, and have the session show it.

        Raises:
            UserError: if memory runs out, or the user has stopped it; the session stays as it was.
        """
        way = way if way in WAYS else WAYS[0]
        found = []
        for number, model in enumerate(self.models):

            def count(done: int, of: int, number: int = number) -> None:
                if session.stop:
                    raise UserError("Stopped. What was shown before is shown again.")
                name = f"model {number + 1}, " if len(self.models) > 1 else ""
                text = f"{name}tile {done + 1} of {of}" if of > 1 else f"{name}predicting"
                report((number + done / of) / len(self.models), text)

            started = time.perf_counter()
            result, tiles = model.predict(work.image, way, count)
            cut = f"{tiles} tiles · " if tiles > 1 else ""
            found.append(Found(result, f"{cut}{time.perf_counter() - started:.1f} s"))
        work.found = found
        session.work, session.look = work, (session.look[0], 0.5, 0.5)

    def show(self, session: Session, threshold: float, layers: Collection[str]) -> str:
        """The models' pictures side by side, as HTML."""
        work = session.work
        if work is None:
            return markup.hint(_NOTHING)
        height, width = work.image.shape[:2]
        parts = []
        for number, (model, found) in enumerate(zip(self.models, work.found, strict=True)):
            drawn = draw_result(model, work.image, found.result, threshold, layers)
            count = len(keep(found.result, threshold)) if model.has_objects else 0
            objects = f"{count} object{'s' * (count != 1)} · " if model.has_objects else ""
            note = f"{width} x {height} pixels · {objects}{found.note}"
            cross = session.look[1:] if work.agents else None
            parts.append(markup.shown(number, model.title, note, drawn, cross))
        return f'<div class="side-by-side n{len(parts)}">{"".join(parts)}</div>'

    def click(self, session: Session, model: int, x: float, y: float) -> None:
        """Look at a pixel of a model's picture; x and y are shares of width and height."""
        inside = model in range(len(self.models)) and 0 <= x <= 1 and 0 <= y <= 1
        if not inside:
            raise UserError("Click into a picture.")
        session.look = (model, min(x, 0.999999), min(y, 0.999999))

    def look(self, session: Session, stage: int, block: int, head: int) -> Looked:
        """What agents do for the session's pixel; what a model does not have is the nearest there.

        Args:
            session: whose pixel and model.
            stage: from 1.
            block: of the stage, from 0.
            head: from 0; -1 for the mean of all.

        Raises:
            UserError: if there is no picture yet, or the model has no agents.
        """
        work = session.work
        if work is None:
            raise UserError(_NOTHING)
        number, x, y = session.look
        if number not in work.agents:
            work.agents[number] = record_agents(self.models[number], work.image)
        agents = work.agents[number]
        stages = list(agents.maps)
        stage = min(stages, key=lambda each: abs(each - stage))
        blocks = range(len(agents.maps[stage]))
        block = min(max(block, 0), blocks[-1])
        heads = range(-1, agents.heads(stage, block))
        head = head if head in heads else -1
        view = view_pixel(agents, stage, block, None if head < 0 else head, x, y)
        height, width = work.image.shape[:2]
        heading = f"Agents of {self.models[number].title}"
        note = (
            f"pixel ({int(x * width)}, {int(y * height)}) · {view.serve.size} agents over "
            f"{view.reach.shape[0]} x {view.reach.shape[1]} tokens · brightest is the largest "
            "weight of a panel"
        )
        html = markup.panels(heading, note, draw_panels(view))
        return Looked(html, Choice(stage, stages), Choice(block, blocks), Choice(head, heads))

    def save(self, session: Session, number: int, threshold: float) -> Saved:
        """The results of a model, as files."""
        work = self._work(session, number)
        return save_result(self.models[number], work.image, work.found[number].result, threshold)

    def save_picture(
        self, session: Session, number: int, threshold: float, layers: Collection[str]
    ) -> bytes:
        """The picture of a model, as a PNG."""
        work = self._work(session, number)
        result = work.found[number].result
        return save_picture(self.models[number], work.image, result, threshold, layers)

    def _work(self, session: Session, number: int) -> Work:
        if session.work is None or number not in range(len(self.models)):
            raise UserError("There is nothing to save yet: choose a picture first.")
        return session.work


def describe(error: Exception) -> str:
    """What the page says of an error; what only the server should know goes to its log."""
    if isinstance(error, UserError):
        return str(error)
    logging.getLogger(__name__).error("".join(traceback.format_exception(error)))
    return _FAULT
