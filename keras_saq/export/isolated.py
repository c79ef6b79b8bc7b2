"""Runs LiteRT files in a process of their own.

LiteRT checks that a file is a flatbuffer, not that it is a sound model: one
damaged byte can end the process that loads it. So files are loaded in a child
process, which is kept for the next file, and a crash there is an error here.
"""

import atexit
import dataclasses
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading

import numpy as np

from keras_saq.export import interpreter_process
from keras_saq.export.structure import Damaged
from keras_saq.export.structure import read_structure

# Of the clock, for what waits without computing.
TIMEOUT = 600.0
# Of the processor: a busy machine makes no sound file a slow one. The slowest
# kernels on a slow machine do better than this by a factor of ten and more.
OPEN_SECONDS = 5.0
_SLOWEST_MULTIPLICATIONS = 1e7
_SLOWEST_BYTES = 5e6
# Beyond what tensors take: packed weights, workspaces, stacks of threads.
_FREE_MEMORY = 2 << 30


class FileError(ValueError):
    """A file that cannot be loaded or run.

    Attributes:
        crashed: whether it ended or outlasted the process it ran in.
    """

    def __init__(self, message, crashed=False):
        super().__init__(message)
        self.crashed = crashed


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """An input or output of a file.

    Attributes:
        index: its number among the tensors.
        name: its name in the file's signature, or the tensor's.
        shape: with the batch axis.
        type: NumPy's name of its type.
        scale: of its codes; 0 if it has none.
        zero_point: of its codes.
    """

    index: int
    name: str
    shape: tuple
    type: str
    scale: float
    zero_point: int


@dataclasses.dataclass(frozen=True)
class Node:
    """An operator as the interpreter has it; a delegate is one too."""

    name: str
    inputs: tuple
    outputs: tuple


class IsolatedFile:
    """A file that is loaded in the child process.

    Args:
        content: the file's bytes.
        num_threads: threads of its kernels.
        delegate: whether XNNPACK may take what it can.

    Attributes:
        inputs: list of `Endpoint`.
        outputs: list of `Endpoint`.
        nodes: list of `Node`.

    Raises:
        FileError: if it cannot be loaded.
    """

    _numbers = itertools.count()

    def __init__(self, content, num_threads=1, delegate=True):
        try:
            self._structure = read_structure(content)
        except Damaged as error:
            raise FileError(str(error), crashed=True) from error
        _check_memory(self._structure)
        self._num_bytes = len(content)
        self._key = next(self._numbers)
        self._process = _shared_process()
        header, _ = self._process.ask(
            {
                "request": "open",
                "key": self._key,
                "num_threads": num_threads,
                "delegate": delegate,
                **self._limits(1, OPEN_SECONDS),
            },
            [np.frombuffer(content, np.uint8)],
        )
        names = header["names"]
        self.inputs, self.outputs = (
            [
                Endpoint(
                    d["index"],
                    names.get(str(d["index"]), d["name"]),
                    tuple(d["shape"]),
                    d["type"],
                    d["scale"],
                    d["zero_point"],
                )
                for d in header[side]
            ]
            for side in ("inputs", "outputs")
        )
        self.nodes = [
            Node(n["name"], tuple(n["inputs"]), tuple(n["outputs"]))
            for n in header["nodes"]
        ]

    def __enter__(self):
        return self

    @property
    def is_open(self):
        """Whether the process that has it still runs."""
        return self._process.is_running

    def __exit__(self, *exception):
        if self._process.is_running:
            self._process.ask({"request": "close", "key": self._key})

    def run(self, arrays, seconds=None):
        """The outputs for a batch of inputs, both as lists of arrays.

        Args:
            arrays: the inputs.
            seconds: processor time that it may take; `None`: far more than a
                sound file of such a structure takes.
        """
        samples = max([1, *(len(a) for a in arrays if a.ndim)])
        if seconds is None:
            structure = self._structure
            seconds = OPEN_SECONDS + samples * (
                structure.multiplications / _SLOWEST_MULTIPLICATIONS
                + structure.tensor_bytes / _SLOWEST_BYTES
            )
            if len(structure.graphs) > 1:
                seconds = TIMEOUT  # loops
        header = {"request": "run", "key": self._key}
        header |= self._limits(samples, seconds)
        return self._process.ask(header, arrays)[1]

    def _limits(self, samples, seconds):
        """Processor time and memory of a request."""
        read = 2 * self._num_bytes / _SLOWEST_BYTES
        needed = self._num_bytes + samples * self._structure.tensor_bytes
        return {
            "seconds": min(seconds + read, TIMEOUT),
            "memory": _FREE_MEMORY + 20 * needed,
        }

    @property
    def undelegated(self):
        """The nodes that no delegate runs, in order."""
        taken = _delegated(self.nodes)
        return [
            node
            for i, node in enumerate(self.nodes)
            if i not in taken and node.name != "DELEGATE"
        ]

    @property
    def has_delegate(self):
        return any(node.name == "DELEGATE" for node in self.nodes)


