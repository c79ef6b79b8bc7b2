"""Finds out whether a call draws random numbers."""

import contextlib
import importlib

import keras

# Why a call is not followed that would give other numbers the next time.
RANDOM = "it draws random numbers when it is called"


@contextlib.contextmanager
def noticed():
    """Yields a list that is empty as long as no random number is drawn.

    Each of a backend's random functions asks for a seed first.
    """
    module = importlib.import_module(
        f"keras.src.backend.{keras.backend.backend()}.random"
    )
    draw_seed, drawn = module.draw_seed, []

    def note(seed):
        drawn.append(seed)
        return draw_seed(seed)

    module.draw_seed = note
    try:
        yield drawn
    finally:
        module.draw_seed = draw_seed
