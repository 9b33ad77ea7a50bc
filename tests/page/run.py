"""The page in a real browser, headless: a table of what was tried, and docs/page.md's pictures.

    make page                                     # the demo's models, in .venv-page
    python tests/page/run.py --demo DIR --data DIR --no-pictures

Chromium is Debian's; as root it is installed if there is none. Exit code 1 if something failed.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cases import CASES, COMPARED, Place, make_files
from playwright.sync_api import Browser, sync_playwright

from mmengine_agent.run.setup import make_parser

ROOT = Path(__file__).parents[2]
PORT = 7911
ALONE = "--host-resolver-rules=MAP * ~NOTFOUND,EXCLUDE 127.0.0.1"  # its own calls end here, too
MODELS = {
    "detector": ("agent_pvt_maskrcnn_demo", "epoch_4.pth"),
    "segmentor": ("agent_pvt_semantic_fpn_demo", "iter_280.pth"),
}


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--demo", type=Path, default=ROOT / "work_dirs/demo", help="trained models")
    parser.add_argument("--data", type=Path, default=ROOT / "data/demo", help="and their data")
    parser.add_argument("--no-pictures", action="store_true", help="leave docs/images as it is")
    parser.add_argument("--only", default="", metavar="WORD", help="cases with it in their name")
    flags = parser.parse_args()
    pictures = None if flags.no_pictures else ROOT / "docs/images"
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as tools:
        files = make_files(Path(folder), flags.data)
        chromium, words = find_chromium(), ["--no-sandbox", ALONE]
        browser = tools.chromium.launch(executable_path=chromium, args=words)
        images = ["--images", str(files / "gallery")]
        models = [models_in(flags.demo, name) for name in MODELS]
        failed = 0
        for pair, more, cases in (
            (models[:1], [*images, "--max-upload", "40MB"], CASES),
            (models, [], COMPARED),
        ):
            words = [word for model in pair for word in model]
            with served([*words, *more, "--port", str(PORT), "--tile", "1024"], files) as record:
                place = Place(f"http://127.0.0.1:{PORT}", files, record, pictures)
                wanted = [case for case in cases if flags.only in case.__name__]
                failed += try_all(wanted, browser, place)
        browser.close()
    sys.exit(bool(failed))


def try_all(cases: list[Callable[[Browser, Place], str]], browser: Browser, place: Place) -> int:
    """Try some cases, each in a new context, and print a line each; how many failed."""
    failed = 0
    for case in cases:
        started, name = time.perf_counter(), (case.__doc__ or "").partition("\n")[0].rstrip(".")
        try:
            found = case(browser, place)
        except Exception:
            failed += 1
            traceback.print_exc()
            found = "FAILED"
        print(f"{name:<62} {time.perf_counter() - started:6.1f} s  {found}", flush=True)
    return failed


def models_in(demo: Path, name: str) -> list[str]:
    """Config and checkpoint of a model that the demo has trained."""
    config, weights = MODELS[name]
    checkpoint = demo / config / weights
    if not checkpoint.is_file():
        sys.exit(f"there is no {checkpoint}: `make demo` trains it")
    return [str(demo / config / f"{config}.py"), str(checkpoint)]


def find_chromium() -> str:
    """The browser, which is installed if it is not there and this is root."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {"stdout": subprocess.DEVNULL, "check": True}
        subprocess.run(["apt-get", "update"], **quiet)
        subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", "chromium"], **quiet)
        found = shutil.which("chromium")
    if found is None:
        sys.exit("there is no Chromium here: apt-get install chromium")
    return found


@contextmanager
def served(words: list[str], files: Path) -> Iterator[Path]:
    """The page's server; the record of what it sends and calls."""
    record, log = files / "record", files / "server.log"
    record.write_bytes(b"")
    command = [
        sys.executable,
        "-W",
        "ignore",
        str(Path(__file__).with_name("serve.py")),
        str(record),
    ]
    with log.open("w") as out:
        server = subprocess.Popen(
            [*command, *words], stdout=out, stderr=subprocess.STDOUT, cwd=files
        )
    try:
        wait_for(server, log)
        yield record
    finally:
        server.send_signal(signal.SIGINT)
        code = server.wait(timeout=30)
        said = log.read_text()
        if code != 130 or "Traceback" in said:
            print(f"the server ended with {code}:\n{said}")


def wait_for(server: Any, log: Path) -> None:
    """Until the server answers."""
    for _ in range(120):
        if server.poll() is not None:
            sys.exit(f"the server did not start:\n{log.read_text()}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/config", timeout=1).read()
            return
        except OSError:
            time.sleep(1)
    sys.exit(f"the server did not answer:\n{log.read_text()}")


if __name__ == "__main__":
    main()
