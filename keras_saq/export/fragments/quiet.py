"""Keeps the converter's own reports off the terminal."""

import contextlib
import logging
import os
import sys
import threading
import warnings

_lock = threading.Lock()


@contextlib.contextmanager
def quiet():
    """Inside, nothing is written to standard error.

    The converter writes what it cannot do from C++, past Python's streams,
    and raises an error that says the same.
    """
    logger = logging.getLogger("tensorflow")
    level = logger.level
    with _lock, warnings.catch_warnings(), open(os.devnull, "wb") as nowhere:
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            logger.setLevel(level)
