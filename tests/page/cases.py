"""What is tried on the page: one function a case, each with the browser to itself."""

import http.client
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import cv2
import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, expect

PATIENCE = 400_000  # milliseconds that a prediction may take on a busy machine
Case = Callable[[Browser, "Place"], str]
CASES: list[Case] = []
COMPARED: list[Case] = []  # with two models


class Place(NamedTuple):
    """Where the page is, and what is tried on it."""

    address: str
    files: Path
    record: Path  # of the server
    pictures: Path | None  # where the pictures of the docs go


def case(function: Case) -> Case:
    """Note a case of a single model."""
    CASES.append(function)
    return function


def make_files(folder: Path, data: Path) -> Path:
    """Pictures of all kinds in a folder."""
    scenes = sorted((data / "coco/val2017").glob("*.jpg"))
    assert scenes, f"no pictures in {data}/coco/val2017: `make demo` makes them"
    (folder / "gallery").mkdir()
    for scene in scenes[2:14]:
        shutil.copy(scene, folder / "gallery")
    first = Image.open(scenes[4]).convert("RGB")
    first.save(folder / "scene.jpg", quality=95)
    Image.open(scenes[2]).convert("RGB").save(folder / "other.png")
    first.convert("L").save(folder / "grey.png")
    deep = np.asarray(first.convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(folder / "deep.png")
    first.convert("RGBA").save(folder / "alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    first.resize((240, 120)).save(folder / "turned.jpg", exif=exif)
    (folder / "cut.jpg").write_bytes((folder / "scene.jpg").read_bytes()[:2500])
    (folder / "text.png").write_text("no picture")
    (folder / "huge.jpg").write_bytes(b"\xff\xd8" + bytes(41 * 10**6))
    # 40 megapixels, with what the models know as large as in training
    tiles = [cv2.imread(str(scenes[2 + i % 20])) for i in range(50 * 32)]
    side = max(tile.shape[0] for tile in tiles)
    tiles = [cv2.resize(tile, (side, side)) for tile in tiles]
    rows = [np.hstack(tiles[i * 50 : (i + 1) * 50]) for i in range(32)]
    cv2.imwrite(str(folder / "large.jpg"), np.vstack(rows)[:5120, :8000])
    return folder


@contextmanager
def opened(browser: Browser, place: Place, **options: Any) -> Iterator[Page]:
    """The page in a context of its own: nothing leaves this machine, nothing fails in it."""
    size = {"width": 1280, "height": 900}
    context = browser.new_context(viewport=size, accept_downloads=True, **options)
    page = context.new_page()
    page.set_default_timeout(60_000)
    hosts: set[str] = set()
    faults: list[str] = []
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname or ""))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda told: faults.append(told.text) if told.type == "error" else None)
    page.goto(place.address)
    page.wait_for_selector(".drop")
    yield page
    context.close()
    assert hosts <= {"127.0.0.1", ""}, f"asked {hosts}"
    assert not faults, faults


def upload(page: Page, file: Path) -> None:
    page.locator(".drop input").set_input_files(file)


def shown(page: Page, wait: str = ".shown .picture img") -> None:
    """Wait for a picture with predictions."""
    page.wait_for_selector(wait, timeout=PATIENCE)
    expect(page.get_by_role("button", name="Stop")).to_be_hidden(timeout=PATIENCE)


def note_of(page: Page) -> str:
    return page.locator(".shown header small").first.inner_text()


