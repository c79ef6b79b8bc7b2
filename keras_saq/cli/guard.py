"""Keeps a model file that asks for too much from getting it.

A number in a model's configuration is a size of its weights. One that is
absurd would take all the memory of the machine before Keras finds that the
file has no such weights. A sound file holds every weight, so what its layers
ask for is bounded by its own size.
"""

import contextlib
import math
import os
import pathlib
import signal
import subprocess
import sys
import zipfile

import keras

from keras_saq.cli import hdf5_probe

# Weights that need no place in the file: states of random generators, and
# what a layer makes from its settings alone.
_FREE = 2**20


@contextlib.contextmanager
def weights_as_in(path):
    """Inside, layers get as many weights as a file can hold.

    Args:
        path: the model file that is loaded inside.

    Raises:
        ValueError: by the layer that asks for more, or if what the file holds
            is larger than the memory.
    """
    num_bytes = _content_bytes(path)
    if num_bytes > _memory_bytes():
        raise ValueError(
            f"it holds {num_bytes:,} bytes, and the memory has "
            f"{_memory_bytes():,}"
        )
    left = 2 * num_bytes + _FREE  # four bits at least for each
    original = keras.layers.Layer.add_weight

    def add_weight(self, shape=None, *args, **kwargs):
        nonlocal left
        left -= math.prod(abs(int(n)) for n in _dimensions(shape))
        if left < 0:
            raise ValueError(
                f"the layer '{self.name}' asks for a weight of shape "
                f"{tuple(_dimensions(shape))}, and the file has "
                f"{num_bytes:,} bytes for all weights"
            )
        return original(self, shape, *args, **kwargs)

    keras.layers.Layer.add_weight = add_weight
    try:
        yield
    finally:
        keras.layers.Layer.add_weight = original


def check_readable(path):
    """Reads the weights of a model file in a process, to see that it ends.

    Args:
        path: a `.h5` or `.keras` file.

    Raises:
        ValueError: if the file holds or ends the process that reads it. What
            that process can report is left to who reads it next.
    """
    # As slow as nothing reads; starting Python is most of it.
    seconds = 4 + _content_bytes(path) / 5e6
    script = pathlib.Path(hdf5_probe.__file__)
    try:
        code = subprocess.run(
            [sys.executable, "-P", script, os.path.abspath(path), str(seconds)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            timeout=20 * seconds,
        ).returncode
        name = signal.Signals(-code).name if code < 0 else ""
    except subprocess.TimeoutExpired:
        name = "SIGPROF"
    if name == "SIGPROF":
        raise ValueError(
            "its HDF5 part is damaged: reading it does not end within "
            f"{seconds:.0f} seconds"
        )
    if name:
        raise ValueError(
            f"its HDF5 part is damaged: reading it ends in a crash ({name})"
        )


def _dimensions(shape):
    if shape is None:
        return ()
    return shape if isinstance(shape, (list, tuple)) else (shape,)


def _content_bytes(path):
    """Size of what a file holds, unpacked."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    return os.path.getsize(path)


def _memory_bytes():
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 2**63