def _check_memory(structure):
    """Raises for tensors that no machine like this one can hold."""
    there = interpreter_process.memory_bytes()
    if structure.tensor_bytes > there:
        raise FileError(
            f"its tensors take {structure.tensor_bytes:,} bytes, and this "
            f"machine has {there:,} bytes of memory"
        )


def _delegated(nodes):
    """Numbers of the nodes that lie in a delegate's part of the graph.

    The interpreter lists the file's nodes and, behind them, one DELEGATE for
    each part; a part is what leads from its inputs to its outputs.
    """
    makers = {
        tensor: i
        for i, node in enumerate(nodes)
        if node.name != "DELEGATE"
        for tensor in node.outputs
    }
    taken = set()
    for node in nodes:
        if node.name != "DELEGATE":
            continue
        edge, open_tensors = set(node.inputs), list(node.outputs)
        while open_tensors:
            maker = makers.get(open_tensors.pop())
            if maker is None or maker in taken:
                continue
            taken.add(maker)
            open_tensors += set(nodes[maker].inputs) - edge
    return taken


class Process:
    """One child process and its pipes."""

    def __init__(self):
        path = [entry or os.getcwd() for entry in sys.path]
        self._owner = os.getpid()
        self._errors = tempfile.TemporaryFile()
        self._lock = threading.Lock()
        script = pathlib.Path(interpreter_process.__file__)
        self._child = subprocess.Popen(
            # -P: modules beside the script must not hide Python's own.
            [sys.executable, "-P", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        )

    @property
    def is_running(self):
        return self._owner == os.getpid() and self._child.poll() is None

    def ask(self, header, arrays=(), timeout=None):
        """Sends a request and waits for the answer.

        Raises:
            FileError: what the child answered, or how it ended.
        """
        timeout = TIMEOUT if timeout is None else timeout
        seconds = header.get("seconds")
        with self._lock:
            timer = threading.Timer(timeout, self._child.kill)
            timer.start()
            try:
                interpreter_process.write_message(
                    self._child.stdin, header, arrays
                )
                message = interpreter_process.read_message(self._child.stdout)
            except (OSError, ValueError, EOFError):
                message = None
            finally:
                expired = not timer.is_alive()
                timer.cancel()
        if message is None:
            raise FileError(
                self._epitaph(timeout, expired, seconds), crashed=True
            )
        answer, arrays = message
        if "error" in answer:
            raise FileError(answer["error"])
        return answer, arrays

    def _epitaph(self, timeout, expired, seconds):
        """How the child ended."""
        self.close()
        if expired:
            return f"LiteRT did not finish within {timeout:g} seconds"
        code = self._child.returncode
        if code == -interpreter_process.OUT_OF_TIME:
            return (
                f"LiteRT did not finish within {seconds:.0f} seconds of "
                "processor time, far more than a sound file takes"
            )
        how = f"exit code {code}"
        if code is not None and code < 0:
            how = signal.Signals(-code).name
        return f"LiteRT's interpreter crashed on it ({how})"

    def close(self):
        """Ends the child; a second time it does nothing."""
        if self._errors.closed:
            return
        for stream in (self._child.stdin, self._child.stdout):
            try:
                stream.close()
            except OSError:
                pass  # the pipe of a child that is gone
        try:
            self._child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._errors.close()


_shared = None
_shared_lock = threading.Lock()


def _shared_process():
    """The child that runs files, started when first needed."""
    global _shared
    with _shared_lock:
        if _shared is None or not _shared.is_running:
            if _shared is None:
                atexit.register(_close_shared)
            _shared = Process()
        return _shared


def _close_shared():
    if _shared is not None and _shared.is_running:
        _shared.close()
