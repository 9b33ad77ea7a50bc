"""Every fault of this folder, one after the other, and what became of it, as a table.

    make faults                                   # half an hour on two cores
    python tests/faults/table.py kills checkpoints

Each script prints its rows `| fault | wanted | found |`; its own --help tells what it does. Exit
code 1 if a promise was broken.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
# name: what is run
RUNS = {
    "kills": "kills.py --kills 200 --full 20",
    "resume": "resume.py",
    "processes": "processes.py",
    "checkpoints": "checkpoints.py",
    "annotations": "annotations.py",
    "long-run": "long_run.py",
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("only", nargs="*", metavar="NAME", help=f"of {', '.join(RUNS)}")
    names = parser.parse_args().only or list(RUNS)
    for name in names:
        if name not in RUNS:
            parser.error(f"there is no {name!r}; there are {', '.join(RUNS)}")
    print("| fault | wanted | found |\n|---|---|---|", flush=True)
    return int(any([not passes(name) for name in names]))  # all of them, whatever fails


def passes(name: str) -> bool:
    """Run one script, its rows on stdout and the rest on stderr; whether every promise was kept."""
    script, *arguments = RUNS[name].split()
    begun = time.monotonic()
    with subprocess.Popen(
        [sys.executable, str(HERE / script), *arguments], stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            print(line, end="", flush=True, file=sys.stdout if line[:2] == "| " else sys.stderr)
    print(f"{name}: exit {run.returncode}, {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return run.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
