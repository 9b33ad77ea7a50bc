"""List the configs of this toolkit; every tool takes one by its name.

agent-attention configs
agent-attention configs coco swin              # those that have both words in their path
agent-attention configs demo --paths           # to look into, or to inherit from
"""

import signal
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter

from mmengine_agent.config_names import known_configs


def main() -> None:
    """Print names, or paths; exits with 1 if there is none."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="WORD", help="parts of the path, in any case")
    parser.add_argument("--paths", action="store_true", help="paths in place of names")
    args = parser.parse_args()
    found = [
        path if args.paths else name
        for name, path in known_configs().items()
        if all(word.lower() in str(path).lower() for word in args.words)
    ]
    if not found:
        print(f"error: no config has {' and '.join(args.words)} in its path", file=sys.stderr)
        sys.exit(1)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` may have read enough
    print(*found, sep="\n")
