"""How the page is laid out, in Gradio: the only module that imports it."""

import base64
import binascii
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from agent_toolkit.page import markup
from agent_toolkit.page.models import WAYS
from agent_toolkit.page.pictures import too_large
from agent_toolkit.page.results import LAYERS
from agent_toolkit.page.service import Choice, Service, Session, describe
from mmengine_agent.errors import UserError

_HERE = Path(__file__).parent
_SCRIPT = (_HERE / "page.js").read_text()
_SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_MONO = ("ui-monospace", "Consolas", "monospace")
_MODEL = {"concurrency_limit": 1, "concurrency_id": "model"}  # one user at a time; others queue
STYLE = (_HERE / "page.css").read_text()
Update = dict[Any, Any]  # what changes, by component


def theme() -> Any:
    """Gradio's theme with the system's own fonts: none is fetched."""
    return gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=_SANS, font_mono=_MONO)


def build(service: Service) -> Any:
    """The page, a ``gr.Blocks`` with a queue."""
    with gr.Blocks(title="Agent Attention", analytics_enabled=False) as page:
        Page(service)
    return page.queue(max_size=64, default_concurrency_limit=4, api_open=False)


class Page:
    """The parts of the page, and what they do."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.session = gr.State(Session)
        self.first = gr.State(0)  # thumbnail
        gr.HTML(markup.HEAD)
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                self.add_controls()
            with gr.Column(scale=3, min_width=500):
                self.message = gr.HTML(elem_id="message")
                self.stop = gr.Button("Stop", size="sm", visible=False, elem_id="stop")
                self.pictures = gr.HTML(
                    service.show(Session(), 0, ()), js_on_load=f"{_SCRIPT}parts.pictures();"
                )
                self.add_agents()
        self.connect()

    # ---- what there is

    def add_controls(self) -> None:
        """The left column."""
        service, several = self.service, len(self.service.models) > 1
        zone = markup.drop_zone(service.most)
        self.zone = gr.HTML(zone, js_on_load=f"{_SCRIPT}parts.drop();")
        with gr.Column(visible=len(service.gallery) > 0, elem_id="gallery"):
            pictures = markup.thumbnails(service.gallery.thumbnails(0))
            self.gallery = gr.HTML(pictures, js_on_load=f"{_SCRIPT}parts.gallery();")
            with gr.Row(visible=len(service.gallery) > service.gallery.page):
                self.before, self.after = (_button(name) for name in ("Earlier", "Later"))
        self.threshold = gr.Slider(
            0.05, 0.95, 0.3, step=0.05, label="Least score", visible=service.has_objects
        )
        wanted = [("masks", service.has_objects), ("boxes", service.has_objects)]
        wanted += [("names", service.has_objects), ("labels", service.has_labels)]
        layers = [name for name, there in wanted if there]
        self.layers = gr.CheckboxGroup(layers, value=layers, label="Shown", elem_id="layers")
        assert set(layers) <= set(LAYERS)
        label = f"Predicted (tiles have {service.models[0].tile} pixels)"
        self.way = gr.Radio(WAYS, value=WAYS[0], label=label, elem_id="way")
        titles = [(model.title, number) for number, model in enumerate(service.models)]
        self.which = gr.Dropdown(
            titles, value=0, label="Save results of", visible=several, elem_id="which"
        )
        with gr.Row():
            self.save_json, self.save_png = _button("Save JSON"), _button("Save PNG")
            self.save_map = _button("Save labels", visible=service.has_labels)
        self.saver = gr.HTML(html_template="", js_on_load=f"{_SCRIPT}parts.saver();")

    def add_agents(self) -> None:
        """What a click on a pixel shows."""
        with gr.Column(visible=False) as self.agents:
            with gr.Row():
                self.stage = gr.Dropdown([1], value=1, label="Stage", min_width=100)
                self.block = gr.Dropdown([0], value=0, label="Block", min_width=100)
                self.head = gr.Dropdown([-1], value=-1, label="Head", min_width=100)
            self.panels = gr.HTML()

    # ---- what it does

    def connect(self) -> None:
        """Have the parts do it."""
        view = [self.threshold, self.layers]
        chosen = [self.stage, self.block, self.head]
        shown = [self.message, self.session, self.pictures, self.agents, self.stop]
        run = {**_MODEL, "show_progress_on": self.pictures}
        start = [self.session, self.way, *view]
        self.zone.upload(self.open_file, start, shown, **run)
        self.gallery.select(self.open_number, start, shown, **run)
        self.way.input(self.repeat, start, shown, **run)
        self.stop.click(self.ask_to_stop, self.session, None, concurrency_limit=None)
        looked = [self.message, self.agents, self.panels, *chosen]
        look = {**_MODEL, "show_progress_on": self.panels}
        self.pictures.select(self.click, [self.session, *chosen], looked, **look)
        for part in chosen:
            part.input(self.look, [self.session, *chosen], looked, **look)
        for part in view:
            part.input(
                self.redraw,
                [self.session, *view],
                [self.message, self.pictures],
                trigger_mode="always_last",
                show_progress="hidden",
            )
        saved = [self.message, self.saver]
        for button, kind in (
            (self.save_json, "json"),
            (self.save_png, "png"),
            (self.save_map, "map"),
        ):
            button.click(self.save(kind), [self.session, self.which, *view], saved)
        turned = [self.first, self.gallery]
        self.before.click(lambda first: self.turn(first, -1), self.first, turned)
        self.after.click(lambda first: self.turn(first, 1), self.first, turned)

    def open_file(
        self,
        session: Session,
        way: str,
        threshold: float,
        layers: list[str],
        event: gr.EventData,
        progress: Any = gr.Progress(),  # noqa: B008  (Gradio finds it so)
    ) -> Iterator[Update]:
        """A file was dropped or chosen."""

        def work(report: Callable[[float, str], None]) -> None:
            content = getattr(event, "content", None)
            if content is None:  # the browser did not send it
                raise too_large(int(event.size), self.service.most)
            self.service.open(session, _decode(content), way, report)

        yield from self.run(session, threshold, layers, work, progress)

    def open_number(
        self,
        session: Session,
        way: str,
        threshold: float,
        layers: list[str],
        event: gr.EventData,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> Iterator[Update]:
        """A picture of the gallery was chosen."""

        def work(report: Callable[[float, str], None]) -> None:
            data = self.service.gallery.read(int(event.number))
            self.service.open(session, data, way, report)

        yield from self.run(session, threshold, layers, work, progress)

    def repeat(
        self,
        session: Session,
        way: str,
        threshold: float,
        layers: list[str],
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> Iterator[Update]:
        """The picture is to be predicted in another way."""

        def work(report: Callable[[float, str], None]) -> None:
            if session.work:
                self.service.predict(session, session.work, way, report)

        yield from self.run(session, threshold, layers, work, progress)

    def run(
        self,
        session: Session,
        threshold: float,
        layers: list[str],
        work: Callable[[Callable[[float, str], None]], None],
        progress: Any,
    ) -> Iterator[Update]:
        """Do some work, with a button that stops it, and show what comes of it."""
        session.stop = False
        yield {self.message: "", self.stop: gr.Button(visible=True)}
        try:
            work(lambda share, text: progress(share, desc=text))
            pictures = self.service.show(session, threshold, layers)
            found = {
                self.message: "",
                self.pictures: pictures,
                self.agents: gr.Column(visible=False),
            }
        except Exception as error:
            found = {self.message: markup.alert(describe(error))}
        yield {**found, self.session: session, self.stop: gr.Button(visible=False)}

    @staticmethod
    def ask_to_stop(session: Session) -> None:
        """The button was pressed: the next tile is not begun."""
        session.stop = True

    def click(
        self, session: Session, stage: int, block: int, head: int, event: gr.EventData
    ) -> Update:
        """A pixel was clicked."""
        try:
            self.service.click(session, int(event.model), float(event.x), float(event.y))
        except Exception as error:
            return {self.message: markup.alert(describe(error))}
        return self.look(session, stage, block, head)

    def look(self, session: Session, stage: int, block: int, head: int) -> Update:
        """Show the agents of the pixel that was clicked."""
        try:
            found = self.service.look(session, int(stage), int(block), int(head))
        except Exception as error:
            return {self.message: markup.alert(describe(error))}
        return {
            self.message: "",
            self.agents: gr.Column(visible=True),
            self.panels: found.html,
            self.stage: _options(found.stage, "stage {}"),
            self.block: _options(found.block, "block {}"),
            self.head: _options(found.head, "head {}"),
        }

    def redraw(self, session: Session, threshold: float, layers: list[str]) -> Update:
        """The threshold or what is drawn has changed."""
        try:
            return {self.message: "", self.pictures: self.service.show(session, threshold, layers)}
        except Exception as error:
            return {self.message: markup.alert(describe(error))}

    def save(self, kind: str) -> Callable[..., Update]:
        """What a button for downloading does: 'json', 'png' or 'map'."""

        def save(session: Session, which: int, threshold: float, layers: list[str]) -> Update:
            try:
                if kind == "png":
                    content = self.service.save_picture(session, which, threshold, layers)
                    return {self.message: "", self.saver: _file("picture.png", content)}
                saved = self.service.save(session, which, threshold)
                if kind == "json":
                    return {self.message: "", self.saver: _file("results.json", saved.results)}
                if saved.labels is None:
                    raise UserError("This model predicts objects and has no label map: take JSON.")
                return {self.message: "", self.saver: _file("labels.png", saved.labels)}
            except Exception as error:
                return {self.message: markup.alert(describe(error))}

        return save

    def turn(self, first: int, by: int) -> Update:
        """Turn the gallery's pages."""
        gallery = self.service.gallery
        last = (len(gallery) - 1) // gallery.page
        first = min(max(first // gallery.page + by, 0), last) * gallery.page
        return {self.first: first, self.gallery: markup.thumbnails(gallery.thumbnails(first))}


def _button(name: str, visible: bool = True) -> Any:
    """A small button, of which several stand in a row."""
    return gr.Button(name, size="sm", min_width=60, visible=visible)


def _options(choice: Choice, name: str) -> Any:
    """A drop-down list of numbers; -1 is the mean of all."""
    names = [(name.format(each) if each >= 0 else "mean of all", each) for each in choice.among]
    return gr.Dropdown(names, value=choice.chosen)


def _decode(content: Any) -> bytes:
    try:
        return base64.b64decode(content, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise UserError("The file did not arrive whole: try again.") from None


def _file(name: str, content: bytes) -> str:
    """A file for the browser; the time makes it another value, so that it is saved again."""
    kind = "application/json" if name.endswith("json") else "image/png"
    data = base64.b64encode(content).decode()
    return json.dumps({"name": name, "type": kind, "content": data, "time": time.time()})
