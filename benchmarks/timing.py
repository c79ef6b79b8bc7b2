"""Time and memory of training, as the benchmarks of steps measure them."""

import pathlib
import subprocess
import sys
import time


def seconds_per_step(model, x, y, batch_size):
    """Wall time and processor time of a step, over one epoch of arrays."""
    start = time.perf_counter(), time.process_time()
    model.fit(x, y, batch_size=batch_size, shuffle=False, verbose=0)
    stop = time.perf_counter(), time.process_time()
    steps = len(x) // batch_size
    return tuple((b - a) / steps for a, b in zip(start, stop))


def own_peak():
    """Peak resident memory of this process, in MB (Linux)."""
    # `getrusage` would start from the peak of the process that started us.
    status = pathlib.Path("/proc/self/status").read_text()
    line = next(x for x in status.splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def peak_memory(script, *arguments):
    """What a script, run anew, prints last: its `own_peak()`."""
    program = subprocess.run(
        [sys.executable, script, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(program.stdout.split()[-1])
