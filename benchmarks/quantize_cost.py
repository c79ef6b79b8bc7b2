"""What quantizing costs: time, and size of the `.keras` file.

    python benchmarks/quantize_cost.py
    python benchmarks/quantize_cost.py --network=ResNet50 --policy=w8a8

`quantize_model` without calibration data, on a network of `keras.applications`
as it is made by default (MobileNetV2: 224x224x3, 1000 classes). The first of
the rounds pays for imports. Where other programs run beside it, processor time
is the steadier number.
"""

import pathlib
import statistics
import tempfile
import time
import warnings

import keras
from absl import app
from absl import flags

import keras_saq
from keras_saq.table import format_table

FLAGS = flags.FLAGS
flags.DEFINE_string("network", "MobileNetV2", "in `keras.applications`")
flags.DEFINE_string("policy", "w4a8", "a preset or a policy's `.json`")
flags.DEFINE_integer("rounds", 3, "how often it is quantized")


def timed(function):
    """Seconds of the clock and of the processor, and what is returned."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def file_bytes(model, path):
    model.save(path)
    return path.stat().st_size


def main(_):
    model = getattr(keras.applications, FLAGS.network)(weights=None)
    # What stays in float is not the subject here.
    warnings.simplefilter("ignore", UserWarning)
    rounds = [
        timed(lambda: keras_saq.quantize_model(model, FLAGS.policy))
        for _ in range(FLAGS.rounds)
    ]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        before = file_bytes(model, folder / "float.keras")
        after = file_bytes(rounds[-1][2], folder / "quantized.keras")
    wall, cpu = ([times[i] for times in rounds] for i in range(2))
    rows = [
        ("seconds, first round", f"{wall[0]:.2f}"),
        ("seconds, median", f"{statistics.median(wall):.2f}"),
        ("processor seconds, first round", f"{cpu[0]:.2f}"),
        ("processor seconds, median", f"{statistics.median(cpu):.2f}"),
        ("float .keras, bytes", f"{before:,}"),
        ("quantized .keras, bytes", f"{after:,}"),
        ("quantized / float", f"{after / before:.4f}"),
    ]
    title = f"{FLAGS.network}, {FLAGS.policy}, {keras.backend.backend()}"
    print(format_table((title, ""), rows, num_left=1))


if __name__ == "__main__":
    app.run(main)
