"""How a tool ends: a user's mistake as one message, and of many processes one that reports."""

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
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from agent_attention.weights.read import CheckpointError
from mmengine_agent.command_names import as_called
from mmengine_agent.errors import ReportedByRank0, UsageError, UserError, one_line
from mmengine_agent.files import describe_disk, disk_is_full
from mmengine_agent.run.flags import LOGGERS

RESUME_ME = 75  # EX_TEMPFAIL of sysexits.h: a failure that passes, try again
_GRACE = 3.0  # seconds in which a launcher ends the others, when one has failed
_LOST_CONTACT = """
If this is about a connection or a timeout, another process has ended, hangs or is far behind.
env_cfg.dist_cfg.timeout is how many seconds a process waits for others."""


def run_tool(main: Callable[[], None]) -> NoReturn:
    """Run a tool; a user's mistake becomes one message on stderr and exit code 1 (usage: 2)."""
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            _fail_among_many(error)
        text = explain(error)
        if text is None:
            raise
        print(f"error: {as_called(text)}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except SystemExit as stop:
        if stop.code == RESUME_ME:  # stopped, with everything saved
            _leave_process_group(RESUME_ME)
        raise
    _leave_process_group(0)
    sys.exit(0)


def explain(error: Exception) -> str | None:
    """What a user should know of an error; None if only its traceback tells."""
    if isinstance(error, UserError | CheckpointError | ImportError):
        return str(error)  # versions.require says what to install
    package = type(error).__module__.partition(".")[0]
    for name, (_, needed) in LOGGERS.items():
        if package == needed:  # such as an account that is missing
            hint = "; WANDB_MODE=offline needs no account" if name == "wandb" else ""
            return f"--log-to {name}: {' '.join(str(error).split()).rstrip('.')}{hint}"
    if isinstance(error, RuntimeError) and "pip install" in str(error):  # a metric's own package
        return str(error)
    # loaders and optimizers are built late, and name unknown types so
    if isinstance(error, KeyError) and "registry" in str(error):
        return f"cannot build what the config describes: {one_line(error)}"
    if isinstance(error, ValueError) and str(error) == "need at least one array to concatenate":
        return (  # of what is left of a data set, which mmengine keeps as one array
            "a data set of the config has no image left: its files have none with objects of the "
            "config's classes (metainfo.classes, filter_cfg)"
        )
    if isinstance(error, RuntimeError | ImportError) and "not installed" in str(error):
        return one_line(error)  # such as panopticapi, which evaluators ask for when they are built
    if isinstance(error, OSError) and disk_is_full(error):  # a log or a result
        place = describe_disk(Path(error.filename or "."))
        return f"a disk is full (here {place}): {one_line(error)}"
    return None


def _leave_process_group(code: int) -> None:
    """End one of many processes whose work is done; alone, do nothing.

    Threads of gloo abort the process now and then while the interpreter takes itself apart
    ("terminate called without an active exception"), so it ends without.
    """
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _fail_among_many(error: Exception) -> NoReturn:
    """Report the error of one of many processes, unless another one does, and end at once.

    Torch raises RuntimeError in those that lose contact to one that has failed, and a mistake is
    mostly met by all. Both wait for the SIGTERM that a launcher sends to the others then, and
    report only if it does not come. The usual end of the interpreter is left out: it waits for
    communication that the others have given up.
    """
    rank = int(os.environ.get("RANK", "0"))
    reported = isinstance(error, ReportedByRank0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(_GRACE * (isinstance(error, RuntimeError) + (reported or rank > 0)))
    if not reported:
        text = explain(error)
        report = text or "".join(traceback.format_exception(error)).rstrip()
        hint = _LOST_CONTACT if isinstance(error, RuntimeError) else ""
        name = f"error in process {rank} of {os.environ['WORLD_SIZE']}"
        print(f"{name}: {report}{hint}", file=sys.stderr, flush=True)
        # torchrun repeats it at the end, as the first failure
        get_error_handler().record_exception(error if text is None else UserError(text))
    sys.stdout.flush()
    os._exit(1)
