"""Test a checkpoint: box and mask mAP of a detector, mIoU of a segmentor.

    python tools/test.py CONFIG work_dirs/NAME/epoch_12.pth --show-dir pictures
    python tools/test.py CONFIG model.onnx                  # what tools/export.py has written

The metrics are printed and written to <work dir>/metrics.json; evaluation.json next to it has what
tools/report.py shows. Several GPUs, or several CPU processes: bash tools/dist_test.sh CONFIG
CHECKPOINT GPUS [flags].
"""

import argparse

from mmengine_agent.run.plain_flags import add_plain_flags
from mmengine_agent.run.setup import add_common_flags, make_parser
from mmengine_agent.run.test import test


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Everything that the command takes."""
    add = parser.add_argument
    add("config", help="a name of `agent-attention configs`, or a file")
    add("checkpoint", help="checkpoint file, or an exported .onnx")
    add("--out", metavar="FILE.pkl", help="write the predictions to this file")
    add("--show-dir", metavar="DIR", help="draw predictions next to the truth")
    text = "test-time augmentation: the config's, or three scales, each mirrored too"
    add("--tta", action="store_true", help=text)
    add_plain_flags(parser, training=False)
    add_common_flags(parser)


def main() -> None:
    parser = make_parser(__doc__)
    add_flags(parser)
    test(parser.parse_args())
