"""The HTML of what is shown. Names of classes come from files, so every text is escaped."""

from collections.abc import Iterable
from html import escape

from agent_toolkit.page.agents import Panel
from agent_toolkit.page.pictures import data_url
from agent_toolkit.page.results import Box, Drawn, Entry
from mmengine_agent.draw import Colour

HEAD = (
    '<div class="page-head"><h1>Agent Attention</h1>'
    "<small>Click a pixel of a picture to see which agents serve it.</small></div>"
)


def alert(text: str) -> str:
    """A message that screen readers read out."""
    return f'<p class="alert" role="alert">{escape(text)}</p>'


def drop_zone(most: int) -> str:
    """Where a picture of at most so many bytes is dropped or chosen."""
    return (
        f'<label class="drop" data-most="{most}"><input type="file" accept="image/*">'
        "<b>Drop a picture here</b>or click to choose one"
        f"<small>JPEG, PNG, WebP, BMP, TIFF · {most / 1e6:.0f} MB at most</small></label>"
    )


def thumbnails(pictures: Iterable[tuple[int, str]]) -> str:
    """Buttons with small pictures."""
    buttons = (
        f'<button type="button" data-number="{number}" aria-label="Picture {number + 1}">'
        f'<img src="{url}" alt=""></button>'
        for number, url in pictures
    )
    return f'<div class="thumbnails">{"".join(buttons)}</div>'


def shown(
    model: int, title: str, note: str, drawn: Drawn, cross: tuple[float, float] | None
) -> str:
    """A model's picture with its boxes, its legend, and the pixel that was clicked."""
    boxes = "".join(map(_box, drawn.boxes))
    url = data_url(drawn.picture)
    return (
        f'<section class="shown"><header><b>{escape(title)}</b><small>{escape(note)}</small>'
        f'</header><div class="picture" data-model="{model}">'
        f'<img src="{url}" alt="{escape(note)}">{boxes}{_cross(cross)}</div>'
        f"{_legend(drawn.legend)}</section>"
    )


def panels(heading: str, note: str, pictures: Iterable[Panel]) -> str:
    """The panels about a pixel."""
    figures = (
        f'<figure><div class="picture"><img src="{data_url(picture)}" alt="">{_cross(cross)}</div>'
        f"<figcaption>{escape(title)}</figcaption></figure>"
        for title, picture, cross in pictures
    )
    return (
        f'<header class="panels-head"><b>{escape(heading)}</b><small>{escape(note)}</small>'
        f'</header><div class="panels">{"".join(figures)}</div>'
    )


def hint(text: str) -> str:
    """What stands where there is nothing to show yet."""
    return f'<p class="hint">{escape(text)}</p>'


def _box(box: Box) -> str:
    left, top, width, height = (f"{100 * share:.3f}%" for share in box.place)
    text = f"<b>{escape(box.text)}</b>" if box.text else ""
    colours = f"--colour:{_rgb(box.colour)};--ink:{_ink(box.colour)}"
    return (
        f'<i class="box" style="left:{left};top:{top};width:{width};height:{height};{colours}">'
        f"{text}</i>"
    )


def _cross(place: tuple[float, float] | None) -> str:
    if place is None:
        return '<i class="cross" hidden></i>'
    return f'<i class="cross" style="left:{100 * place[0]:.3f}%;top:{100 * place[1]:.3f}%"></i>'


def _legend(entries: Iterable[Entry]) -> str:
    rows = (
        f'<li><i style="background:{_rgb(colour)}"></i>{escape(name)}<small>{escape(note)}</small>'
        for name, colour, note in entries
    )
    return f'<ul class="legend">{"".join(rows)}</ul>'


def _rgb(colour: Colour) -> str:
    return "rgb({} {} {})".format(*colour)


def _ink(colour: Colour) -> str:
    """Black or white, whichever is read on a colour."""
    red, green, blue = colour
    return "#000" if 0.3 * red + 0.6 * green + 0.1 * blue > 140 else "#fff"
