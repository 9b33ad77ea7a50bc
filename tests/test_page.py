"""What the page computes, without Gradio and without a browser (``make page`` has both)."""

import asyncio
import io
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from tool_runs import ADE_DEMO, COCO_DEMO, CONFIGS

from agent_attention.maps import recorded_maps
from agent_toolkit.commands import demo as page
from agent_toolkit.page.guard import Guard
from agent_toolkit.page.models import PageModel
from agent_toolkit.page.pictures import Gallery, read_picture
from agent_toolkit.page.results import draw_result, save_result
from agent_toolkit.page.service import Service, Session, describe
from mmdet_agent.predict.panoptic import PanopticWriter
from mmengine_agent.agent_picture import agent_modules
from mmengine_agent.errors import UserError
from mmengine_agent.predict.classes import Classes
from mmengine_agent.run.exit import run_tool

MOST = 10**6
SHADES = np.random.RandomState(0).randint(0, 255, (90, 120, 3), dtype=np.uint8)


def file_of(picture: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """A picture as a file; an array is grey or RGB."""
    out = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(out, kind, **options)
    return out.getvalue()


LONG = file_of(np.tile(SHADES, (1, 2, 1)))  # 90 x 240 pixels, three tiles of 100


def ignore(share: float, text: str) -> None:
    """A report that nobody reads."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    """A detector and a segmentor of random weights, which cut up what is longer than 200."""
    few = tmp_path_factory.mktemp("config") / "few_objects.py"
    few.write_text(
        f"_base_ = {str(CONFIGS / COCO_DEMO)!r}\n"
        "model = dict(test_cfg=dict(rpn=dict(max_per_img=40), rcnn=dict(max_per_img=8)))\n"
    )
    torch.manual_seed(0)
    configs = str(few), str(CONFIGS / ADE_DEMO)
    models = [PageModel(config, "none", "cpu", tile=100) for config in configs]
    return Service(models, Gallery(None), MOST)


@pytest.fixture
def session(service: Service) -> Session:
    """A user who has opened a picture."""
    session = Session()
    service.open(session, file_of(SHADES), "automatic", ignore)
    return session


# ---- pictures


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF", "PPM"])
def test_a_picture_is_read_as_training_reads_it(kind: str) -> None:
    found = read_picture(
        file_of(SHADES, kind, **({"lossless": True} if kind == "WEBP" else {})), MOST
    )
    assert np.array_equal(found, SHADES[..., ::-1])


def test_other_pixels_become_eight_bits_of_three_channels() -> None:
    grey = SHADES[..., 0]
    rgba = np.dstack([SHADES, grey])
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    for picture, wanted in (
        (grey, grey[..., None]),
        (rgba, SHADES[..., ::-1]),
        (deep, grey[..., None]),
    ):
        found = read_picture(file_of(picture), MOST)
        assert found.shape == SHADES.shape and found.dtype == np.uint8
        assert np.array_equal(found, np.broadcast_to(wanted, found.shape))


def test_a_picture_is_turned_as_exif_asks() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    assert read_picture(file_of(SHADES, "JPEG", exif=exif), MOST).shape == (120, 90, 3)


def many_pixels(width: int, height: int) -> bytes:
    return file_of(Image.new("1", (width, height)))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no picture"),
        (b"GIF89a but not really", "no picture"),
        (file_of(SHADES)[:3000], "broken"),
        (file_of(SHADES, "JPEG")[:2000], "broken"),
        (b"x" * (MOST + 1), "1.0 MB"),
        (many_pixels(30_000, 10), "30000 x 10 pixels"),
        (many_pixels(15_000, 15_000), "megapixels"),
        (many_pixels(3, 100), "too few"),
    ],
    ids=["empty", "text", "cut PNG", "cut JPEG", "large", "long", "pixels", "small"],
)
def test_what_cannot_be_read_is_said_in_one_sentence(data: bytes, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        read_picture(data, MOST)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


def test_a_gallery_has_numbers_and_no_paths(tmp_path: Path) -> None:
    for number in range(26):
        cv2.imwrite(str(tmp_path / f"secret-{number:02}.jpg"), SHADES)
    (tmp_path / "secret-03.jpg").write_bytes(b"broken")
    gallery = Gallery(str(tmp_path))
    first, last = gallery.thumbnails(0), gallery.thumbnails(24)
    assert [number for number, _ in first] == [0, 1, 2, *range(4, 24)]
    assert [number for number, _ in last] == [24, 25]
    assert "secret" not in str(first) and read_picture(gallery.read(1), MOST).shape == SHADES.shape
    for number in (-1, 26):
        with pytest.raises(UserError, match="not there"):
            gallery.read(number)
    with pytest.raises(UserError, match="--images"):
        Gallery(str(tmp_path / "nowhere"))


# ---- predictions


def test_a_higher_threshold_shows_fewer_boxes(service: Service, session: Session) -> None:
    counts = [
        service.show(session, threshold, ["boxes"]).count("box") for threshold in (0.05, 0.2, 1)
    ]
    assert counts[0] > counts[1] >= counts[2] == 0


def test_layers_are_left_out_if_they_are_not_wanted(service: Service, session: Session) -> None:
    plain = service.show(session, 0.05, [])
    assert 'class="box"' not in plain
    for layer in ("masks", "labels"):
        assert service.show(session, 0.05, [layer]) != plain


def test_a_large_picture_goes_in_tiles_and_says_how_far_it_is(service: Service) -> None:
    session, told = Session(), []
    for way, of in (("automatic", 3), ("whole", 1)):
        told.clear()
        service.open(session, LONG, way, lambda share, text: told.append((share, text)))
        assert [share for share, _ in told] == sorted(share for share, _ in told)
        assert any("tile 2 of 3" in text for _, text in told) == (of == 3)
        assert ("3 tiles" in service.show(session, 0.3, [])) == (of == 3)


def test_what_is_stopped_leaves_what_was_there(service: Service, session: Session) -> None:
    before = session.work

    def stop(share: float, text: str) -> None:
        session.stop = session.stop or "tile 2" in text

    with pytest.raises(UserError, match="Stopped"):
        service.open(session, LONG, "tiles", stop)
    assert session.work is before


def test_what_would_take_too_much_memory_is_refused(
    service: Service, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.models[0].predictor, "pixels", lambda height, width: 10**8)
    with pytest.raises(UserError, match="choose tiles"):
        service.open(session, LONG, "whole", ignore)


def test_files_have_what_is_shown_and_no_paths(service: Service, session: Session) -> None:
    detector, segmentor = (service.save(session, number, 0.2) for number in (0, 1))
    found = json.loads(detector.results)
    assert found["image"] == {"id": 1, "width": 120, "height": 90}
    assert min(each["score"] for each in found["annotations"]) >= 0.2 and detector.labels is None
    assert {each["category_id"] for each in found["annotations"]} <= {
        each["id"] for each in found["categories"]
    }
    assert segmentor.labels is not None
    labels = cv2.imdecode(np.frombuffer(segmentor.labels, np.uint8), cv2.IMREAD_UNCHANGED)
    assert labels.shape == (90, 120)
    assert sum(json.loads(segmentor.results)["pixels"].values()) == labels.size
    assert not re.search(r"[\"' ]/\w", detector.results.decode() + segmentor.results.decode())
    drawn = service.save_picture(session, 0, 0.05, ["masks", "boxes", "names"])
    assert read_picture(drawn, MOST).shape == SHADES.shape


def test_segments_are_shown_by_class_and_saved_one_by_one() -> None:
    classes = Classes(("cat", "grass"), ((255, 0, 0), (0, 255, 0)), (17, 193))
    model: Any = SimpleNamespace(
        has_objects=False,
        classes=classes,
        title="panoptic",
        writer=lambda: PanopticWriter(classes, 0.05),
    )
    ids = np.full((10, 10), 1)
    ids[:3], ids[3:6], ids[9] = 1000, 2000, 133  # two cats; no class
    drawn = draw_result(model, SHADES[:10, :10], ids, 0.3, ["labels"])
    assert [entry.note for entry in drawn.legend] == ["60.0%", "30.0%"]
    found = json.loads(save_result(model, SHADES[:10, :10], ids, 0.3).results)
    areas = sorted((each["category_id"], each["area"]) for each in found["segments"])
    assert areas == [(17, 30), (17, 30), (193, 30)]


def test_names_of_classes_are_no_html(service: Service, session: Session) -> None:
    model = service.models[1]
    names = model.classes.names
    object.__setattr__(model.classes, "names", ("<script>x</script>",) * len(names))
    shown = service.show(session, 0.05, ["labels"])
    object.__setattr__(model.classes, "names", names)
    assert "&lt;script&gt;" in shown and "<script>" not in shown


# ---- agents


@pytest.mark.parametrize(("stage", "block", "head"), [(1, 0, -1), (3, 1, 2)])
def test_a_click_shows_the_maps_of_the_block(
    service: Service, session: Session, stage: int, block: int, head: int
) -> None:
    model = service.models[1]
    calls: list[int] = []
    handle = model.model.backbone.register_forward_hook(lambda *_: calls.append(1))
    service.click(session, 1, 0.5, 0.25)
    looked = service.look(session, stage, block, head)
    service.look(session, 2, 0, -1)
    handle.remove()
    assert len(calls) == 1, "the maps of an image are computed once"
    assert looked.html.count("<figure>") == 12
    agents = session.work.agents[1]  # type: ignore[union-attr]
    attn = agent_modules(model.model.backbone, stage)[block]
    packed = model.predictor.prepare({"img": session.work.image, "img_id": 0})  # type: ignore[union-attr]
    with torch.no_grad(), recorded_maps(attn) as found:
        batch = model.model.data_preprocessor({key: [packed[key]] for key in packed})
        model.model.backbone(batch["inputs"])
    kept = agents.maps[stage][block]
    for one, other in zip(kept[:2], found[0][:2], strict=True):
        torch.testing.assert_close(one.float(), other, rtol=1e-3, atol=1e-3)


def test_what_a_block_does_not_have_is_the_nearest(service: Service, session: Session) -> None:
    looked = service.look(session, stage=9, block=9, head=99)
    assert looked.stage.chosen == 4 and looked.stage.among == [1, 2, 3, 4]
    assert looked.block.chosen == looked.block.among[-1] and looked.head.chosen == -1


@pytest.mark.parametrize("place", [(7, 0.5, 0.5), (0, -0.1, 0.5), (0, 0.5, float("nan"))])
def test_a_click_beside_the_picture_is_refused(
    service: Service, session: Session, place: tuple[int, float, float]
) -> None:
    with pytest.raises(UserError, match="Click into"):
        service.click(session, *place)


def test_users_see_their_own(service: Service, session: Session) -> None:
    other = Session()
    assert "Drop a picture" in service.show(other, 0.3, [])
    with pytest.raises(UserError, match="Drop a picture"):
        service.look(other, 1, 0, -1)
    with pytest.raises(UserError, match="choose a picture"):
        service.save(other, 0, 0.3)
    assert session.work is not None


def test_an_unexpected_error_tells_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    text = describe(FileNotFoundError("/secret/place"))
    assert "secret" not in text and text.endswith(".") and "/secret/place" in caplog.text


# ---- the server


def ask(method: str, path: str, local: bool = True, **headers: str) -> tuple[int, bytes]:
    """The status and the policy that a request is answered with; 200 stands for Gradio."""

    async def page(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": pairs}
    asyncio.run(Guard(page, MOST, local)(scope, None, send))  # type: ignore[arg-type]
    return sent[0]["status"], dict(sent[0]["headers"])[b"content-security-policy"]


HERE = {"host": "127.0.0.1:7860"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", HERE, 200),
        ("GET", "/assets/index.js", HERE, 200),
        ("POST", "/gradio_api/queue/join", {**HERE, "content-length": "1000000"}, 200),
        ("POST", "/gradio_api/queue/join", {**HERE, "content-length": "1500000"}, 413),
        ("POST", "/gradio_api/queue/join", HERE, 411),
        ("GET", "/gradio_api/file=/etc/passwd", HERE, 404),
        ("GET", "/assets/../gradio_api/file=/etc/passwd", HERE, 404),
        ("POST", "/gradio_api/upload", {**HERE, "content-length": "3"}, 404),
        ("GET", "/gradio_api/proxy=http://example.com", HERE, 404),
        ("GET", "/", {"host": "example.com:7860"}, 421),
        ("GET", "/", {}, 421),
    ],
)
def test_a_browser_may_ask_what_the_page_needs(
    method: str, path: str, headers: dict[str, str], status: int
) -> None:
    assert ask(method, path, **headers)[0] == status
    assert b"default-src 'self'" in ask(method, path, **headers)[1]


def test_another_address_answers_to_any_name() -> None:
    assert ask("GET", "/", local=False, host="lab.example.com")[0] == 200


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["agent_pvt_maskrcnn_demo"], 2, "CONFIG2 and CHECKPOINT2"),
        (["--port", "0"], 2, "'0' is no port"),
        (["--max-upload", "much"], 2, "'much' is no size"),
        (["--tile", "8"], 2, "--tile must be"),
        (["--images", "photos", "--host", "127.0.0.1", "--device", "cpu"], 1, "[page]"),
    ],
)
def test_a_mistake_is_one_message(
    flags: list[str],
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)  # as if it were not installed
    monkeypatch.setattr(sys, "argv", ["tools/page.py", "agent_pvt_maskrcnn_demo", "none", *flags])
    with pytest.raises(SystemExit) as caught:
        run_tool(page.main)
    message = capsys.readouterr().err
    assert caught.value.code == code and words in message and "Traceback" not in message
