"""Links of the pages lead to files and headings, and the site is built without a warning."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from pages import PAGES, ROOT, SITE, tokens
from sphinx.cmd.build import main as sphinx

LINKING = [*PAGES, *ROOT.glob("configs/*/README.md"), ROOT / "CHANGELOG.md"]


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in targets(page):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert file.is_relative_to(ROOT), target
        assert not anchor or anchor in headings(file), target


def targets(page: Path) -> Iterator[str]:
    """Where the links and pictures of a page lead."""
    for token in tokens(page):
        for child in token.children or ():
            address = child.attrGet("href") or child.attrGet("src")
            if address is not None:
                yield str(address)


def headings(page: Path) -> set[str]:
    opened = [token for token in tokens(page) if token.type == "heading_open"]
    return {str(token.attrGet("id")) for token in opened}


def test_headings_of_a_page_go_down_in_steps() -> None:
    for page in SITE:
        levels = [int(token.tag[1]) for token in tokens(page) if token.type == "heading_open"]
        assert levels[0] == 1 and levels.count(1) == 1, page
        assert all(lower <= upper + 1 for upper, lower in pairwise(levels)), page


# ---- the site ----


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does: a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    flags = re.search(r"-m sphinx (.*) docs site", (ROOT / "Makefile").read_text())
    assert flags and "-W" in flags[1].split()
    assert sphinx([*flags[1].split(), str(ROOT / "docs"), str(folder)]) == 0
    return folder


class Fetched(HTMLParser):
    """What a browser fetches for a page, and where the page leads."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("img", "script", "link", "iframe", "source") and given.get("rel") != "canonical":
            self.fetched += [given.get("src") or given.get("href") or ""]
        if tag == "a":
            self.links.append(given.get("href") or "")


def test_every_page_is_in_the_site_and_fetches_nothing(site: Path) -> None:
    for page in SITE:
        found = Fetched(site / f"{page.stem}.html")
        assert any(address.endswith(".css") or ".css?" in address for address in found.fetched)
        assert not [address for address in found.fetched if re.match(r"(https?:)?//", address)]
        for link in found.links:
            if not re.match(r"https?://|#|$", link):
                assert (site / link.split("#")[0].split("?")[0]).is_file(), (page, link)
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//|@import", style.read_text()), style
