"""Commands of the pages: the tools take them, tests run them, or a comment says what they need.

A command counts as run if a test drives its script with each of its flags. What the tests have not
(data sets, GPUs, the network, published files) must stand behind a comment that says "needs".
"""

import argparse
import importlib
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pages import COMMANDS, PROGRAMS, ROOT, Command, blocks, run

from mmengine_agent.run.setup import read_config

PLACEHOLDER = re.compile(r"[A-Z]{2}|[*…]|/data/")  # CONFIG, DIR, photos/*.jpg, the reader's folders
OWN_DATA = {  # flags of the trainings that test_docs_run.py begins, and of test_plain_flags.py
    *("--data-root", "--train-ann", "--train-images", "--val-ann", "--val-images"),
    *("--classes", "--work-dir", "--epochs", "--iters", "--image-size"),
    *("--batch-size", "--lr", "--workers", "--seed", "--device", "--log-to"),
}
RECIPES = re.compile(r"configs/(agent_\w+|flatten)(/|\.py)")  # of COCO and ADE20K

each_command = pytest.mark.parametrize(
    "command", COMMANDS, ids=lambda c: f"{c.where} {c.words[-1]}"
)


class Parsed(Exception):
    """The arguments, taken out of a tool before it does anything."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments


def test_there_are_commands_in_most_pages() -> None:
    assert len(COMMANDS) > 60
    assert len({command.where.split(":")[0] for command in COMMANDS}) >= 10


def test_no_other_block_looks_like_a_command() -> None:
    for block in blocks():
        assert block.language in ("bash", "python", "text"), block
        if block.language == "text":
            for line in block.code.splitlines():
                assert line.partition(" ")[0] not in (*PROGRAMS, "$", "sudo"), block
                assert not re.search(r"^\S+\.(py|sh)\b| --\w", line), block


def test_what_a_command_needs_is_seen_without_scrolling() -> None:
    for block in blocks():
        for line in block.code.splitlines():
            assert line.find("# needs") < 60, (block.where, line)


def test_bash_takes_each_block() -> None:
    for block in blocks():
        if block.language == "bash":
            done = subprocess.run(["bash", "-n"], input=block.code, capture_output=True, text=True)
            assert done.returncode == 0, (block, done.stderr)


@each_command
def test_a_command_is_run_by_a_test_or_says_what_it_needs(command: Command) -> None:
    program, *arguments = command.words
    assert program in PROGRAMS, command
    if program in ("pip", "mim", "curl", "git", "docker"):
        assert "network" in command.needs, command
    for path in arguments:
        if re.match(r"(configs|tools|benchmarks|requirements|docs)/", path):
            assert PLACEHOLDER.search(path) or (ROOT / path).is_file(), command
    if program == "make":
        targets = {word for word in arguments if "=" not in word}
        assert targets <= set(re.findall(r"(?m)^(\w+):", (ROOT / "Makefile").read_text())), command
    if arguments[0].endswith((".py", ".sh")):
        assert lacking(arguments) is None or command.needs, (lacking(arguments), command)
        script, rest = script_of(arguments)
        if script.startswith("$MM"):  # a tool of mmdet or mmseg
            package = importlib.import_module(script[1:].split("/")[0].lower())
            assert Path(package.__path__[0], ".mim/tools", *script.split("/")[1:]).is_file(), script
        if script.startswith(("tools/", "benchmarks/")) and script != "tools/demo.py":
            check_arguments(script, rest)
            assert command.needs or not untested(script, rest), (untested(script, rest), command)


def lacking(arguments: list[str]) -> str | None:
    """What a tool needs, by its arguments, that no test has."""
    text = " ".join(arguments)
    if "cuda" in text:
        return "a GPU"
    reads_data = re.search(r"/(dist_|slurm_)?(train|test)\.(py|sh)", text) and RECIPES.search(text)
    return "COCO or ADE20K" if reads_data and "--data-root" not in arguments else None


def script_of(arguments: list[str]) -> tuple[str, list[str]]:
    """The Python script of a command and its arguments; the launchers take away their own."""
    script, *rest = arguments
    launched = {"tools/dist_train.sh": 1, "tools/dist_test.sh": 2}  # where the number of GPUs is
    if script in launched:
        assert rest.pop(launched[script]).isdigit() or rest
    if script.startswith("tools/slurm_"):
        rest = rest[2:]  # the partition and the job's name
    script = re.sub(r"(dist|slurm)_(\w+)\.sh", r"\2.py", script)
    return script, rest


def check_arguments(script: str, arguments: list[str]) -> None:
    """The script takes the arguments, and the config has the settings."""
    found = parse(script, arguments)
    config, settings = getattr(found, "config", None), getattr(found, "cfg_options", None)
    if config and settings and (ROOT / config).is_file():
        check_settings(ROOT / config, settings)


def untested(script: str, arguments: list[str]) -> set[str]:
    """The flags that no test gives the script, or the script itself."""
    drivers = "\n".join(text for text in texts() if re.search(driven(script), text))
    flags = {word for word in arguments if re.match(r"--[a-z]", word)} - OWN_DATA
    missing = {flag for flag in flags if not re.search(rf"{flag}(?![\w-])", drivers)}
    return missing if drivers else {script}


def driven(script: str) -> str:
    """What stands in the tests that run a script."""
    name = Path(script).stem
    return rf"(?m)^import {name}\b| as {name}$|[\"/]{re.escape(Path(script).name)}\b"


@cache
def texts() -> list[str]:
    """The other tests and their helpers."""
    others = (path for path in Path(__file__).parent.glob("*.py") if path != Path(__file__))
    return [path.read_text() for path in others]


def parse(script: str, arguments: list[str]) -> argparse.Namespace:
    """The arguments as the script's own parser reads them."""
    real = argparse.ArgumentParser.parse_args

    def stop(parser: Any, *given: Any, **named: Any) -> None:
        raise Parsed(real(parser, *given, **named))

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Parsed) as parsed:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        run(script, arguments, patch)
    return parsed.value.arguments


def check_settings(config: Path, settings: dict[str, Any]) -> None:
    """What --cfg-options changes is in the config: another name would be added without a word."""
    cfg: Any = read_config(str(config))
    for key in settings:
        *parents, last = key.split(".")
        node = cfg
        for name in parents:
            node = node[int(name) if name.isdigit() else name]
        assert last in node, (config, key)
