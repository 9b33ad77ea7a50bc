"""Reads the part of the Dockerfile's language that ours is written in."""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"


class Step(NamedTuple):
    """A line: RUN, COPY, ENV, ARG, WORKDIR, USER, ENTRYPOINT or CMD, and what it says."""

    word: str
    text: str


@dataclass
class Stage:
    """What stands between two lines FROM; the last stage is the image."""

    name: str
    base: str  # an earlier stage, or an image
    steps: list[Step] = field(default_factory=list)


def read_stages(path: Path = DOCKERFILE) -> list[Stage]:
    """The stages of a Dockerfile, in order."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    stages: list[Stage] = []
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        word, _, text = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = text.partition(" AS ")
            stages.append(Stage(name or "image", base))
        elif word:
            stages[-1].steps.append(Step(word, text))
    return stages


@dataclass
class State:
    """What the lines of a stage have set so far, and the stages built on it begin with."""

    env: dict[str, str]
    folder: str = "/"
    user: str = "root"
    entry: tuple[str, ...] = ()
    command: tuple[str, ...] = ()

    def apply(self, step: Step, given: Mapping[str, str], arguments: dict[str, str]) -> None:
        """Carry out a line that changes nothing but settings.

        Args:
            step: the line.
            given: build arguments that the user gives.
            arguments: those of the stage, which ARG adds to.
        """
        if step.word == "ENV":
            for word in shlex.split(step.text):
                name, _, value = word.partition("=")
                self.env[name] = Template(value).safe_substitute(self.env)
        elif step.word == "ARG":
            name, _, value = "".join(shlex.split(step.text)).partition("=")
            arguments[name] = given.get(name, value)
        elif step.word == "WORKDIR":
            self.folder = step.text
        elif step.word == "USER":
            self.user = step.text
        elif step.word == "ENTRYPOINT":
            self.entry = tuple(json.loads(step.text))
        elif step.word == "CMD":
            self.command = tuple(json.loads(step.text))


class Copy(NamedTuple):
    """COPY: from a stage or, if that is None, files of the repository or (".") all of it."""

    stage: str | None
    sources: tuple[str, ...]
    target: str


def read_copy(text: str) -> Copy:
    """What a line COPY says."""
    *words, target = text.split()
    stage = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else None
    return Copy(stage, tuple(words), target)


def sent() -> list[str]:
    """Names in the repository's root that .dockerignore lets Docker see."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line[1:] for line in lines if line.startswith("!")]