def take(page: Page, place: Place, name: str) -> str:
    """A picture for the docs: the whole page, in the 256 colours that suit it best."""
    if place.pictures is None:
        return ""
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)
    path = place.pictures / f"page_{name}.png"
    ends = "each => each.getBoundingClientRect().bottom + scrollY"
    end = page.evaluate(f"Math.max(...[...document.querySelectorAll('.column')].map({ends}))")
    width = page.viewport_size["width"] if page.viewport_size else 0
    clip = {"x": 0, "y": 0, "width": width, "height": end + 16}
    page.screenshot(path=path, full_page=True, clip=clip)
    picture = Image.open(path).convert("RGB")
    picture.thumbnail((1000, 1400), Image.Resampling.LANCZOS)
    picture.quantize(256, kmeans=50_000, dither=Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size < 300_000, path
    return f"{path.name}, {path.stat().st_size // 1024} KB"


def set_score(page: Page, value: str) -> None:
    """Move the threshold."""
    score = page.get_by_role("spinbutton").first
    score.fill(value)
    score.press("Enter")
    page.wait_for_timeout(2500)


@case
def open_a_picture(browser: Browser, place: Place) -> str:
    """A picture is uploaded: boxes, masks, names, a legend."""
    with opened(browser, place) as page:
        assert "Drop a picture" in page.locator(".hint").inner_text()
        upload(page, place.files / "scene.jpg")
        shown(page)
        assert page.locator(".box").count() and page.locator(".legend li").count()
        set_score(page, "0.6")
        return f"{note_of(page)}; {take(page, place, 'detector')}"


@case
def move_the_threshold(browser: Browser, place: Place) -> str:
    """A higher threshold leaves fewer boxes, at once."""
    with opened(browser, place) as page:
        upload(page, place.files / "scene.jpg")
        shown(page)
        counts = [page.locator(".box").count()]
        for value in ("0.05", "0.95"):
            set_score(page, value)
            counts.append(page.locator(".box").count())
        assert counts[1] >= counts[0] > counts[2], counts
        return f"{counts[0]} boxes at 0.3, {counts[1]} at 0.05, {counts[2]} at 0.95"


@case
def click_a_pixel(browser: Browser, place: Place) -> str:
    """A click shows the agents of the pixel, by stage, block and head."""
    with opened(browser, place) as page:
        upload(page, place.files / "scene.jpg")
        shown(page)
        picture = page.locator(".shown .picture")
        picture.click(position={"x": 200, "y": 180})
        page.wait_for_selector(".panels figure", timeout=PATIENCE)
        assert page.locator(".panels figure").count() >= 8
        heading = page.locator(".panels-head small").inner_text()
        started = time.perf_counter()
        picture.click(position={"x": 190, "y": 330})
        expect(page.locator(".panels-head small")).not_to_have_text(heading, timeout=PATIENCE)
        again = time.perf_counter() - started
        set_score(page, "0.6")
        for label, option in (("Stage", "stage 3"), ("Block", "block 1"), ("Head", "head 2")):
            before = page.locator(".panels").inner_html()
            page.get_by_label(label).click()
            page.get_by_role("option", name=option).click()
            page.wait_for_function(
                "old => document.querySelector('.panels').innerHTML != old", arg=before
            )
        return f"the second click after {again:.2f} s; {take(page, place, 'agents')}"


@case
def save_files(browser: Browser, place: Place) -> str:
    """JSON and PNG are saved under neutral names."""
    with opened(browser, place) as page:
        upload(page, place.files / "scene.jpg")
        shown(page)
        names = []
        for button in ("Save JSON", "Save PNG"):
            with page.expect_download() as waited:
                page.get_by_role("button", name=button, exact=True).click()
            path = place.files / "saved"
            waited.value.save_as(path)
            names.append(waited.value.suggested_filename)
            if button == "Save JSON":
                found = json.loads(path.read_text())
                assert found["annotations"] and "segmentation" in found["annotations"][0]
            else:
                assert Image.open(path).size == Image.open(place.files / "scene.jpg").size
        assert names == ["results.json", "picture.png"], names
        return ", ".join(names)


@case
def pick_from_the_gallery(browser: Browser, place: Place) -> str:
    """A picture of the gallery is picked."""
    with opened(browser, place) as page:
        assert page.locator(".thumbnails button").count() == 12
        page.locator(".thumbnails button").nth(4).click()
        shown(page)
        return note_of(page)


@case
def open_other_pixels(browser: Browser, place: Place) -> str:
    """Grey, 16 bits, transparent, turned by EXIF: all are predicted on."""
    with opened(browser, place) as page:
        for name in ("grey.png", "deep.png", "alpha.png", "turned.jpg"):
            upload(page, place.files / name)
            page.wait_for_timeout(1500)
            shown(page)
            assert not page.locator(".alert").count(), name
        assert note_of(page).startswith("120 x 240 pixels"), note_of(page)
        return note_of(page)


@case
def open_what_is_broken(browser: Browser, place: Place) -> str:
    """Cut off, no picture, too large: one sentence, and what was shown stays."""
    words = {"cut.jpg": "broken", "text.png": "no picture", "huge.jpg": "takes up to 40 MB"}
    with opened(browser, place) as page:
        upload(page, place.files / "scene.jpg")
        shown(page)
        for name, word in words.items():
            upload(page, place.files / name)
            expect(page.locator(".alert")).to_contain_text(word, timeout=PATIENCE)
            assert page.locator(".shown .picture img").count() == 1
        return page.locator(".alert").inner_text()


@case
def open_forty_megapixels(browser: Browser, place: Place) -> str:
    """40 megapixels go in tiles, with a progress bar, and can be stopped."""
    with opened(browser, place) as page:
        upload(page, place.files / "large.jpg")
        progress = page.get_by_text(re.compile(r"tile \d\d of \d+")).first
        progress.wait_for(timeout=PATIENCE)
        picture = take(page, place, "tiles")
        page.get_by_role("button", name="Stop").click()
        expect(page.locator(".alert")).to_contain_text("Stopped", timeout=PATIENCE)
        upload(page, place.files / "large.jpg")
        page.wait_for_timeout(1000)
        shown(page)
        note = note_of(page)
        assert "tiles" in note and "8000 x 5120" in note, note
        page.locator(".shown .picture").click(position={"x": 200, "y": 180})
        page.wait_for_selector(".panels figure", timeout=PATIENCE)
        return f"{note}; {picture}"


@case
def serve_two_users(browser: Browser, place: Place) -> str:
    """Two users at once: each sees their own picture, and one waits for the other."""
    with opened(browser, place) as one, opened(browser, place) as other:
        upload(one, place.files / "turned.jpg")
        upload(other, place.files / "other.png")
        shown(one)
        shown(other)
        first, second = note_of(one), note_of(other)
        assert first.startswith("120 x 240 pixels"), first
        assert not second.startswith("120 x 240 pixels"), second
        one.locator(".shown .picture").click(position={"x": 50, "y": 50})
        one.wait_for_selector(".panels figure", timeout=PATIENCE)
        assert not other.locator(".panels figure").count()
        return f"{first} | {second}"


@case
def ask_nobody_else(browser: Browser, place: Place) -> str:
    """Without the policy that forbids it, the page asks no other server either."""
    asked: list[str] = []
    with opened(browser, place, bypass_csp=True) as page:
        page.on("request", lambda request: asked.append(request.url))
        page.reload()
        upload(page, place.files / "scene.jpg")
        shown(page)
        page.locator(".shown .picture").click(position={"x": 200, "y": 180})
        page.wait_for_selector(".panels figure", timeout=PATIENCE)
    return f"{len(asked)} requests, all to 127.0.0.1"


@case
def ask_for_files(browser: Browser, place: Place) -> str:
    """Gradio's routes for files, other servers and other names are closed."""
    found = []
    for method, path, host in (
        ("GET", "/gradio_api/file=/etc/passwd", "127.0.0.1"),
        ("POST", "/gradio_api/upload", "127.0.0.1"),
        ("GET", "/gradio_api/proxy=http://127.0.0.1:1/", "127.0.0.1"),
        ("GET", "/gradio_api/info", "127.0.0.1"),
        ("GET", "/", "example.com"),
    ):
        address = urlsplit(place.address)
        server = http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)
        server.request(method, path, headers={"Host": host})
        found.append(server.getresponse().status)
        server.close()
    assert found == [404, 404, 404, 404, 421], found
    return str(found)


