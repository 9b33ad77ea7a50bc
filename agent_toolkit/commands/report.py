"""Make one HTML file of a work directory: curves, metrics, classes, confusions, predictions.

    python tools/report.py work_dirs/NAME
    python tools/report.py work_dirs/NAME --checkpoint work_dirs/NAME/epoch_12.pth --out mine.html

The curves are of the newest training in the directory; all else is what tools/test.py left there
(metrics.json and evaluation.json). With --checkpoint that file is tested first, with the config in
the directory. The page needs no network and no other file.
"""

from pathlib import Path

from agent_toolkit.api import test
from mmengine_agent.errors import UserError
from mmengine_agent.report.page import write_report
from mmengine_agent.report.workdir import find_config, read_work_dir
from mmengine_agent.run.setup import make_parser


def main() -> None:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("work_dir", type=Path, help="work directory of a training or a test")
    add("--out", type=Path, metavar="FILE.html", help="default: report.html in the work directory")
    add("--checkpoint", type=Path, metavar="FILE", help="test this one first")
    args = parser.parse_args()
    out = args.out or args.work_dir / "report.html"
    read_work_dir(args.work_dir)  # before a test, which takes time
    if args.checkpoint:
        config = find_config(args.work_dir)
        if config is None:
            raise UserError(f"--checkpoint: {args.work_dir} has no config to test it with")
        if not args.checkpoint.is_file():
            raise UserError(f"--checkpoint: there is no {args.checkpoint} (from {Path.cwd()})")
        test(config, args.checkpoint, work_dir=args.work_dir)
    write_report(args.work_dir, out)
