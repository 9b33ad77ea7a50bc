"""The examples run: scripts as they stand, the notebook with less data and in fewer iterations."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import fork_server
import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NOTEBOOK = EXAMPLES / "demo.ipynb"
SMALL = "scenes, tested, side, iterations, place = 4, 4, 64, 2, 'made'"
LARGEST = 400_000  # bytes of the notebook, with its pictures


def run(script: str, *arguments: str, folder: Path) -> str:
    """What a script prints that must have worked."""
    env = {**os.environ, **fork_server.SETTINGS, "PYTHONPATH": str(ROOT)}
    done = fork_server.run([EXAMPLES / script, *arguments], cwd=folder, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_head_of_ones_own_learns(tmp_path: Path) -> None:
    before, after = re.findall(r"IoU \w+: ([\d.]+)", run("own_head.py", folder=tmp_path))
    assert float(after) > max(0.6, float(before) + 0.2)


@pytest.mark.parametrize("name", ["agent_pvt_t", "agent_swin_t"])
def test_features_are_those_that_are_announced(name: str, tmp_path: Path) -> None:
    found = run("features.py", name, folder=tmp_path)
    assert re.findall(r"stride +(\d+):", found) == ["4", "8", "16", "32"]
    channels = re.findall(r"(\d+) channels", found)
    assert f"one vector: (1, {channels[-1]})" in found


def test_a_mixer_of_ones_own_stands_in_a_backbone(tmp_path: Path) -> None:
    found = run("own_mixer.py", folder=tmp_path)
    assert found.count("PoolMixer") == 4 and found.count("AgentAttention") == 4
    assert "without a gradient: none" in found


# ---- the notebook


class ForkedKernel(AsyncKernelManager):
    """A kernel out of the fork server, which spares it the imports."""

    @property
    def kernel_spec(self) -> KernelSpec:
        python = fork_server.interpreter()["PYTHON"]
        return KernelSpec(argv=[python, "-m", "ipykernel_launcher", "-f", "{connection_file}"])


def code(notebook: nbformat.NotebookNode) -> Iterator[nbformat.NotebookNode]:
    return (cell for cell in notebook.cells if cell.cell_type == "code")


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", ())]
    parameters.source = SMALL
    env = {**os.environ, **fork_server.interpreter(), "PYTHONPATH": str(ROOT)}
    client = NotebookClient(notebook, timeout=300, kernel_manager_class=ForkedKernel)
    client.execute(cwd=str(tmp_path), env=env)
    said = [cell for cell in code(notebook) if cell.outputs]
    assert len(said) >= 8
    assert (tmp_path / "made/run/iter_2.pth").is_file()


def test_the_notebook_shows_what_it_did() -> None:
    """Its outputs are kept: those of one run, with small pictures, and no error."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert [cell.execution_count for cell in code(notebook)] == [
        *range(1, 1 + len([*code(notebook)]))
    ]
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    assert all(output.output_type != "error" for output in outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4
    assert NOTEBOOK.stat().st_size < LARGEST
    assert str(Path.home()) not in json.dumps(notebook) and "/tmp/" not in json.dumps(notebook)
