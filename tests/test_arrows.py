"""Imports within the core go one way: weights, backbones, mixers, compute, layers."""

import ast
from pathlib import Path

import pytest

CORE = Path(__file__).parents[1] / "agent_attention"
# what each part may import beside itself
ALLOWED: dict[str, set[str]] = {
    "arguments": set(),
    "layers": {"arguments"},
    "compute": {"arguments", "layers"},
    "mixers": {"arguments", "layers", "compute"},
    "backbones": {"arguments", "layers", "compute", "mixers"},
    "weights": {"compute", "backbones"},
    "maps": {"arguments", "compute", "mixers"},
    "runtime": set(),
}


def parts_of(path: Path) -> set[str]:
    """The parts of the core that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("agent_attention"):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name.split(".")[1] for name in names}
    return found


@pytest.mark.parametrize("part", ALLOWED)
def test_a_part_imports_only_what_is_below_it(part: str) -> None:
    files = [CORE / f"{part}.py"] if part not in FOLDERS else (CORE / part).rglob("*.py")
    for path in files:
        assert parts_of(path) <= ALLOWED[part] | {part}, path


FOLDERS = {"compute", "mixers", "backbones", "weights", "runtime"}


def test_only_the_base_of_the_backbones_knows_their_executor() -> None:
    knowing = [path for path in CORE.rglob("*.py") if "import lean" in path.read_text()]
    assert [path.name for path in knowing] == ["base.py"]
    assert (CORE / "backbones" / "base.py").read_text().count("lean.run(") == 1


def test_the_generic_names_no_mixer() -> None:
    for name in ("block", "base"):
        assert "AgentAttention" not in (CORE / "backbones" / f"{name}.py").read_text()


def test_the_method_is_on_one_screen() -> None:
    path = CORE / "mixers" / "agent.py"
    (kind,) = (n for n in ast.parse(path.read_text()).body if isinstance(n, ast.ClassDef))
    (mix,) = (n for n in kind.body if isinstance(n, ast.FunctionDef) and n.name == "mix")
    assert len(path.read_text().splitlines()) <= 120 and len(mix.body) <= 8
