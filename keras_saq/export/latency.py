"""`benchmark_litert`: how long files take, beside each other."""

import dataclasses
import json
import pathlib

import numpy as np

from keras_saq.export.isolated import FileError
from keras_saq.export.isolated import Process
from keras_saq.table import format_table


@dataclasses.dataclass(frozen=True)
class FileLatency:
    """How long one file takes for one sample.

    Attributes:
        path: the file.
        file_bytes: its size.
        median_ms: median time of an inference, in milliseconds.
        low_ms: the time that a tenth of the rounds are below.
        high_ms: the time that a tenth of the rounds are above.
        ratio: median over rounds of its time to the first file's in the same
            round.
        ratio_low: the ratio that a tenth of the rounds are below.
        ratio_high: the ratio that a tenth of the rounds are above.
        cpu_ms: median time of the processor, all threads together.
        cpu_ratio: as `ratio`, of processor time. Where other programs run
            beside it, this is the steadier one.
        peak_bytes: by how much loading and running it raise the memory of a
            process that does nothing else.
    """

    path: str
    file_bytes: int
    median_ms: float
    low_ms: float
    high_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    cpu_ms: float
    cpu_ratio: float
    peak_bytes: int


@dataclasses.dataclass(frozen=True)
class LatencyReport:
    """What `benchmark_litert` measured; printed, a table.

    Attributes:
        files: a `FileLatency` for each file, in the order they were given.
        num_threads: threads of the kernels.
        rounds: how often the files took turns.
        resolver: the kernels that ran.
    """

    files: tuple
    num_threads: int
    rounds: int
    resolver: str

    def to_dict(self):
        """Everything, of types that JSON has."""
        return dataclasses.asdict(self)

    def to_json(self):
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self):
        rows = [
            (
                f.path,
                f"{f.file_bytes:,}",
                f"{f.median_ms:.3f}",
                f"{f.low_ms:.3f} to {f.high_ms:.3f}",
                f"{f.ratio:.3f}",
                f"{f.ratio_low:.3f} to {f.ratio_high:.3f}",
                f"{f.cpu_ratio:.3f}",
                f"{f.peak_bytes / 2**20:.1f}",
            )
            for f in self.files
        ]
        header = (
            *("file", "bytes", "median ms", "10 % to 90 %"),
            *("ratio", "10 % to 90 %", "cpu ratio", "peak MiB"),
        )
        plural = "" if self.num_threads == 1 else "s"
        threads = f"{self.num_threads} thread{plural}"
        return (
            f"{format_table(header, rows)}\n"
            f"{self.resolver}, {threads}, {self.rounds} rounds in turns; "
            "ratios to the first file, round by round"
        )


def benchmark_litert(
    filepaths, num_threads=1, rounds=50, warmup=5, delegate=True
):
    """Measures the latency of `.tflite` files in turns.

    All files are loaded in one process of their own and take turns, round by
    round and in a random order within each, on random inputs of one sample.
    A machine whose speed drifts slows all of them, so that the ratios mean
    more than the times. Peak memory is measured in a process per file.

    Args:
        filepaths: paths of one file or more; ratios are to the first.
        num_threads: threads of the kernels.
        rounds: how often the files take turns.
        warmup: runs of each file before it is timed.
        delegate: whether XNNPACK may take what it can.

    Returns:
        A `LatencyReport`.

    Raises:
        ValueError: if a file cannot be read or run.

    Example:

    >>> import keras, keras_saq, numpy as np, tempfile
    >>> inputs = keras.Input((16,))
    >>> model = keras.Model(inputs, keras.layers.Dense(4)(inputs))
    >>> x = np.linspace(-1, 1, 64, dtype="float32").reshape(4, 16)
    >>> q = keras_saq.quantize_model(model, "w4a8", calibration=x)
    >>> path = tempfile.mkdtemp() + "/m.tflite"
    >>> report = keras_saq.export_litert(q, path)
    >>> keras_saq.benchmark_litert([path, path], rounds=3).files[0].ratio
    1.0
    """
    paths = [pathlib.Path(path) for path in filepaths]
    if not paths:
        raise ValueError("There is no file to measure: `filepaths` is empty.")
    for name, value in (
        ("num_threads", num_threads),
        ("rounds", rounds),
        ("warmup", warmup),
    ):
        if value < 1:
            raise ValueError(
                f"`{name}` must be at least 1. Received: {name}={value}"
            )
    options = {"num_threads": num_threads, "delegate": delegate}
    contents, peaks = [], []
    for path in paths:
        try:
            contents.append(np.frombuffer(path.read_bytes(), np.uint8))
        except OSError as error:
            raise ValueError(
                f"'{path}' cannot be read: {error.strerror or error}"
            ) from error
        try:
            header, _ = _ask("memory", contents[-1:], **options)
        except FileError as error:
            raise ValueError(f"'{path}' cannot be run: {error}") from error
        peaks.append(header["bytes"])
    _, (seconds, cpu) = _ask(
        "time", contents, **options, rounds=rounds, warmup=warmup
    )
    files = []
    for path, content, peak, times, cpu_times in zip(
        paths, contents, peaks, seconds, cpu
    ):
        low, median, high = np.percentile(times * 1e3, (10, 50, 90))
        ratios = np.percentile(times / seconds[0], (10, 50, 90))
        files.append(
            FileLatency(
                str(path),
                len(content),
                float(median),
                float(low),
                float(high),
                *(float(ratios[i]) for i in (1, 0, 2)),
                float(np.median(cpu_times) * 1e3),
                float(np.median(cpu_times / cpu[0])),
                peak,
            )
        )
    resolver = "XNNPACK" if delegate else "built-in kernels"
    return LatencyReport(tuple(files), num_threads, rounds, resolver)


def _ask(request, arrays, **options):
    process = Process()
    try:
        return process.ask({"request": request, **options}, arrays)
    finally:
        process.close()
