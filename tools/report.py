"""One HTML file of a work directory: curves, metrics, classes, confusions, predictions.

    python tools/report.py work_dirs/NAME

--help says more; mmengine_agent/report/ does the work.
"""

from functools import partial
from pathlib import Path

from mmengine_agent.report.cli import main
from mmengine_agent.run.exit import run_tool

if __name__ == "__main__":
    run_tool(partial(main, Path(__file__).resolve().parent))
