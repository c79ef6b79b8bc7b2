"""The memory of a step is kept for the next."""

import os
import platform
import subprocess
import sys

import keras
import pytest

from keras_saq.cli.allocator import keep_freed_memory

# Page faults of a thread that asks for 100 MB, again and again.
PROGRAM = """
import resource, sys, threading
from keras_saq.cli.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()
text = b"x"

def steps(count):
    for _ in range(count):
        text * 100_000_000

def faults(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=steps, args=(count,))
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(1)
print(faults(3))
"""


@pytest.mark.skipif(
    keras.backend.backend() != "jax" or platform.libc_ver()[0] != "glibc",
    reason="for XLA's buffers, in glibc",
)
def test_memory_is_not_given_back():
    environ = {k: v for k, v in os.environ.items() if "MALLOC" not in k}
    environ.pop("GLIBC_TUNABLES", None)
    kept, given_back = (
        int(
            subprocess.run(
                [sys.executable, "-c", PROGRAM, mode],
                env=environ,
                capture_output=True,
                check=True,
                text=True,
            ).stdout
        )
        for mode in ("kept", "default")
    )
    assert kept < 1000 < given_back


def test_the_users_own_settings_stay():
    assert not keep_freed_memory({"MALLOC_TRIM_THRESHOLD_": "1"})
    assert not keep_freed_memory({"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"})
