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

from mmengine_agent.run.exit import run_tool
from mmengine_agent.run.flags import add_training_flags
from mmengine_agent.run.setup import add_common_flags
from mmengine_agent.run.train import train


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="config file, for example configs/agent_pvt_maskrcnn.py")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="PATH",
        help="go on from PATH, or from the newest whole checkpoint of the work directory, if any",
    )
    add_training_flags(parser)
    add_common_flags(parser, training=True)
    return parser.parse_args()


def main() -> None:
    train(parse_args())


if __name__ == "__main__":
    run_tool(main)
