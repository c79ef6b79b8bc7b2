"""From which update on a strategy does what it is there for."""

import math


def check_start(start):
    """Returns `start`, or raises if it is neither a share nor an update."""
    number = isinstance(start, (int, float)) and not isinstance(start, bool)
    if not number or not 0 <= start < float("inf"):
        raise ValueError(
            "`start` must be a share of the updates, from 0 to 1, or, above "
            f"1, the number of an update. Received: start={start!r}"
        )
    return start


def first_update(strategy, first, last):
    """The update of a strategy's `start`; see `Strategy.begin`."""
    start = strategy.start
    if start > 1:
        return start
    if start == 0:
        return first
    if last is None:
        raise ValueError(
            f"`{strategy!r}` starts after a share of the updates of `fit`, "
            "and how many there will be is not known: the data have no "
            "length. Give `fit` a `steps_per_epoch`, or `start` the number "
            "of an update, such as `start=2000`."
        )
    return first + math.ceil(start * (last - first))
