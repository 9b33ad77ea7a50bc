"""Processes of Python that begin with the third-party packages imported, for tests that run tools.

A tool's process spends most of its time on imports. A server imports them once and forks a child
for each script, so one starts in a fraction of a second:

    done = fork_server.run(["tools/test.py", config, checkpoint], cwd=folder, timeout=60)
    process = fork_server.start(["tools/train.py", config], stdout=log)   # much like a Popen
    process.send_signal(signal.SIGTERM)

To whoever looks, the child is a process of its own: it has its environment, folder, arguments and
``__main__``, and ends as the interpreter does, with ``atexit`` and its exit code or signal
(``multiprocessing``'s own forkserver ends children without). Only the modules are not taken apart,
which takes longer than many a script, unless the environment has WHOLE_END. Nothing of ours is
imported beforehand, so an import that a tool lacks still fails.

Scripts that start interpreters themselves, as torchrun does, get one that asks this server:

    subprocess.run(["bash", "tools/dist_train.sh", ...], env={**os.environ, **interpreter()})

A server ends with the process that started it. Processes that this one starts may use its server:
``share``.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import types
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from select import select
from typing import IO, Any

# Libraries read these when they are loaded, so all children have the server's.
SETTINGS = {
    "CUDA_VISIBLE_DEVICES": "",
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",  # a pool of threads does not survive a fork
    "OPENBLAS_NUM_THREADS": "1",
}
# In a child's environment: mmengine writes configs without laying them out, for a second.
PLAIN_CONFIGS = "PLAIN_CONFIGS"
# In the environment of whoever uses the server of another process: the server's socket.
ADDRESS = "FORK_SERVER"
# In a child's environment: its modules are taken apart at its end, as the interpreter does.
WHOLE_END = "WHOLE_END"
PACKAGES = (
    *(
        "numpy",
        "cv2",
        "torch",
        "torch.utils.data",
        "torch._dynamo",
        "yapf.yapflib.yapf_api",
        "tqdm",
        "matplotlib.pyplot",
        "pycocotools.mask",
    ),
    *("mmengine.runner", "mmengine.visualization", "mmengine.hooks", "mmcv.ops", "mmcv.transforms"),
    *(f"mmdet.{part}" for part in ("apis", "datasets", "engine", "evaluation", "models")),
    *(f"mmseg.{part}" for part in ("apis", "datasets", "engine", "evaluation", "models")),
    *("mmdet.visualization", "mmseg.visualization"),
)


# ---- for tests


class Process:
    """A running child; the part of ``subprocess.Popen`` that tests use."""

    def __init__(self, args: Sequence[str], reply: socket.socket) -> None:
        self.args, self.returncode = list(args), None
        self._reply = reply.makefile("r")
        self.pid = int(self._line())
        self.returncode: int | None

    def poll(self) -> int | None:
        """The exit code, minus the number of a signal that ended it; None while it runs."""
        if self.returncode is None and select([self._reply], [], [], 0)[0]:
            self.returncode = int(self._line())
            self._reply.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: if it takes more than ``timeout`` seconds.
        """
        if self.returncode is None and not select([self._reply], [], [], timeout)[0]:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _line(self) -> str:
        line = self._reply.readline()
        if not line:
            raise _gone()
        return line


