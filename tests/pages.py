"""What the tests of the pages share: their blocks of code, their commands, and how one is run."""

import contextlib
import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.anchors import anchors_plugin

from mmengine_agent.command_names import COMMANDS as COMMANDS_OF_OURS
from mmengine_agent.command_names import NAME

ROOT = Path(__file__).parents[1]
SITE = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks/README.md", *SITE]
MARKDOWN = MarkdownIt("commonmark").enable("table").use(anchors_plugin, max_level=6)
PROGRAMS = ("python", "bash", "make", "pip", "mim", "source", "export", "git")
PROGRAMS += ("curl", "docker", "unzip", "mkdir", "cd", NAME)


class Block(NamedTuple):
    """A block of code in a page."""

    where: str
    language: str
    code: str


class Command(NamedTuple):
    """A command in a page: its words without comments, and what the comments say it needs."""

    where: str
    words: tuple[str, ...]
    needs: str


@cache
def tokens(page: Path) -> list[Token]:
    return MARKDOWN.parse(page.read_text())


def blocks() -> Iterator[Block]:
    for page in PAGES:
        for token in tokens(page):
            if token.type in ("fence", "code_block") and not token.info.startswith("{"):
                where = f"{page.relative_to(ROOT)}:{token.map[0] + 1}"
                yield Block(where, language(token), token.content)


def language(token: Token) -> str:
    """'python', 'bash' or 'text' of a block, which may not say it."""
    if token.info:
        return token.info
    lines = token.content.replace("\\\n", " ").splitlines()
    first = next((line for line in lines if not line.startswith("#")), "")
    if (without_variables(first.split()) or [""])[0] in PROGRAMS:
        return "bash"
    with contextlib.suppress(SyntaxError, ValueError):
        compile(token.content, "", "exec")
        return "python"
    return "text"


def commands() -> Iterator[Command]:
    for block in blocks():
        if block.language == "bash":
            yield from commands_of(block)


def commands_of(block: Block) -> Iterator[Command]:
    """The commands of a block; a comment on its own line is about all up to an empty one."""
    needed = ""
    for line in block.code.replace("\\\n", " ").splitlines():
        comment = " ".join(re.findall(r"(?:^|\s)# needs (.*)", line))
        words = without_variables(shlex.split(line, comments=True))
        if not words:
            needed = comment
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            yield Command(block.where, tuple(as_tool(words[:end])), comment or needed)
            words = words[end + 1 :]


def as_tool(words: list[str]) -> list[str]:
    """A call of ``agent-attention`` as that of the script that is the same."""
    script = COMMANDS_OF_OURS.get(words[1], ("", None))[1] if words[0] == NAME else None
    return ["python", f"tools/{script}.py", *words[2:]] if script else words


def without_variables(words: list[str]) -> list[str]:
    """A command's words from its program on."""
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    return words


COMMANDS = list(commands())


@cache
def load(script: str) -> ModuleType:
    """A script as a module that is not run; the standard library may have one of its name."""
    spec = importlib.util.spec_from_file_location(f"docs_{Path(script).stem}", ROOT / script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(script: str, arguments: list[str], patch: pytest.MonkeyPatch) -> None:
    """Run a script's main function as the command line does."""
    patch.setattr(sys, "argv", [script, *arguments])
    by_tool = {f"tools/{tool}.py": name for name, (_, tool) in COMMANDS_OF_OURS.items()}
    command = by_tool.get(script)
    module = import_module(f"agent_toolkit.commands.{command}") if command else load(script)
    module.main()
