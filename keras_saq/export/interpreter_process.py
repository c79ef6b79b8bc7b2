"""The program of the process in which LiteRT files are run.

It is started as a script and imports nothing of this package, so that it
starts in a fraction of a second. A file that makes the interpreter crash takes
this process along and no other. `isolated.py` is the other end.

A message is a JSON header and arrays: eight bytes of length, and an `.npz`
without pickles.
"""

import contextlib
import io
import json
import os
import signal
import statistics
import struct
import sys
import time

import numpy as np


def read_message(stream):
    """`(header, arrays)` from a binary stream; `None` at its end."""
    length = stream.read(8)
    if len(length) < 8:
        return None
    body = stream.read(struct.unpack("<Q", length)[0])
    with np.load(io.BytesIO(body), allow_pickle=False) as archive:
        arrays = dict(archive)
    header = json.loads(arrays.pop("header").tobytes())
    return header, [arrays[str(i)] for i in range(len(arrays))]


def write_message(stream, header, arrays=()):
    """Writes what `read_message` reads."""
    body = io.BytesIO()
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(body, header=text, **{str(i): a for i, a in enumerate(arrays)})
    stream.write(struct.pack("<Q", body.tell()))
    stream.write(body.getvalue())
    stream.flush()


# The signal at the end of a limited time; without it there is no limit.
OUT_OF_TIME = int(getattr(signal, "SIGPROF", 0)) or 2**31


class Files:
    """Answers requests about files: `open`, `run`, `close`, `time`."""

    def __init__(self):
        self._interpreters = {}

    def answer(self, header, arrays):
        request = getattr(self, f"_{header.pop('request')}")
        seconds = header.pop("seconds", None)
        _limit_memory(header.pop("memory", None))
        with _limited(seconds):
            return request(arrays, **header)

    def _open(self, arrays, key, num_threads, delegate):
        interpreter = _load(arrays[0].tobytes(), num_threads, delegate)
        _allocate(interpreter)
        self._interpreters[key] = interpreter
        return _description(interpreter), []

    def _close(self, arrays, key):
        del arrays, self._interpreters[key]
        return {}, []

    def _run(self, arrays, key):
        interpreter = self._interpreters[key]
        _feed(interpreter, arrays)
        interpreter.invoke()
        outputs = interpreter.get_output_details()
        return {}, [interpreter.get_tensor(d["index"]) for d in outputs]

    def _time(self, arrays, num_threads, delegate, rounds, warmup):
        """Seconds of each file in each round; the files take turns.

        Of the clock, and of the processor, which other programs that run
        beside it change less.
        """
        loaded = []
        for content in arrays:
            interpreter = _load(content.tobytes(), num_threads, delegate)
            _allocate(interpreter)
            _feed(interpreter, _random_inputs(interpreter))
            loaded.append(interpreter)
        # Repetitions so that a turn takes a millisecond at least.
        repeats = []
        for interpreter in loaded:
            seconds = [_seconds(interpreter, 1)[0] for _ in range(warmup)]
            repeats.append(max(1, round(1e-3 / statistics.median(seconds))))
        times = np.empty((2, len(loaded), rounds))
        for turn in range(rounds):
            # Each round in another order: none always follows the largest.
            for i in np.random.default_rng(turn).permutation(len(loaded)):
                times[:, i, turn] = _seconds(loaded[i], repeats[i])
        return {}, list(times)

    def _memory(self, arrays, num_threads, delegate):
        """Bytes by which loading and running a file raise the peak."""
        (content,) = arrays
        content = content.tobytes()
        # The library is no file's.
        import ai_edge_litert.interpreter  # noqa: F401

        before = _peak_bytes()
        interpreter = _load(content, num_threads, delegate)
        _allocate(interpreter)
        _feed(interpreter, _random_inputs(interpreter))
        for _ in range(3):
            interpreter.invoke()
        return {"bytes": _peak_bytes() - before}, []


def _load(content, num_threads, delegate):
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_litert.interpreter import OpResolverType

    kinds = OpResolverType
    kind = kinds.AUTO if delegate else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    return Interpreter(
        model_content=content,
        num_threads=num_threads,
        experimental_op_resolver_type=kind,
    )


