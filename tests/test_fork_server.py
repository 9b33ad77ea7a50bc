"""A child of the fork server is, to whoever looks, a process of its own."""

import os
import signal
import subprocess
import time
from pathlib import Path

import fork_server
import pytest
from stock_cases import OURS


def script(folder: Path, text: str) -> Path:
    path = folder / "script.py"
    path.write_text(text)
    return path


def run(folder: Path, text: str, *arguments: str, **options: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a script."""
    argv = [str(script(folder, text)), *arguments]
    done = fork_server.run(argv, cwd=folder, timeout=60, **options)  # type: ignore[arg-type]
    return done.returncode, done.stdout, done.stderr


def test_arguments_folder_environment_and_name_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("name = 'beside'")
    library = tmp_path / "library"
    library.mkdir()
    (library / "far.py").write_text("name = 'far'")
    text = """
import os, sys
import beside, far
print(__name__, sys.argv[1:], os.getcwd(), os.environ["MINE"], beside.name, far.name)
print(sys.modules["__main__"].__file__, sys.stdin.read() == "", "HOME" in os.environ)
"""
    env = {"MINE": "1", "PYTHONPATH": str(library)}
    assert run(tmp_path, text, "a", "b c", env=env) == (
        0,
        f"__main__ ['a', 'b c'] {tmp_path} 1 beside far\n{tmp_path / 'script.py'} True False\n",
        "",
    )


def test_it_ends_as_the_interpreter_does(tmp_path: Path) -> None:
    text = "import atexit, sys; atexit.register(print, 'at the end'); sys.exit({})"
    assert run(tmp_path, text.format(7)) == (7, "at the end\n", "")
    assert run(tmp_path, text.format("'why'")) == (1, "at the end\n", "why\n")
    assert run(tmp_path, text.format("")) == (0, "at the end\n", "")
    code, _, said = run(tmp_path, "1 / 0")
    assert code == 1 and said.startswith("Traceback") and said.endswith("division by zero\n")


def test_packages_are_imported_and_nothing_of_ours(tmp_path: Path) -> None:
    code, names, _ = run(tmp_path, "import sys; print(*sys.modules)")
    found = {name.partition(".")[0] for name in names.split()}
    assert code == 0 and {"torch", "mmengine", "mmcv", "mmdet", "mmseg"} <= found
    assert not found & {*OURS, "fork_server", "stock_cases", "pytest"}


def test_children_draw_different_numbers_until_they_are_seeded(tmp_path: Path) -> None:
    text = "import random, numpy; print(random.random(), numpy.random.random(2))"
    assert run(tmp_path, text)[1] != run(tmp_path, text)[1]


def test_signals_reach_it_and_end_it(tmp_path: Path) -> None:
    waits = script(tmp_path, "import time; print('begun', flush=True); time.sleep(60)")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        with (tmp_path / f"out{number}").open("w+") as out:
            process = fork_server.start([waits], stdout=out)
            while "begun" not in (tmp_path / f"out{number}").read_text():
                time.sleep(0.01)
            assert process.poll() is None
            process.send_signal(number)
            assert process.wait(timeout=60) == -number
            process.kill()  # of no effect


def test_a_process_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    text = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)"
    with pytest.raises(subprocess.TimeoutExpired):
        fork_server.run([script(tmp_path, text)], cwd=tmp_path, timeout=1)
    with pytest.raises(ProcessLookupError):
        for _ in range(1000):
            os.kill(int((tmp_path / "pid").read_text()), 0)
            time.sleep(0.01)


def test_what_libraries_read_at_their_start_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="OMP_NUM_THREADS"):
        run(tmp_path, "", env={"OMP_NUM_THREADS": "2"})


def test_warnings_are_those_that_its_environment_asks_for(tmp_path: Path) -> None:
    text = "import warnings; warnings.warn('of mine')"
    assert "UserWarning: of mine" in run(tmp_path, text, env={})[2]
    assert run(tmp_path, text, env={"PYTHONWARNINGS": "ignore"}) == (0, "", "")


def test_configs_are_laid_out_unless_that_is_not_wanted(tmp_path: Path) -> None:
    text = "from mmengine.config import Config; print(Config(dict(a=[dict(b=1), 2])).pretty_text)"
    laid_out, plain = run(tmp_path, text, env={}), run(tmp_path, text, env={"PLAIN_CONFIGS": "1"})
    assert laid_out[1] != plain[1]
    for code, printed, _ in (laid_out, plain):
        found: dict[str, object] = {}
        exec(printed, found)
        assert (code, found["a"]) == (0, [{"b": 1}, 2])


def test_workers_of_data_loaders_work_in_it(tmp_path: Path) -> None:
    text = """
from torch.utils.data import DataLoader
print(sum(int(each) for each in DataLoader(range(10), batch_size=None, num_workers=2)))
"""
    assert run(tmp_path, text) == (0, "45\n", "")


def test_scripts_may_start_it_in_the_place_of_the_interpreter(tmp_path: Path) -> None:
    known = {**os.environ, **fork_server.interpreter(), "PYTHONPATH": str(tmp_path)}
    (tmp_path / "module.py").write_text("import script")
    script(tmp_path, "import os, sys; print(sys.argv[1:], 'torch' in sys.modules); os._exit(7)")
    for arguments in ("-u script.py a 'b c'", "-m module a 'b c'"):
        done = subprocess.run(
            ["sh", "-c", f"$PYTHON {arguments}"], cwd=tmp_path, env=known, capture_output=True
        )
        assert (done.returncode, done.stdout) == (7, b"['a', 'b c'] True\n"), done.stderr


def test_what_stands_in_for_it_passes_signals_on_and_ends_by_them(tmp_path: Path) -> None:
    path = script(tmp_path, "import time; print('begun', flush=True); time.sleep(60)")
    command = [fork_server.interpreter()["PYTHON"], str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None and process.stdout.readline() == b"begun\n"
        process.terminate()
        assert process.wait(timeout=60) == -signal.SIGTERM
        assert process.stdout.read() == b""  # nobody has it open any more
