"""A .tflite on a device: integers in, integers out, and what to know there.

Shows: the `ai_edge_litert` interpreter with a file of this library: names,
    types, scales of inputs and outputs; a batch of images, given as int8 and
    read as int8; accuracy; latency of one image with one and two threads. By
    default the file is made here; `--model` takes another one. With `--tflm`
    the same integers go through TensorFlow Lite for Microcontrollers too, in
    Python, and are compared.
Needs: pip install ".[demo]"; for --tflm: pip install --pre tflite-micro.
    On a device take `interpreter_for`, `to_codes` and `run` along, which need
    ai-edge-litert and NumPy alone.
Time: 17 s on two busy CPU cores, 11 s of processor time.
Result: `python examples/run_on_device.py`, x86, LiteRT 2.3. A network this
    small gains nothing from a second thread.

    tensor  type           shape       scale  zero point
    ------  ----  --------------  ----------  ----------
    image   int8  [497, 8, 8, 1]  0.00407269        -128
    dense   int8       [497, 10]   0.0189287           0
    accuracy on 497 images: 96.98%
    threads  microseconds per image
    -------  ----------------------
    1                          10.7
    2                          11.1

    With `--tflm --storage=int8`: TFLM and LiteRT: 98.9% of codes equal,
    largest difference 1. With `--tflm` alone TFLM refuses the file, see below.

Android. LiteRT 2.1 offers `CompiledModel` (CPU, GPU, NPU; the current one) and
`Interpreter` (CPU only, kept for compatibility), from Maven's
`com.google.ai.edge.litert:litert`. In Kotlin it begins with
`CompiledModel.create("model.tflite", CompiledModel.Options(Accelerator.CPU))`,
then `createInputBuffers()`, `createOutputBuffers()`, `run(inputs, outputs)`.
https://ai.google.dev/edge/litert/android. What is verified by this library is
the CPU, with XNNPACK; GPUs and NPUs may compute in other precisions.

Microcontrollers (TFLM). `xxd -i model.tflite > model_data.cc` makes a C array;
make it `const` and aligned, and register with `MicroMutableOpResolver` the
operators that `keras-saq inspect model.tflite` lists.
https://ai.google.dev/edge/litert/microcontrollers/build_convert.
Export with `storage="int8"`: TFLM has INT4 kernels of CONV_2D, of
DEPTHWISE_CONV_2D and of FULLY_CONNECTED, but the last refuses INT4 weights with
a scale per channel, as those of this library have, and INT2 is not loaded. TFLM
rounds otherwise than XNNPACK; how many codes differ, and by how much, `--tflm`
says. (Read in the sources of tflite-micro, and tried with its Python package of
October 2026.)
"""

import pathlib
import statistics
import sys
import time

import numpy as np
from absl import app
from absl import flags

from keras_saq.data import load_digits
from keras_saq.table import format_table

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_bool("smoke", False, "Few steps and images: does it run?")
    flags.DEFINE_string(
        "model", None, "A .tflite for 8x8 digits; by default one is trained."
    )
    flags.DEFINE_enum(
        "storage",
        "exact",
        ["exact", "small", "int8"],
        "How codes are stored; int8 for microcontrollers.",
    )
    flags.DEFINE_bool("tflm", False, "Run it with tflite-micro as well.")
    flags.DEFINE_integer(
        "runs", 300, "Images that are timed, per row.", lower_bound=1
    )
    flags.DEFINE_string("output", "device.tflite", "The file that is made.")


def make_file(data):
    """Trains a w4a8 network and writes it with int8 inputs and outputs."""
    import keras

    import keras_saq

    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(24, 3, padding="same", activation="relu")(inputs)
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(64, 1, activation="relu")(x)
    model = keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))
    q = keras_saq.quantize_model(model, "w4a8", calibration=data.x_train[:256])
    saq = keras_saq.SAQModel(q, rho=0.05)
    saq.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    epochs = 1 if FLAGS.smoke else 15
    saq.fit(data.x_train, data.y_train, epochs=epochs, verbose=2)
    path = pathlib.Path(FLAGS.output)
    saq.export(
        path,
        format="litert",
        input_type="int8",
        output_type="int8",
        storage=FLAGS.storage,
    )
    return path


def interpreter_for(path, batch_size, num_threads=1):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=num_threads)
    (source,) = interpreter.get_input_details()
    shape = [batch_size, *source["shape"][1:]]
    interpreter.resize_tensor_input(source["index"], shape)
    interpreter.allocate_tensors()
    return interpreter


def to_codes(x, details):
    """Real values as the integers of a tensor: round(x / scale) + zero."""
    scale, zero_point = details["quantization"]
    limits = np.iinfo(details["dtype"])
    codes = np.rint(x / np.float32(scale)) + zero_point
    return np.clip(codes, limits.min, limits.max).astype(details["dtype"])


def run(interpreter, codes):
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], codes)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def median_microseconds(interpreter, codes, runs):
    """Time of one image, the median over many."""
    times = []
    for i in range(runs):
        start = time.perf_counter()
        run(interpreter, codes[i % len(codes)][None])
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times)


def run_tflm(path, codes):
    """What TensorFlow Lite for Microcontrollers makes of the codes."""
    try:
        from tflite_micro.python.tflite_micro import runtime
    except ImportError as error:
        sys.exit(f"TFLM: pip install --pre tflite-micro ({error})")
    try:
        interpreter = runtime.Interpreter.from_file(str(path))
    except RuntimeError as error:
        sys.exit(f"{error}. Is the file written with --storage=int8?")
    outputs = []
    for image in codes:
        interpreter.set_input(image[None], 0)
        interpreter.invoke()
        outputs.append(interpreter.get_output(0)[0])
    return np.array(outputs)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    try:
        data = load_digits()
    except ImportError as error:
        sys.exit(str(error))
    path = pathlib.Path(FLAGS.model) if FLAGS.model else make_file(data)
    if not path.is_file():
        sys.exit(f"There is no file '{path}'.")

    interpreter = interpreter_for(path, len(data.x_test))
    (source,) = interpreter.get_input_details()
    (target,) = interpreter.get_output_details()
    if np.dtype(source["dtype"]).kind not in "iu":
        sys.exit(
            f"The input of '{path}' is {np.dtype(source['dtype'])}. Export it "
            'with `input_type="int8", output_type="int8"`.'
        )
    rows = [
        (
            each["name"],
            np.dtype(each["dtype"]).name,
            str(each["shape"].tolist()),
            f"{each['quantization'][0]:.6g}",
            str(each["quantization"][1]),
        )
        for each in (source, target)
    ]
    header = ("tensor", "type", "shape", "scale", "zero point")
    print(format_table(header, rows))

    codes = to_codes(data.x_test, source)
    logits = run(interpreter, codes)  # int8: argmax needs no scale
    accuracy = (logits.argmax(axis=-1) == data.y_test).mean()
    print(f"accuracy on {len(codes)} images: {accuracy:.2%}")

    runs = 10 if FLAGS.smoke else FLAGS.runs
    rows = []
    for threads in (1, 2):
        interpreter = interpreter_for(path, 1, threads)
        microseconds = median_microseconds(interpreter, codes, runs)
        rows.append((str(threads), f"{microseconds:.1f}"))
    print(format_table(("threads", "microseconds per image"), rows))

    if FLAGS.tflm:
        difference = np.abs(run_tflm(path, codes).astype(int) - logits)
        print(
            f"TFLM and LiteRT: {(difference == 0).mean():.1%} of codes equal, "
            f"largest difference {difference.max()}"
        )


if __name__ == "__main__":
    define_flags()
    app.run(main)
