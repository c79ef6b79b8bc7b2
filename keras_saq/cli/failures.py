"""How a command that fails says so.

A `ValueError`, a missing file or a missing package has a message that was
written for the user, and is printed as it is. Whatever else is raised comes
from a library that was given something it did not expect: its class and the
first line of its message, and how to see where it was. Nobody gets a
traceback unasked.
"""

import os
import traceback

from keras_saq.cli import output

_FOR_USERS = (ValueError, ImportError, OSError)
_VARIABLE = "KERAS_SAQ_TRACEBACK"
_LENGTH = 500
# A message of a library can be a page; ours end before that.
_LINES = 60


def add_argument(parser):
    """The flag that every command has."""
    parser.add_argument(
        "--traceback",
        action="store_true",
        help="where a command fails, print where in the code it was; "
        f"{_VARIABLE}=1 in the environment does the same",
    )


def tell(error, command, with_traceback=False):
    """Prints what went wrong on standard error.

    Args:
        error: the exception.
        command: name of the command.
        with_traceback: whether to print where it was raised.

    Returns:
        The exit code, 1.
    """
    if with_traceback or os.environ.get(_VARIABLE, "0") not in ("", "0"):
        output.say("".join(traceback.format_exception(error)))
    output.say(f"keras-saq {command}: {message(error)}")
    return 1


def message(error):
    """What is printed about an exception.

    Example:

    >>> from keras_saq.cli import failures
    >>> failures.message(ValueError("`rho` must be positive."))
    '`rho` must be positive.'
    >>> print(failures.message(KeyError("kernel")))
    KeyError: 'kernel' (--traceback shows where)
    """
    text = str(error).strip()
    if isinstance(error, MemoryError):
        text = text or "there is not enough memory"
    if isinstance(error, _FOR_USERS) and text:
        lines = text.splitlines()
        if len(lines) > _LINES:
            lines = [*lines[:_LINES], "..."]
        return "\n".join(lines)
    return f"{first_line(error)} (--traceback shows where)"


def first_line(error):
    """Class and first line of an exception of a library."""
    text = str(error).strip()
    first = text.splitlines()[0] if text else ""
    if len(first) > _LENGTH:
        first = f"{first[:_LENGTH]}..."
    name = type(error).__name__
    return f"{name}: {first}" if first else name
