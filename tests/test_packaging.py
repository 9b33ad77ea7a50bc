"""What is installed: the wheel is complete, asks for torch alone, and versions agree everywhere."""

import ast
import re
import subprocess
import sys
from email.message import Message
from email.parser import HeaderParser
from importlib.metadata import packages_distributions
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import agent_attention
from mmengine_agent.versions import SUPPORTED

ROOT = Path(__file__).parents[1]
PACKAGES = ("agent_attention", "agent_toolkit", "mmengine_agent", "mmdet_agent", "mmseg_agent")
FAMILIES = {"maintained": "openmmlab", "upstream": "upstream"}  # and their extras and files
Pins = dict[str, Requirement]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    """The wheel, built from this checkout without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    assert path.name == f"agent_attention-{agent_attention.__version__}-py3-none-any.whl"
    return ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: ZipFile) -> Message:
    """The wheel's METADATA."""
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return HeaderParser().parsestr(wheel.read(name).decode())


@pytest.fixture(scope="module")
def required(metadata: Message) -> list[Requirement]:
    """What pip reads in the wheel's METADATA."""
    return [Requirement(field) for field in metadata.get_all("Requires-Dist", [])]


def of_extra(required: list[Requirement], extra: str) -> Pins:
    """The requirements of an extra beyond those of everybody, by name."""
    return {
        canonicalize_name(each.name): each
        for each in required
        if each.marker and each.marker.evaluate({"extra": extra})
    }


def in_file(name: str) -> Pins:
    """The requirements of a file in requirements/, by name."""
    lines = [line.split("#")[0].strip() for line in read(f"requirements/{name}.txt").splitlines()]
    found = [Requirement(line) for line in lines if line and not line.startswith("-")]
    return {canonicalize_name(each.name): each for each in found}


def read(path: str) -> str:
    return (ROOT / path).read_text()


def texts(family: str) -> Pins:
    """The distributions of a family that error messages name, by name."""
    found = [Requirement(getattr(support, family)) for support in SUPPORTED.values()]
    return {canonicalize_name(each.name): each for each in found}


def pinned(requirement: Requirement) -> Version:
    (only,) = requirement.specifier
    assert only.operator == "=="
    return Version(only.version)


def sources(*folders: str) -> set[str]:
    """Every file below folders of this checkout that Python did not write itself."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT)) for path in found if "__pycache__" not in path.parts}


# ---- the wheel ----


def test_a_package_index_gets_addresses_and_no_dead_link(metadata: Message) -> None:
    assert "Paper, https://arxiv.org/abs/2312.08874" in metadata.get_all("Project-URL", [])
    page = str(metadata.get_payload())
    assert page.startswith("# ") and "model zoo" in page
    links = re.findall(r"\]\(([^)]*)\)", page)
    assert links and all(link.startswith("https://") for link in links)


def test_the_wheel_has_every_module(wheel: ZipFile) -> None:
    modules = sources(*PACKAGES)
    assert {"agent_attention/backbones/pvt.py", "mmdet_agent/__init__.py"} <= modules
    assert modules <= set(wheel.namelist())


def test_the_wheel_has_configs_and_tools_where_openmmlab_looks(wheel: ZipFile) -> None:
    inside = "agent_attention/.mim/"
    names = {name.removeprefix(inside) for name in wheel.namelist() if name.startswith(inside)}
    assert {"configs/agent_pvt_maskrcnn.py", "configs/_base_/ade20k.py", "tools/train.py"} <= names
    assert names == sources("configs", "tools") | {"model-index.yml"}


def test_the_wheel_has_nothing_else(wheel: ZipFile) -> None:
    folders = {name.partition("/")[0] for name in wheel.namelist()}
    metadata = f"agent_attention-{agent_attention.__version__}.dist-info"
    assert folders == {*PACKAGES, metadata}
    assert f"{metadata}/licenses/LICENSE" in wheel.namelist()


def test_openmim_finds_the_folder_of_configs(wheel: ZipFile) -> None:
    """It takes the first line of top_level.txt for the folder of the distribution's name."""
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/top_level.txt")]
    packages = wheel.read(name).decode().split()
    assert packages[0] == "agent_attention" and sorted(packages) == sorted(PACKAGES)


def test_the_wheel_requires_torch_alone(required: list[Requirement]) -> None:
    assert [each.name for each in required if each.marker is None] == ["torch"]


