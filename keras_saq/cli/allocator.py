"""Keeps the memory of one training step for the next.

XLA on CPU asks for one large buffer per step and gives it back at the end.
glibc returns a buffer of that size to the system, so every step touches all
of its pages anew: on two cores that was two fifths of a QAT step on JAX. With
these settings the buffer comes from a heap that is never trimmed. They are
the process's own, so the command line makes them and the library does not.
"""

import ctypes
import os
import platform

import keras

# <malloc.h>
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8


def keep_freed_memory(environ=None):
    """Tells glibc not to give freed memory back, on the JAX backend.

    Args:
        environ: the environment; where it sets up `malloc`, nothing is done.

    Returns:
        Whether it was done.

    Example:

    >>> from keras_saq.cli.allocator import keep_freed_memory
    >>> keep_freed_memory({"MALLOC_ARENA_MAX": "2"})
    False
    """
    environ = os.environ if environ is None else environ
    is_set_up = any(
        name == "GLIBC_TUNABLES" or name.startswith("MALLOC_")
        for name in environ
    )
    if (
        is_set_up
        or keras.backend.backend() != "jax"
        or platform.libc_ver()[0] != "glibc"
    ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # A heap of a thread's own cannot hold such a buffer: all share one.
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1, _M_ARENA_MAX: 1}
    return all([mallopt(name, value) == 1 for name, value in settings.items()])