def start(
    argv: Sequence[str | Path],
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: IO[Any] | None = None,
    stdout: IO[Any] | None = None,
    stderr: IO[Any] | None = None,
) -> Process:
    """Run a Python file.

    Args:
        argv: the file and its arguments.
        cwd: the folder it runs in; None takes this process's.
        env: its environment, None for this process's; SETTINGS are added.
        stdin: an open file, and so are ``stdout`` and ``stderr``; None reads and writes nothing.

    Raises:
        ValueError: if the environment has another value for one of SETTINGS.
    """
    known = dict(os.environ, **SETTINGS) if env is None else {**SETTINGS, **env}
    wrong = [name for name, value in SETTINGS.items() if known[name] != value]
    if wrong:
        raise ValueError(f"all children of the server have one {', '.join(wrong)}")
    request = {"argv": list(map(str, argv)), "cwd": str(cwd or os.getcwd()), "env": known}
    reply = socket.socket(socket.AF_UNIX)
    try:
        reply.connect(_address())
    except ConnectionRefusedError as error:
        raise _gone() from error
    with open(os.devnull, "r+") as null:
        socket.send_fds(
            reply, [b"+"], [(file or null).fileno() for file in (stdin, stdout, stderr)]
        )
    reply.sendall(json.dumps(request).encode() + b"\n")
    return Process(request["argv"], reply)


