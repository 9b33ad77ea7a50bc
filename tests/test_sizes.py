"""Small files and small functions."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINES = {"tests": 400}  # of a file, at most; of other folders:
USUAL, OF_A_FUNCTION = 300, 60
FOLDERS = (
    *("agent_attention", "agent_toolkit", "mmengine_agent", "mmdet_agent", "mmseg_agent"),
    *("tools", "benchmarks", "examples", "tests"),
)


@pytest.mark.parametrize("folder", FOLDERS)
def test_files_and_functions_are_small(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    for path in files:
        text = path.read_text()
        assert len(text.splitlines()) <= LINES.get(folder, USUAL), path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                length = node.end_lineno - node.lineno + 1
                assert length <= OF_A_FUNCTION, f"{path}:{node.lineno} {node.name}: {length} lines"
