"""Train a detector or a segmentor.

    python tools/train.py configs/agent_pvt_maskrcnn.py
    python tools/train.py configs/agent_pvt_maskrcnn.py --find-lr    # look for a learning rate
    python tools/train.py configs/agent_pvt_maskrcnn.py --data-root /data/mine \\
        --train-ann train.json --val-ann val.json --train-images images --val-images images

Several GPUs, or several CPU processes: bash tools/dist_train.sh CONFIG GPUS [flags].

SIGTERM or Ctrl-C saves and stops with exit code 75; the same command with --resume goes on, with
the results of a run that was never stopped (docs/stopping_and_going_on.md).
"""

import argparse

from mmengine_agent.run.flags import add_training_flags
from mmengine_agent.run.plain_flags import add_plain_flags
from mmengine_agent.run.setup import add_common_flags, make_parser
from mmengine_agent.run.train import train


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Everything that the command takes."""
    add = parser.add_argument
    add("config", help="a name of `agent-attention configs`, or a file")
    text = "go on from PATH, or from the newest whole checkpoint of the work directory, if any"
    add("--resume", nargs="?", const="auto", metavar="PATH", help=text)
    add_plain_flags(parser, training=True)
    add_training_flags(parser)
    add_common_flags(parser, training=True)


def main() -> None:
    parser = make_parser(__doc__)
    add_flags(parser)
    train(parser.parse_args())