def run(
    argv: Sequence[str | Path],
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a Python file to its end, as ``subprocess.run(..., capture_output=True)`` does.

    Raises:
        subprocess.TimeoutExpired: if it takes more than ``timeout`` seconds; it is killed then.
    """
    # Files, not pipes: a worker that outlives a killed run would keep a pipe open.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = start(argv, cwd, env, stdout=out, stderr=err)
        try:
            code = process.wait(timeout)
        except BaseException:
            process.kill()
            raise
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(process.args, code, out.read(), err.read())


@functools.cache
def interpreter() -> dict[str, str]:
    """Variables that name a program to run in Python's place, for our scripts and for torchrun."""
    program, module = _folder() / "python", Path(__file__).with_name("forked_python.py")
    program.write_text(
        f"#!{sys.executable} -IS\nimport sys\nsys.path.insert(0, {str(module.parent)!r})\n"
        f"from forked_python import main\nmain({_address()!r})\n"
    )
    program.chmod(0o700)
    return {**SETTINGS, PLAIN_CONFIGS: "1", "PYTHON": str(program), "PYTHON_EXEC": str(program)}


def share() -> None:
    """Start a server that is also that of all processes which this one starts from now on."""
    os.environ[ADDRESS] = _address()


@functools.cache
def _folder() -> Path:
    """Where the server's socket and the program that asks it are."""
    folder = tempfile.TemporaryDirectory(prefix="forks")  # a socket's path has to be short
    atexit.register(folder.cleanup)
    return Path(folder.name)


@functools.cache
def _address() -> str:
    """The socket of the server: another process's, or of one that ends when this process does.

    Whoever asks it before it has imported everything waits for an answer.
    """
    if known := os.environ.get(ADDRESS):
        return known
    address = str(_folder() / "socket")
    ours, theirs = socket.socketpair()
    paths = ("PYTHONPATH", "PYTHONWARNINGS")  # of each child: its own
    env = {name: value for name, value in os.environ.items() if name not in paths}
    with socket.socket(socket.AF_UNIX) as public, theirs, _said(address).open("w") as said:
        public.bind(address)
        public.listen()
        descriptors = (theirs.fileno(), public.fileno())
        command = [sys.executable, "-P", __file__, *map(str, descriptors)]
        if sys.version_info < (3, 11):
            command.remove("-P")
        process = subprocess.Popen(
            command,
            env={**env, **SETTINGS},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            pass_fds=descriptors,
        )
    atexit.register(process.wait)
    atexit.register(ours.close)
    return address


def _said(address: str) -> Path:
    """The file with what a server says of itself."""
    return Path(address).with_name("said")


def _gone() -> RuntimeError:
    return RuntimeError(f"the fork server is gone:\n{_said(_address()).read_text()}")


# ---- in the server


def serve(control: socket.socket, public: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Fork a child for each request; returns its request in each child, None at the end."""
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests
    replies: dict[int, socket.socket] = {}
    while True:
        ready = select([control, public, wake], [], [])[0]
        if wake in ready:
            os.read(wake, 1000)
            _report_ends(replies)
        if control in ready:  # the tests have ended
            return None
        if public not in ready:
            continue
        reply = public.accept()[0]
        files = socket.recv_fds(reply, 1, 3)[1]
        with reply.makefile("r") as lines:
            request = json.loads(lines.readline())
        child = os.fork()
        if child == 0:
            signal.set_wakeup_fd(-1)
            for each in (control, public, reply, *replies.values()):
                each.close()
            for descriptor in (wake, woken):
                os.close(descriptor)
            return request, files
        for descriptor in files:
            os.close(descriptor)
        reply.sendall(f"{child}\n".encode())
        replies[child] = reply


def _report_ends(replies: dict[int, socket.socket]) -> None:
    """Say how children have ended."""
    while replies:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child == 0:
            return
        # nobody may be left to hear it
        with replies.pop(child) as reply, suppress(BrokenPipeError, ConnectionResetError):
            reply.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def become(request: dict[str, Any], files: Sequence[int]) -> None:
    """Make this child the process that was asked for, and run its script."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "session" in request:
        os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    for action in filter(None, request["env"].get("PYTHONWARNINGS", "").split(",")):
        warnings.simplefilter(action)  # type: ignore[arg-type]
    module = request["argv"][0] == "-m"
    sys.argv = request["argv"][module:]
    script = Path(sys.argv[0])
    paths = request["env"].get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [os.getcwd() if module else str(script.resolve().parent), *filter(None, paths)]
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(write_through="session" in request)  # type: ignore[union-attr]
    sys.modules["numpy"].random.seed()  # else all children draw the same seeds
    if PLAIN_CONFIGS in os.environ:
        for name in ("yapf.yapflib.yapf_api", "mmengine.config.config"):  # old ones import it early
            sys.modules[name].__dict__["FormatCode"] = lambda text, **_: (text, False)
    if module:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        return
    main = types.ModuleType("__main__")
    main.__dict__.update(__file__=str(script), __builtins__=__builtins__)
    sys.modules["__main__"] = main
    exec(compile(script.read_bytes(), str(script), "exec"), main.__dict__)


def read_metafiles() -> None:
    """Read the hundreds that mmengine reads for each config that inherits from mmdet or mmseg."""
    utils = sys.modules["mmengine.config.utils"]
    load = functools.cache(utils.__dict__["load"])
    utils.__dict__["load"] = load
    for package in ("mmdet", "mmseg"):
        folder = Path(str(sys.modules[package].__file__)).parent / ".mim"
        for path in load(str(folder / "model-index.yml"))["Import"]:
            load(os.path.join(folder, path))


class End:
    """How a child ends: its exit code, or minus the number of a signal."""

    code: int | None = None  # of the server


def skip_teardown() -> None:
    """End after all other handlers of ``atexit``, the last thing of a script that can be seen."""
    if End.code is None:
        return
    gc.collect()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    if End.code < 0:
        signal.signal(-End.code, signal.SIG_DFL)
        os.kill(os.getpid(), -End.code)
    os._exit(End.code)


def main() -> None:
    """Import, serve, and be what each child is asked to be."""
    atexit.register(skip_teardown)  # the first is called last
    control, public = (socket.socket(fileno=int(each)) for each in sys.argv[1:])
    sys.path[:] = [path for path in sys.path if Path(path) != Path(__file__).parent]
    for package in PACKAGES:
        importlib.import_module(package)
    read_metafiles()
    threads = Path("/proc/self/task")
    assert not threads.exists() or len([*threads.iterdir()]) == 1, "threads do not survive a fork"
    gc.collect()
    gc.freeze()  # children leave the pages of what was imported alone
    asked = serve(control, public)
    if asked is None:
        return
    try:
        code = 1
        become(*asked)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        raise
    except KeyboardInterrupt:
        code = -signal.SIGINT
        raise
    finally:
        End.code = None if WHOLE_END in asked[0]["env"] else code


if __name__ == "__main__":
    main()
