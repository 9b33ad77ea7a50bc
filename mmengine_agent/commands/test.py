"""Test a checkpoint: box and mask mAP of a detector, mIoU of a segmentor.

    python tools/test.py CONFIG work_dirs/NAME/epoch_12.pth --show-dir pictures

The metrics are printed and written to <work dir>/metrics.json; evaluation.json next to it has what
tools/report.py shows. Several GPUs, or several CPU processes: bash tools/dist_test.sh CONFIG
CHECKPOINT GPUS [flags].
"""

import argparse

from mmengine_agent.run.plain_flags import add_plain_flags
from mmengine_agent.run.setup import add_common_flags, make_parser
from mmengine_agent.run.test import test


def parse_args() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("config", help="config file, for example configs/agent_pvt_maskrcnn.py")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("--out", metavar="FILE.pkl", help="write the predictions to this file")
    parser.add_argument("--show-dir", metavar="DIR", help="draw predictions next to the truth")
    parser.add_argument(
        "--tta",
        action="store_true",
        help="test-time augmentation: the config's, or three scales, each mirrored too",
    )
    add_plain_flags(parser, training=False)
    add_common_flags(parser)
    return parser.parse_args()


def main() -> None:
    test(parse_args())