def test_openmmlab_is_an_extra_of_either_family(required: list[Requirement]) -> None:
    for family, extra in FAMILIES.items():
        assert texts(family).keys() <= of_extra(required, extra).keys()
        other = next(name for name in FAMILIES if name != family)
        assert texts(other).keys().isdisjoint(of_extra(required, extra))


def test_what_is_imported_is_declared(required: list[Requirement]) -> None:
    declared = {canonicalize_name(each.name) for each in required}
    brings = packages_distributions()
    for name, file in imports():
        distributions = {canonicalize_name(each) for each in brings.get(name, [name])}
        assert distributions & declared, f"{file} imports {name}, which pyproject.toml lacks"


def test_an_extra_for_openmmlab_brings_what_the_tools_import(required: list[Requirement]) -> None:
    for extra in FAMILIES.values():
        assert of_extra(required, "tools").keys() <= of_extra(required, extra).keys()


def imports() -> set[tuple[str, str]]:
    """Names of other packages that files of ours import, with the files."""
    found = set()
    for file in sources(*PACKAGES, "tools"):
        if file.endswith(".py"):
            for node in ast.walk(ast.parse(read(file))):
                if isinstance(node, ast.Import):
                    found |= {(alias.name.partition(".")[0], file) for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    found.add((node.module.partition(".")[0], file))
    tools = {path.stem for path in (ROOT / "tools").glob("*.py")}
    ours = {*PACKAGES, *tools, *sys.stdlib_module_names}
    return {(name, file) for name, file in found if name not in ours}


# ---- versions ----


@pytest.mark.parametrize("family", FAMILIES)
def test_messages_name_the_versions_that_are_installed(family: str) -> None:
    assert len(texts(family)) == 4
    installed = in_file(FAMILIES[family])
    for name, text in texts(family).items():
        assert pinned(text) == pinned(installed[name])


@pytest.mark.parametrize("family", FAMILIES)
def test_an_extra_begins_at_the_tested_versions(family: str, required: list[Requirement]) -> None:
    extra, installed = of_extra(required, FAMILIES[family]), in_file(FAMILIES[family])
    assert installed.keys() == extra.keys() - (of_extra(required, "tools").keys() - {"filelock"})
    for name, pin in installed.items():
        if not pin.specifier:
            continue  # what mmseg forgets to require, in any version
        assert {each.operator for each in extra[name].specifier} == {">=", "<"}
        assert extra[name].specifier.contains(pinned(pin))
        (first,) = [each.version for each in extra[name].specifier if each.operator == ">="]
        assert Version(first) == pinned(pin)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_extra_allows_no_version_that_is_refused(
    family: str, required: list[Requirement]
) -> None:
    extra = of_extra(required, FAMILIES[family])
    for support in SUPPORTED.values():
        pin = Requirement(getattr(support, family))
        (below,) = [e for e in extra[canonicalize_name(pin.name)].specifier if e.operator == "<"]
        assert Version(support.first) <= pinned(pin) < Version(support.below)
        assert Version(below.version) <= Version(support.below)


def test_the_installed_torch_is_one_that_the_wheel_allows(required: list[Requirement]) -> None:
    (torch,) = [each for each in required if each.name == "torch"]
    assert torch.specifier.contains(pinned(in_file("torch")["torch"]))


# ---- continuous integration ----


def test_continuous_integration_runs_the_tests() -> None:
    assert "make test" in read(".ci/run").splitlines()


WORKFLOWS = [*(ROOT / ".github/workflows").glob("*.yml")]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_pin_actions_and_run_what_the_shell_takes(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    assert content["name"] == path.stem and True in content  # YAML reads the key "on" so
    for job in content["jobs"].values():
        assert job["timeout-minutes"] <= 90
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step), step
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/x@v1")), step
            done = subprocess.run(["bash", "-n"], input=step.get("run", ""), text=True)
            assert done.returncode == 0, step


def test_the_workflow_of_pages_builds_them_as_make_does() -> None:
    (command,) = re.findall(r"-m sphinx .* site", read("Makefile"))
    assert command in read(".github/workflows/docs.yml")


@pytest.mark.parametrize(
    "target", ["install", "demo", "test", "check", "docs", "clean", "notebook", "image_steps"]
)
def test_make_has_each_target(target: str) -> None:
    dry = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert dry.returncode == 0, dry.stderr
