"""The one exception that stands for a user's mistake."""


class UserError(Exception):
    """A mistake the user can mend; its message names the thing, the place and the fix.

    The tools print the message alone, without a traceback, and exit with 1.
    """
