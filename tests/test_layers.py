"""Which package may import which: arrows go one way, and nothing hides inside a function.

tools, benchmarks -> agent_toolkit -> mmdet_agent, mmseg_agent -> mmengine_agent
-> agent_attention (torch alone).
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MM = {"mmengine", "mmcv", "mmdet", "mmseg"}
OURS = ("agent_attention", "agent_toolkit", "mmengine_agent", "mmdet_agent", "mmseg_agent")
NEVER = {  # top-level names that a package imports nowhere, not even inside a function
    "agent_attention": MM | {"pycocotools", *OURS[1:]},
    "mmengine_agent": {"mmdet", "mmseg", "pycocotools", "mmdet_agent", "mmseg_agent", OURS[1]},
    "mmdet_agent": {"mmseg", "mmseg_agent", OURS[1]},
    "mmseg_agent": {"mmdet", "mmdet_agent", "pycocotools", OURS[1]},
}


def imported(tree: ast.AST, path: Path) -> Iterator[str]:
    """The full name of each module that a file imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("package", NEVER)
def test_arrows_go_one_way(package: str) -> None:
    for path in files(package):
        for name in imported(ast.parse(path.read_text()), path):
            assert name.partition(".")[0] not in NEVER[package], f"{path} imports {name}"


@pytest.mark.parametrize("package", OURS)
def test_no_function_imports_a_module_of_ours(package: str) -> None:
    for path in files(package):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                ours = [each for each in imported(node, path) if each.startswith(OURS)]
                assert not ours, f"{path}:{node.lineno} imports {ours}"


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Packages are the modules in them: what a package's own ``__init__`` lists counts too."""
    paths = {module_of(path): path for package in OURS for path in files(package)}
    arrows = {}
    for name, path in paths.items():
        found = {each for each in imported(ast.parse(path.read_text()), path) if each in paths}
        # of `from package import module`, the module alone
        arrows[name] = {
            each for each in found if not any(other.startswith(f"{each}.") for other in found)
        }
    done: set[str] = set()

    def walk(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above[above.index(name) :], name])
        if name not in done:
            for each in arrows[name] - {name}:
                walk(each, (*above, name))
            done.add(name)

    for name in paths:
        walk(name, ())


def test_no_package_is_half_of_the_whole() -> None:
    folders = (*OURS, "tools")
    lines = [sum(len(path.read_text().splitlines()) for path in files(each)) for each in folders]
    assert max(lines) <= 0.45 * sum(lines), dict(zip(folders, lines, strict=True))
