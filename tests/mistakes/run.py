"""Wrong command lines: each ends with one message and exit code 1 or 2, and writes nothing.

    python tests/mistakes/run.py [COUNT] [SEED]

Prints a row a kind of mistake, and each line that ends otherwise; exits with 1 if there is any.
"""

import os
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import command_lines  # noqa: E402


def main() -> None:
    warnings.simplefilter("ignore")
    count, seed = (int(word) for word in (*sys.argv[1:], *("200", "0")[len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make = [sys.executable, str(ROOT / "tools/make_demo_data.py"), str(folder / "demo")]
        subprocess.run([*make, "--train", "4", "--val", "2", "--size", "64"], check=True)
        (folder / "run").mkdir()
        os.chdir(folder / "run")
        command_lines.make_files(Path.cwd(), folder / "demo")
        before = sorted(Path.cwd().iterdir())
        ended: Counter[tuple[str, int]] = Counter()
        wrong = 0
        for line in command_lines.generate(count, seed):
            found = command_lines.call(line)
            ended[" + ".join(sorted(line.slips)), found.code] += 1
            faults = found.faults()
            if sorted(Path.cwd().iterdir()) != before:
                faults.append(f"wrote {set(Path.cwd().iterdir()) - set(before)}")
                before = sorted(Path.cwd().iterdir())
            if faults:
                wrong += 1
                print(f"{', '.join(faults)}: {' '.join(line.words)}\n{found.err[-600:]}\n")
        os.chdir(ROOT)
    for (kind, code), number in sorted(ended.items()):
        print(f"{kind:<48} exit code {code:>3} {number:>4}")
    print(f"{count} command lines, {wrong} did not end with one message and exit code 1 or 2")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
