"""Check a data set before training on it, convert or split one, and say how to get COCO and ADE20K.

    python tools/prepare_data.py download coco
    python tools/prepare_data.py download ade20k --root data/ade
    python tools/prepare_data.py check --format coco --ann train.json --images photos
    python tools/prepare_data.py check --format ade20k --root /data/streets --classes classes.txt
    python tools/prepare_data.py check --format coco --ann train.json --images photos \\
        --report faults.json --sheet faults.jpg --fix cleaned
    python tools/prepare_data.py convert --from yolo --root /data/birds --to coco --out /data/coco
    python tools/prepare_data.py split --format coco --ann all.json --val 0.2 --out parts

``download`` prints the commands to run. ``convert`` and ``split`` change no file that is there. The
check exits with 0 if there are no faults, 1 if there are, 2 if the command line is wrong; warnings
alone are no fault.
"""

import argparse
import os
import shlex
import sys
import time
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from mmengine_agent.command_names import as_called
from mmengine_agent.data.check import CheckedSet, Place, text, write_report
from mmengine_agent.data.convert import changes, next_steps, read_set
from mmengine_agent.data.formats import FORMATS
from mmengine_agent.data.sheet import SUFFIXES, write_sheet
from mmengine_agent.data.user_data import read_class_names
from mmengine_agent.errors import UserError
from mmengine_agent.files import atomic_folder

