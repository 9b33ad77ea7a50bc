"""The console command ``agent-attention``: each module here is one of its commands, and a tool.

Only the standard library is imported until a command is chosen, so that help comes at once, and
without torch or OpenMMLab.
"""

import sys
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from typing import NoReturn

from agent_attention import __version__
from mmengine_agent.command_names import COMMANDS, NAME

_OURS = ("agent_attention", "agent_toolkit", "mmengine_agent", "mmdet_agent", "mmseg_agent")


def main() -> NoReturn:
    """Run the command that the command line names; exits with its code, or with 2."""
    name, *rest = sys.argv[1:] or [""]
    if name in ("-h", "--help", "--version"):
        print(overview() if name != "--version" else f"{NAME} {__version__}")
        sys.exit(0)
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, 1)
        guess = f"did you mean {near[0]}? " if near else ""
        what = f"there is no command {name!r}" if name else "no command was given"
        print(f"error: {what}; {guess}`{NAME} --help` lists them", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"{NAME} {name}", *rest]
    run(name)


def run(name: str) -> NoReturn:
    """Run a command on the arguments of this process; exits with its code."""
    try:
        command = import_module(f"{__name__}.{name}")
        if name == "configs":
            sys.exit(command.main())
        run_tool: Callable[[Callable[[], None]], NoReturn]
        run_tool = import_module("mmengine_agent.run.exit").run_tool
    except ModuleNotFoundError as error:
        if str(error.name).startswith(_OURS):
            raise
        print(
            f"error: {NAME} {name} needs {error.name}: pip install 'agent-attention[openmmlab]' "
            "(docs/installation.md says how mmcv is built)",
            file=sys.stderr,
        )
        sys.exit(1)
    run_tool(command.main)


def overview() -> str:
    """What there is, a line each."""
    lines = [f"  {name:<11}{text}" for name, (text, _) in COMMANDS.items()]
    return "\n".join(
        [f"usage: {NAME} COMMAND [ARGUMENTS]", "", *lines, "", f"{NAME} COMMAND --help says more."]
    )