def _allocate(interpreter):
    # Before tensors are allocated, or the delegate would be undone again.
    interpreter.allocate_tensors()


def _feed(interpreter, arrays):
    details = interpreter.get_input_details()
    if len(details) != len(arrays):
        raise ValueError(
            f"the file has {len(details)} inputs, {len(arrays)} were given"
        )
    resized = False
    for detail, array in zip(details, arrays):
        if tuple(detail["shape"]) != array.shape:
            interpreter.resize_tensor_input(detail["index"], array.shape)
            resized = True
    if resized:
        interpreter.allocate_tensors()
    for detail, array in zip(details, arrays):
        interpreter.set_tensor(detail["index"], array)


def _random_inputs(interpreter):
    rng = np.random.default_rng(0)
    arrays = []
    for detail in interpreter.get_input_details():
        dtype, shape = np.dtype(detail["dtype"]), detail["shape"]
        if dtype.kind == "f":
            array = rng.random(shape)
        elif dtype.itemsize == 1 and dtype.kind in "iu":
            limits = np.iinfo(dtype)
            array = rng.integers(limits.min, limits.max + 1, shape)
        else:
            # Indices and masks: zeros are always allowed.
            array = np.zeros(shape)
        arrays.append(array.astype(dtype))
    return arrays


def _seconds(interpreter, repeats):
    """Seconds of one inference, of the clock and of the processor."""
    start, start_cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        interpreter.invoke()
    end_cpu, end = time.process_time(), time.perf_counter()
    return (end - start) / repeats, (end_cpu - start_cpu) / repeats


def _peak_bytes():
    """Peak of the memory in use, of this process alone."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _description(interpreter):
    """Inputs, outputs and nodes, as JSON."""
    nodes = interpreter._get_ops_details()
    return {
        "inputs": _tensors(interpreter.get_input_details()),
        "outputs": _tensors(interpreter.get_output_details()),
        "signatures": interpreter.get_signature_list(),
        "names": _signature_names(interpreter),
        "nodes": [
            {
                "name": node["op_name"],
                "inputs": [int(i) for i in node["inputs"]],
                "outputs": [int(i) for i in node["outputs"]],
            }
            for node in nodes
        ],
    }


def _tensors(details):
    return [
        {
            "index": int(d["index"]),
            "name": d["name"],
            "shape": [int(n) for n in d["shape"]],
            "type": np.dtype(d["dtype"]).name,
            "scale": float(d["quantization"][0]),
            "zero_point": int(d["quantization"][1]),
        }
        for d in details
    ]


def _signature_names(interpreter):
    """Tensor index -> name in the first signature, inputs and outputs."""
    if not interpreter.get_signature_list():
        return {}
    runner = interpreter.get_signature_runner()
    details = runner.get_input_details() | runner.get_output_details()
    return {str(int(d["index"])): name for name, d in details.items()}


def memory_bytes():
    """Memory of this machine; very much where it is not known."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 2**62


def _limit_memory(num_bytes=None):
    """A damaged size must not take the whole machine's memory.

    Args:
        num_bytes: what may be taken beyond what is in use; `None` for all
            that the machine has.
    """
    try:
        import resource

        limit = memory_bytes()
        if num_bytes is not None:
            with open("/proc/self/statm", encoding="ascii") as file:
                pages = int(file.read().split()[0])
            in_use = pages * os.sysconf("SC_PAGE_SIZE")
            limit = min(limit, in_use + int(num_bytes))
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    except (ImportError, OSError, ValueError):
        pass  # no such limit on this system


@contextlib.contextmanager
def _limited(seconds):
    """Inside, more processor time than this ends the process.

    By a signal that nothing here handles, so that it also ends a loop inside
    of a kernel.
    """
    if seconds is None or not hasattr(signal, "setitimer"):
        yield
        return
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def main():
    _limit_memory()
    requests = sys.stdin.buffer
    # Whatever else prints, prints elsewhere.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    files = Files()
    while (message := read_message(requests)) is not None:
        try:
            header, arrays = files.answer(*message)
        except Exception as error:  # whatever the interpreter raises
            header, arrays = {"error": str(error) or repr(error)}, []
        write_message(answers, header, arrays)


if __name__ == "__main__":
    main()