Parser = argparse.ArgumentParser
# by --format: whose ``data.check`` and ``data.convert`` know it; mmdet or mmseg may be there alone
PACKAGES = {"coco": "mmdet_agent", "ade20k": "mmseg_agent"}
# by --format: splits in the standard layout, their annotations and images
LAYOUTS = {
    "coco": [
        Place(f"{split}2017", Path(f"annotations/instances_{split}2017.json"), Path(f"{split}2017"))
        for split in ("train", "val")
    ],
    "ade20k": [
        Place(split, Path("annotations", split), Path("images", split))
        for split in ("training", "validation")
    ],
}
# by name: the default folder, the root to check within it, and the archives
COCO = "http://images.cocodataset.org"
DOWNLOADS = {
    "coco": (
        "data/coco",
        "",
        [
            f"{COCO}/annotations/annotations_trainval2017.zip",
            f"{COCO}/zips/val2017.zip",
            f"{COCO}/zips/train2017.zip",
        ],
    ),
    "ade20k": (
        "data/ade",
        "ADEChallengeData2016",
        ["http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip"],
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; the check ends with its exit status."""
    parser = Parser(
        description=as_called(__doc__ or ""), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="download|check|convert|split"
    )
    download = commands.add_parser("download", help="print commands that get COCO or ADE20K")
    download.add_argument("name", choices=list(DOWNLOADS), help="COCO: 20 GB, ADE20K: 1 GB")
    for name in DOWNLOADS:  # commands of earlier versions
        commands.add_parser(name).set_defaults(command="download", name=name)
    for each in ("download", *DOWNLOADS):
        text = "where to (default: data/coco, data/ade)"
        commands.choices[each].add_argument("--root", metavar="DIR", help=text)
    checker = commands.add_parser("check", help="check a COCO- or ADE20K-like data set")
    add_check(checker)
    add_convert(commands.add_parser("convert", help="write YOLO, VOC, ... as COCO or label maps"))
    add_split(commands.add_parser("split", help="split a set into training and validation"))
    args = parser.parse_args(argv)
    if args.command == "download":
        print("\n".join(download_commands(args.name, args.root)))
        return
    try:
        if args.command == "check":
            sys.exit(check(args, checker))
        run = convert if args.command == "convert" else split
        print("\n".join(run(args)))
    except OSError as error:
        raise UserError(str(error)) from error


def add_check(parser: Parser) -> None:
    add = parser.add_argument
    add("--format", choices=list(PACKAGES), required=True, help="%(choices)s")
    add("--root", metavar="DIR", help="folder of the data set; alone, it has the standard layout")
    add("--ann", metavar="PATH", help="COCO: annotation JSON; ADE20K: folder of label PNGs")
    add("--images", metavar="DIR", help="folder of images; both are relative to --root")
    text = "ADE20K: number of classes, their names, or a file with a name a line (default: 150)"
    add("--classes", nargs="+", metavar="NAME", help=text)
    text = "ADE20K: the number of the first class (default: 1, with 0 ignored; 255 always is)"
    add("--labels-from", type=int, choices=[0, 1], default=1, help=text)
    text = "ADE20K: a name and its colour, or its number, a line; docs/your_data.md"
    add("--palette", metavar="FILE", help=text)
    add("--fast", action="store_true", help="do not decode images: only headers and end marks")
    workers = min(8, os.cpu_count() or 1)
    add("--workers", type=int, default=workers, metavar="N", help="threads (default: %(default)s)")
    add("--report", type=Path, metavar="FILE.json", help="write what was found as JSON")
    add("--sheet", type=Path, metavar="FILE.jpg", help="draw pictures, those with faults first")
    add("--fix", type=Path, metavar="DIR", help="write a cleaned copy into this new folder")


def add_convert(parser: Parser) -> None:
    add = parser.add_argument
    add("--from", dest="form", choices=list(FORMATS), required=True, help="%(choices)s")
    add("--root", type=Path, metavar="PATH", required=True, help="its folder, YAML or XML file")
    add("--to", choices=list(PACKAGES), required=True, help="%(choices)s")
    add("--out", type=Path, metavar="DIR", required=True, help="new or empty folder to write to")
    text = "carry these classes, in this order: names, or a file with a name a line (default: all)"
    add("--classes", nargs="+", metavar="NAME", help=text)
    text = "ADE20K: make pixels of no object a class of this name (default: they are ignored)"
    add("--background", metavar="NAME", help=text)


def add_split(parser: Parser) -> None:
    add = parser.add_argument
    add("--format", choices=list(PACKAGES), required=True, help="%(choices)s")
    text = "COCO: annotation JSON; ADE20K: folder of label PNGs"
    add("--ann", type=Path, metavar="PATH", required=True, help=text)
    add("--images", type=Path, metavar="DIR", help="ADE20K: folder of images")
    add("--out", type=Path, metavar="DIR", required=True, help="new or empty folder to write to")
    add("--val", type=float, default=0.2, metavar="SHARE", help="(default: %(default)s)")
    add("--seed", type=int, default=0, help="another one chooses others (default: %(default)s)")
    text = "images of one group, such as frames of a video, stay together: a regular expression"
    add("--group-by", metavar="REGEX", help=f"{text} whose first (group) names it in file names")


def download_commands(name: str, root: str | None = None) -> list[str]:
    """Commands of a shell that download, unpack and check a data set.

    Run again they go on where they stopped, and nothing that exists is overwritten.
    """
    folder, inner, archives = DOWNLOADS[name]
    folder = root or folder
    commands = [f"mkdir -p {shlex.quote(folder)} && cd {shlex.quote(folder)}"]
    for address in archives:
        commands.append(f"curl -f -C - -L -O {address}")
        commands.append(f"unzip -n -q {address.rpartition('/')[2]}")
    where = shlex.quote(str(Path(folder, inner)))
    return [*commands, "cd -", f"python tools/prepare_data.py check --format {name} --root {where}"]


# ---- convert and split ----


def convert(args: argparse.Namespace) -> list[str]:
    """Write a set in another format as COCO files or label maps; what to print."""
    require_empty(args.out)
    writer = import_module(f"{PACKAGES[args.to]}.data.convert")
    if args.to == "ade20k" and args.form in writer.MAP_SETS:
        if args.classes or args.background:
            raise UserError(f"--classes and --background are not for label maps of {args.form}")
        with atomic_folder(args.out) as folder:
            lines = writer.convert_maps(args.form, args.root, folder)
        return [*lines, *next_steps(args.to, args.root, args.out)]
    source = read_set(args.form, args.root, read_class_names(args.classes))
    with atomic_folder(args.out) as folder:
        lines = writer.write_set(source, folder, args.background)
    classes = f"{len(source.names)} classes: {', '.join(source.names)}"
    return [*changes(source.notes), classes, *lines, *next_steps(args.to, source.root, args.out)]


def split(args: argparse.Namespace) -> list[str]:
    """Split a set into training and validation; what to print."""
    require_empty(args.out)
    if (args.images is None) == (args.format == "ade20k"):
        raise UserError("--images names the folder of images, for --format ade20k alone")
    writer = import_module(f"{PACKAGES[args.format]}.data.convert")
    annotated = [args.ann] if args.format == "coco" else [args.images, args.ann]
    with atomic_folder(args.out) as folder:
        lines = writer.split_set(*annotated, folder, args.val, args.seed, args.group_by)
    return [*lines, *next_steps(args.format, None, args.out)]


def require_empty(folder: Path) -> None:
    """Raise UserError if a folder to write to has something in it."""
    if is_taken(folder):
        raise UserError(f"--out: {folder} is not empty; name a folder that is new or empty")


def is_taken(folder: Path) -> bool:
    """Whether there is a file of that name, or a folder with something in it."""
    return folder.is_file() or (folder.is_dir() and any(folder.iterdir()))


# ---- check ----


def check(args: argparse.Namespace, parser: Parser) -> int:
    """Check the sets that the arguments name; the exit status."""
    require_outputs(args, parser)
    places, started = find_places(args, parser), time.time()
    warnings.filterwarnings("ignore", module="PIL")  # of unusual tags, which stop nothing
    check_set = import_module(f"{PACKAGES[args.format]}.data.check").check_set
    more = {}
    if args.format == "ade20k":
        more = {"first": args.labels_from, "palette": args.palette}
        more["names"] = class_names(args.classes, args.labels_from, parser)
    sets: list[CheckedSet] = [check_set(each, args.workers, args.fast, **more) for each in places]
    print("\n".join(map(text, sets)))
    if args.report:
        write_report(args.report, sets, args.format, time.time() - started)
    if args.sheet:
        write_sheet(args.sheet, sets)
    if args.fix:
        with atomic_folder(args.fix) as folder:
            done = [found.write_clean(folder) for found in sets]
        print("\n".join(f"cleaned copy in {args.fix}, kept of {line}" for line in done))
    return 0 if all(found.clean for found in sets) else 1


def require_outputs(args: argparse.Namespace, parser: Parser) -> None:
    """End with a usage error if something could not be written after all the work."""
    if args.fix and is_taken(args.fix):
        parser.error(f"--fix: {args.fix} is not empty; name a folder that is new or empty")
    if args.sheet and args.sheet.suffix.lower() not in SUFFIXES:
        parser.error(f"--sheet takes a file ending in {' or '.join(SUFFIXES)}, got {args.sheet}")
    if args.workers < 1:
        parser.error(f"--workers must be 1 or more, not {args.workers}")
    for flag, given in (("--classes", args.classes), ("--palette", args.palette)):
        if given and args.format == "coco":
            parser.error(f"{flag} is for ade20k; COCO files name their classes")
    if args.palette and args.classes:
        parser.error("--palette names the classes: leave --classes out")


def find_places(args: argparse.Namespace, parser: Parser) -> list[Place]:
    """The sets to check: the one of --ann and --images, or those of the standard layout."""
    if bool(args.ann) != bool(args.images) or not (args.ann or args.root):
        parser.error("give --ann and --images, or --root alone for the standard layout")
    root, every = Path(args.root or ""), LAYOUTS[args.format]
    if args.ann:
        name = Path(args.ann).stem if args.format == "coco" else Path(args.images).name
        every = [Place(name, Path(args.ann), Path(args.images))]
    every = [Place(name, root / ann, root / images) for name, ann, images in every]
    places = [place for place in every if place.ann.exists() or place.images.exists()] or every
    for _, ann, images in places:
        found = ann.is_file() if args.format == "coco" else ann.is_dir()
        missing = [str(ann)] * (not found) + [str(images)] * (not images.is_dir())
        if missing:
            parser.error(f"no data: there is no {' and no '.join(missing)} (from {Path.cwd()})")
    return places


def class_names(classes: list[str] | None, first: int, parser: Parser) -> list[str]:
    """The names of the classes: given, in a file, or 'class 1', ... of a number of classes."""
    if classes is None or (len(classes) == 1 and classes[0].isdigit()):
        count = int(classes[0] if classes else 150)
        return [f"class {number}" for number in range(first, first + count)]
    try:
        return list(read_class_names(classes))
    except UserError as error:
        parser.error(str(error))
