"""The exceptions that stand for a user's mistake, and what checks find."""

from typing import NamedTuple


class Problem(NamedTuple):
    """What a check before a run finds; the run can do without the mending of what is not fatal."""

    text: str
    fatal: bool = True


class UserError(Exception):
    """A mistake the user can mend; its message names the thing, the place and the fix.

    The tools print the message alone, without a traceback, and exit with 1.
    """


class UsageError(UserError):
    """A command line that cannot be meant, such as two answers to one question; exit code 2."""


class ReportedByRank0(UserError):
    """A mistake that the first process tells the user."""


class BadSample(UserError):
    """An image or its annotations cannot be loaded; the message names the files.

    A data loader's worker hands an exception over as ``type(text)``, its traceback in the text:
    what is kept is the message it was raised with.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition(f"{__name__}.BadSample: ")[2].strip())


def one_line(error: BaseException) -> str:
    """Type and message of an exception."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
