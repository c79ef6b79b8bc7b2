"""Numbers as a person reads them."""

import math

NONE = "–"
_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def percent(value, digits=2):
    """A share in 0..1 as percent.

    Example:

    >>> from keras_saq.report.page.numbers import percent
    >>> percent(0.98765), percent(None)
    ('98.77\\xa0%', '–')
    """
    return NONE if value is None else f"{100 * value:.{digits}f}\xa0%"


def count(value):
    """A whole number with separators."""
    return NONE if value is None else f"{value:,.0f}"


def short(value, digits=4):
    """Any number with few digits.

    Example:

    >>> from keras_saq.report.page.numbers import short
    >>> short(0.000012345), short(1234567.0), short(3), short(0.5)
    ('1.234e-05', '1,235,000', '3', '0.5')
    """
    if value is None:
        return NONE
    if value == 0:
        return "0"
    magnitude = abs(value)
    if magnitude < 1e-4 or magnitude >= 1e12:
        return f"{value:.{digits}g}"
    decimals = digits - 1 - math.floor(math.log10(magnitude))
    text = f"{round(value, decimals):,.{max(decimals, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def metric(name, value):
    """A value of a metric: accuracies in percent, others as they are."""
    return percent(value) if is_share(name) else short(value)


def is_share(name):
    """Whether a metric is a share in 0..1."""
    if name.endswith("learning_rate"):
        return False
    return "accuracy" in name or name.endswith(("_rate", "_share"))


def unit_for(values):
    """`(divisor, prefix)` that makes the largest of some numbers readable.

    Example:

    >>> from keras_saq.report.page.numbers import unit_for
    >>> unit_for([12, 34_000]), unit_for([7])
    ((1000.0, 'k'), (1.0, ''))
    """
    largest = max((abs(v) for v in values), default=0)
    for divisor, prefix in _PREFIXES:
        if largest >= divisor:
            return divisor, prefix
    return 1.0, ""


def plural(number, noun):
    """`1 layer`, `2 layers`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def steps(value):
    """A difference in steps of an output.

    Example:

    >>> from keras_saq.report.page.numbers import steps
    >>> steps(1.0), steps(0.25)
    ('1 step', '0.25 steps')
    """
    if value is None:
        return NONE
    return f"{value:.4g} step{'' if value == 1 else 's'}"


def samples(report, number):
    """How many samples, and of what where that is known."""
    text = plural(number, "sample")
    return f"{text} of {report['data']}" if report.get("data") else text
