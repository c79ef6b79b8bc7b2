"""Types of flags, with messages that say what was expected."""

import argparse
import math


def positive_integer(text):
    """An integer of at least 1."""
    return _integer(text, 1)


def natural_number(text):
    """An integer of at least 0."""
    return _integer(text, 0)


def threads(text):
    """A number of threads."""
    return _integer(text, 1, 1024)


# What fits into the integers of the libraries that get it.
_LARGEST = 2**31 - 1


def _integer(text, lowest, largest=_LARGEST):
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or value < lowest:
        raise argparse.ArgumentTypeError(
            f"expected an integer of at least {lowest}, received '{text}'"
        )
    if value > largest:
        raise argparse.ArgumentTypeError(
            f"expected an integer of at most {largest}, received '{text}'"
        )
    return value


def number(text):
    """A finite number; a fraction such as 1/255 is one too."""
    try:
        # Not by way of a fraction, which would write 1e999999999 out.
        value = float(text)
    except ValueError:
        value = _fraction(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(
            f"expected a number such as 0.1, 1e-3 or 1/255, received '{text}'"
        )
    return value


def _fraction(text):
    try:
        over, _, under = text.partition("/")
        return float(over) / float(under)
    except (ValueError, ZeroDivisionError, OverflowError):
        return math.nan


def non_negative(text):
    """A finite number of at least 0."""
    value = number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(
            f"expected a number that is not negative, received '{text}'"
        )
    return value


def positive(text):
    """A finite number above 0."""
    value = number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(
            f"expected a number above 0, received '{text}'"
        )
    return value


def share(text):
    """A number from 0 to 1; 1 is not one."""
    value = number(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(
            f"expected a number from 0 to below 1, received '{text}'"
        )
    return value


def weight(text):
    """A number from 0 to 1."""
    value = number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(
            f"expected a number from 0 to 1, received '{text}'"
        )
    return value


def numbers(text):
    """Numbers with commas between them."""
    return tuple(number(part) for part in text.split(","))


def integers(text):
    """Positive integers with commas between them."""
    return tuple(positive_integer(part) for part in text.split(","))


def size(text):
    """Height and width."""
    values = integers(text)
    if len(values) not in (1, 2):
        raise argparse.ArgumentTypeError(
            f"expected HEIGHT,WIDTH or one number, received '{text}'"
        )
    return values[0], values[-1]


def add_json(parser):
    """The flag of every command that prints a result."""
    parser.add_argument(
        "--json",
        action="store_true",
        help="print JSON instead of text; progress goes to standard error",
    )
