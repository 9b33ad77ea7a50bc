"""Make one HTML file of a work directory: curves, metrics, classes, confusions, predictions.

    python tools/report.py work_dirs/NAME
    python tools/report.py work_dirs/NAME --checkpoint work_dirs/NAME/epoch_12.pth --out mine.html

The curves are of the newest training in the directory; all else is what tools/test.py left there
(metrics.json and evaluation.json). With --checkpoint that file is tested first, with the config in
the directory. The page needs no network and no other file.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from mmengine_agent.errors import UserError
from mmengine_agent.files import write_file
from mmengine_agent.report.page import render
from mmengine_agent.report.workdir import find_config, read_work_dir


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work_dir", type=Path, help="work directory of a training or a test")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.html", help="default: report.html in the work directory"
    )
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="test this one first")
    return parser.parse_args()


def main(tools: Path) -> None:
    """Write the report that the command line asks for; ``tools`` is the folder of test.py.

    Raises:
        UserError: if there is no work directory, it cannot be read, or nothing can be written.
    """
    args = parse_args()
    out = args.out or args.work_dir / "report.html"
    if out.is_dir():
        raise UserError(f"--out: {out} is a folder; name a file in it")
    read_work_dir(args.work_dir)  # what is none is not worth a test
    if args.checkpoint:
        test(tools / "test.py", args.work_dir, args.checkpoint)
    page = render(read_work_dir(args.work_dir))
    try:
        write_file(out, page)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; --out FILE.html") from error
    print(f"report: {out} ({len(page.encode()) / 1e6:.1f} MB)")


def test(tool: Path, work_dir: Path, checkpoint: Path) -> None:
    """Run tools/test.py with the config in the work directory; its output goes to the screen."""
    config = find_config(work_dir)
    if config is None:
        raise UserError(f"--checkpoint: {work_dir} has no config to test it with")
    if not checkpoint.is_file():
        raise UserError(f"--checkpoint: there is no {checkpoint} (from {Path.cwd()})")
    command = [sys.executable, str(tool), str(config), str(checkpoint), "--work-dir", str(work_dir)]
    if subprocess.run(command).returncode:
        raise UserError(f"--checkpoint: {checkpoint} could not be tested, as told above")
