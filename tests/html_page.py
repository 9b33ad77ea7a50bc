"""An HTML page as tests look at it."""

from html.parser import HTMLParser
from typing import Any


class Page(HTMLParser):
    """Elements, attributes and text of a page; fails where tags do not match."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.source = ""
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[tuple[str, ...], str]] = []

    @classmethod
    def read(cls, source: str) -> "Page":
        page = cls()
        page.source = source
        page.feed(source)
        page.close()
        assert page.open == []
        return page

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((tuple(self.open), data.strip()))

    def inside(self, tag: str) -> list[str]:
        return [text for path, text in self.texts if path and path[-1] == tag]

    def text(self) -> str:
        return " ".join(text for path, text in self.texts if path[-1] not in ("script", "style"))

    def attributes(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.seen if name in attrs]