@case
def read_the_record(browser: Browser, place: Place) -> str:
    """The server called nobody, and sent no path of its files."""
    record = place.record.read_bytes()
    called = re.findall(rb"(?m)^CALLED .*", record)
    secrets = [place.files, Path(__file__).parents[2], Path.home() / "."]
    sent = [str(each).encode() for each in secrets if str(each).encode() + b"/" in record]
    assert not called and not sent and b".pth" not in record, (called[:3], sent)
    assert b"SENT" in record
    return f"{len(record) / 1e6:.1f} MB were sent"


def compare_two_models(browser: Browser, place: Place) -> str:
    """Two models see the same picture, with the same threshold."""
    with opened(browser, place) as page:
        upload(page, place.files / "scene.jpg")
        shown(page)
        assert page.locator(".shown").count() == 2
        pictures = page.locator(".shown .picture")
        tops = [(pictures.nth(i).bounding_box() or {})["y"] for i in (0, 1)]
        assert tops[0] == tops[1], "side by side"
        set_score(page, "0.6")
        image = take(page, place, "compare")
        pictures.nth(1).click(position={"x": 120, "y": 100})
        page.wait_for_selector(".panels figure", timeout=PATIENCE)
        heading = page.locator(".panels-head b").inner_text()
        assert "semantic_fpn" in heading, heading
        with page.expect_download() as waited:
            page.get_by_label("Save results of").click()
            page.get_by_role("option").nth(1).click()
            page.get_by_role("button", name="Save labels").click()
        assert waited.value.suggested_filename == "labels.png"
        return f"{heading}; {image}"


COMPARED += [compare_two_models, read_the_record]
