"""torchrun, with its arguments; a signal that stops it is no failure, and prints no traceback.

    python -m mmengine_agent.run.launch --standalone --nproc-per-node 2 tools/train.py CONFIG

Exit code 128 + the number of the signal, as a shell says it.
"""

import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.run import main


def launch() -> None:
    """Run torchrun until its processes end."""
    try:
        main()
    except SignalException as stop:
        sys.exit(128 + stop.sigval)


if __name__ == "__main__":
    launch()
