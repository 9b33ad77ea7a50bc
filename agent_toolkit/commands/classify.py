"""Classify with a published ImageNet file: top-1 and top-5 on ImageNet, or classes of pictures.

    python tools/classify.py checkpoints/agent_pvt_t.pth --imagenet data/imagenet
    python tools/classify.py checkpoints/agent_pvt_t.pth photo.jpg --classes classes.txt

Takes the files of the authors' classifiers, whose heads are in them, and evaluates as they do: the
picture squashed to a square, and a crop of its centre. --imagenet takes the validation set sorted
into a folder for each class, or the folder that has it as val. --classes is a text file with a line
for each class, in the order of labels: a name, or the name of its folder and then words.
"""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from agent_attention.weights.classifier import Classifier
from agent_attention.weights.recognise import looks_like
from mmengine_agent.classify import Pictures, classify, find_labelled, load_classifier, score
from mmengine_agent.data.user_data import read_class_names
from mmengine_agent.errors import UserError
from mmengine_agent.files import write_file
from mmengine_agent.predict.model import choose_device
from mmengine_agent.run.setup import make_parser


def main() -> None:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("checkpoint", help="published ImageNet file")
    add("images", nargs="*", metavar="IMAGE", help="pictures to classify")
    add("--imagenet", metavar="DIR", help="folder of class folders to score on")
    add("--classes", nargs=1, metavar="FILE.txt", help="class names, a line each")
    add("--batch-size", type=int, default=32, metavar="N", help="%(default)s")
    add("--workers", type=int, default=4, metavar="N", help="processes that read; %(default)s")
    add("--device", default="auto", help="cpu, cuda, cuda:1; default: a GPU if any")
    add("--json", metavar="FILE", help="write what is found to this file too")
    args = parser.parse_args()
    require_sense(args)
    model = load_classifier(args.checkpoint).to(choose_device(args.device))
    report = {"checkpoint": args.checkpoint, "model": looks_like(model.backbone.state_dict())}
    print(f"{args.checkpoint} looks like {report['model']}", flush=True)
    report |= run(model, args)
    if args.json:
        try:
            write_file(Path(args.json), json.dumps(report, indent=2) + "\n")
        except OSError as error:
            raise UserError(f"--json {args.json}: cannot write there: {error.strerror}") from error


def require_sense(args: Namespace) -> None:
    """Raise UserError for flags that make no sense, before anything is loaded."""
    if bool(args.images) == bool(args.imagenet):
        raise UserError("give pictures to classify, or --imagenet DIR to score on, one of them")
    if args.batch_size < 1 or args.workers < 0:
        given = f"got {args.batch_size} and {args.workers}"
        raise UserError(f"--batch-size must be at least 1 and --workers at least 0, {given}")


def run(model: Classifier, args: Namespace) -> dict[str, Any]:
    """Score or classify, print it, and give it for the report.

    Raises:
        UserError: if the names are not as many as the classes, or a picture cannot be read.
    """
    names, count = read_class_names(args.classes), model.head.out_features
    if args.classes and len(names) != count:
        raise UserError(f"--classes: {len(names)} names, and the model has {count} classes")
    if args.imagenet:
        paths, labels = find_labelled(Path(args.imagenet), names, count)
        found = score(model, Pictures(paths, labels, model), args.batch_size, args.workers)
        print("top-1 {top1:.3f}, top-5 {top5:.3f} of {images} images".format(**found))
        return found
    pictures = {path: classify(model, Path(path), names) for path in args.images}
    for path, best in pictures.items():
        print(path)
        for each in best:
            print(f"  {100 * each['probability']:6.2f} %  {each['name']}")
    return {"pictures": pictures}
