"""The Dockerfile takes files that are there, in layers that a change of ours leaves alone."""

import re
import subprocess
import sys

import pytest
from dockerfile import ROOT, State, read_copy, read_stages, sent

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # which pytest brings there

STAGES = read_stages()
RUNS = [(stage, step) for stage in STAGES for step in stage.steps if step.word == "RUN"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_wheel_can_be_built_of_what_docker_sees() -> None:
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    wanted = {*wheel["packages"], *wheel["force-include"], "pyproject.toml", "hatch_build.py"}
    assert {*wanted, "README.md", "LICENSE", "requirements"} == {*sent()}
    assert all((ROOT / name).exists() for name in sent())


def test_lines_take_files_and_stages_that_are_there() -> None:
    known: list[str] = []
    for stage in STAGES:
        assert stage.base in known or re.fullmatch(r"debian:\w+-slim", stage.base)
        for step in stage.steps:
            if step.word == "COPY":
                copy = read_copy(step.text)
                if copy.stage is None:
                    assert all(source.split("/")[0] in (".", *sent()) for source in copy.sources)
                assert copy.stage in (None, *known)
        known.append(stage.name)


@pytest.mark.parametrize(("stage", "step"), RUNS, ids=lambda each: getattr(each, "name", ""))
def test_the_shell_takes_each_line(stage: object, step: tuple[str, str]) -> None:
    done = subprocess.run(["sh", "-n"], input=step[1], capture_output=True, text=True)
    assert done.returncode == 0, (step, done.stderr)


def test_openmmlab_stands_before_the_source() -> None:
    """So that a change of the source compiles no mmcv."""
    (stage,) = [stage for stage in STAGES if any("openmmlab.txt" in s.text for s in stage.steps)]
    copies = [read_copy(step.text) for step in stage.steps if step.word == "COPY"]
    taken = {source for copy in copies for source in copy.sources}
    assert all(re.fullmatch(r"requirements/\w+\.txt", source) for source in taken)
    assert all((ROOT / source).is_file() for source in taken)
    last = [read_copy(step.text) for step in STAGES[-1].steps if step.word == "COPY"]
    assert [copy.stage for copy in last] == [stage.name, "wheel"]


def test_the_image_runs_the_command_as_a_user_without_rights() -> None:
    state = State({})
    for step in STAGES[-1].steps:
        state.apply(step, {}, {})
    assert state.entry[0] in PROJECT["project"]["scripts"]
    assert state.user not in ("root", "0") and state.folder == "/work"
