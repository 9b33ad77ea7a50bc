"""How a tool ends: a user's mistake as one message, and of many processes the one that failed."""

import atexit
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from torch import distributed

from agent_attention.weights.read import CheckpointError
from mmengine_agent.errors import ToldError, UserError
from mmengine_agent.files import describe_disk, disk_is_full

RESUME_ME = 75  # EX_TEMPFAIL of sysexits.h: a failure that passes, try again
_PATIENCE = 3.0  # seconds in which a launcher ends the others, when one has failed
_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "ncclRemoteError")
_LATE = ("Timed out waiting", "Watchdog caught collective operation timeout")


def run_tool(main: Callable[[], None]) -> NoReturn:
    """Run a tool; a user's mistake becomes one message on stderr and exit code 1.

    Of many processes the one that fails tells why. Those that fail because it has, or in the same
    way a little later, leave it the word: the launcher ends them meanwhile.
    """
    try:
        main()
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        if many_processes():
            _fail_among_many(error)
        text = explained(error)
        if text is None:
            raise
        print(f"error: {text}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as stop:
        if stop.code == RESUME_ME:  # stopped, with everything saved
            _leave_the_others(RESUME_ME)
        raise
    _leave_the_others(0)
    sys.exit(0)


def _leave_the_others(code: int) -> None:
    """End one of many processes whose work is done; alone, do nothing.

    What is to be done at the end is done; but threads of gloo, while the interpreter takes
    itself apart, abort it now and then ("terminate called without an active exception").
    """
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def explained(error: Exception) -> str | None:
    """What a user should know of an error; None if only its traceback tells."""
    if isinstance(error, UserError | CheckpointError):
        return str(error)
    # loaders and optimizers are built late, and name unknown types so
    if isinstance(error, KeyError) and "registry" in str(error):
        return f"cannot build what the config describes: {one_line(error)}"
    if isinstance(error, OSError) and disk_is_full(error):  # a log or a result
        place = describe_disk(Path(error.filename or "."))
        return f"a disk is full (here {place}): {one_line(error)}"
    if isinstance(error, RuntimeError) and many_processes():
        return _of_others(str(error))
    return None


def many_processes() -> bool:
    """Whether a launcher has started several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def process_number() -> int:
    """Of this one, from 0; before the processes have joined, too."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))


def one_line(error: BaseException) -> str:
    """Type and message of an exception."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _of_others(text: str) -> str | None:
    if any(words in text for words in _GONE):
        return f"stopped, because another process is gone: {text.partition('. ')[0]}"
    if any(words in text for words in _LATE):
        return (
            f"waited in vain for another process, which hangs or is far behind: {text}\n"
            "env_cfg.dist_cfg.timeout is how many seconds a process waits"
        )
    return None


def _fail_among_many(error: Exception) -> NoReturn:
    """Tell why, unless another process does, and end at once.

    The usual end of the interpreter waits for communication that the others have given up.
    """
    text = explained(error)
    gone = any(words in str(error) for words in _GONE) and isinstance(error, RuntimeError)
    if gone or isinstance(error, ToldError) or process_number() > 0:
        _leave_the_word()
    if not isinstance(error, ToldError):
        name = f"error in process {process_number()} of {os.environ['WORLD_SIZE']}"
        told = text or "".join(traceback.format_exception(error)).rstrip()
        print(f"{name}: {told}", file=sys.stderr, flush=True)
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        # torchrun repeats it at the end, as the first failure
        get_error_handler().record_exception(error if text is None else UserError(text))
    sys.stdout.flush()
    os._exit(1)


def _leave_the_word() -> None:
    """Wait a little for the signal of the launcher, whoever listened to it before."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(_PATIENCE)
