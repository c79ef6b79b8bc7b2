"""The trainings behind `keras-saq demo`."""

import contextlib
import os
import sys
import warnings

import keras
import numpy as np
from absl import logging

import keras_saq
from keras_saq.data import load_digits
from keras_saq.report.runs import Run

_BATCH_SIZE = 65
_FLOAT_LEARNING_RATE = 3e-3
_QUANTIZED_LEARNING_RATE = 1e-3


def digits_network():
    """A small residual network; most weights are in 1x1 convolutions."""
    layers = keras.layers

    def norm(x, relu=True):
        x = layers.BatchNormalization(momentum=0.9)(x)
        return layers.ReLU(6)(x) if relu else x

    def block(x):
        y = norm(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x))
        y = norm(layers.Conv2D(64, 1, use_bias=False)(y), relu=False)
        return layers.Add()([x, y])

    inputs = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(24, 3, padding="same", use_bias=False)(inputs)
    x = layers.MaxPooling2D()(norm(x))
    x = norm(layers.Conv2D(64, 1, use_bias=False)(x))
    x = layers.ReLU()(block(block(x)))
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(128, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(x))


def run_all(output, bits, methods, num_seeds, epochs, rho):
    """Trains, exports and verifies every variant.

    Args:
        output: folder for the files; those of the last seed stay.
        bits: presets.
        methods: among `"qat"` and `"saq"`.
        num_seeds: how many seeds.
        epochs: epochs of each training.
        rho: radius of SAQ's perturbation.

    Returns:
        List of `Run`s.
    """
    data = load_digits()
    variants = [(b, m) for b in bits for m in methods]
    steps = len(data.x_train) // _BATCH_SIZE
    progress = _Progress(num_seeds * epochs * steps * (1 + len(variants)))
    runs = []
    for seed in range(num_seeds):
        keras.utils.set_random_seed(seed)
        model = digits_network()
        _train(model, data, epochs, _FLOAT_LEARNING_RATE, seed, progress)
        runs.append(_float_run(model, data, output, seed))
        for preset, method in variants:
            keras.utils.set_random_seed(seed)
            quantized = keras_saq.quantize_model(
                model, preset, calibration=data.x_train[:256]
            )
            if method == "saq":
                quantized = keras_saq.SAQModel(quantized, rho=rho)
            _train(
                quantized,
                data,
                epochs,
                _QUANTIZED_LEARNING_RATE,
                seed,
                progress,
            )
            path = output / f"{preset}-{method}.tflite"
            runs.append(
                _quantized_run(quantized, data, path, preset, method, seed)
            )
    return runs


class _Progress(keras.callbacks.Callback):
    """One bar over all trainings."""

    def __init__(self, num_steps):
        super().__init__()
        # Into a file or pipe a line per step would be no progress bar.
        verbose = 1 if sys.stdout.isatty() else 2
        self._bar = keras.utils.Progbar(num_steps, verbose=verbose)

    def on_train_batch_end(self, batch, logs=None):
        self._bar.add(1)


def _train(model, data, epochs, learning_rate, seed, progress):
    steps = len(data.x_train) // _BATCH_SIZE
    schedule = keras.optimizers.schedules.CosineDecay(
        learning_rate, epochs * steps
    )
    model.compile(
        keras.optimizers.Adam(schedule),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=keras.backend.backend() != "tensorflow",
    )
    # Whole batches only: one shape, compiled once.
    count = steps * _BATCH_SIZE
    order = np.random.default_rng(seed).permutation(len(data.x_train))[:count]
    model.fit(
        data.x_train[order],
        data.y_train[order],
        batch_size=_BATCH_SIZE,
        epochs=epochs,
        verbose=0,
        callbacks=[progress],
    )


def _accuracy(logits, labels):
    return float((logits.argmax(axis=-1) == labels).mean())


def _quantized_run(model, data, path, preset, method, seed):
    report = model.export(path, format="litert")
    parity = keras_saq.verify_litert(path, model, data.x_test)
    return Run(
        bits=preset,
        method=method,
        seed=seed,
        keras_accuracy=_accuracy(parity.predicted[0], data.y_test),
        file_accuracy=_accuracy(parity.outputs[0], data.y_test),
        file_bytes=report.file_bytes,
        max_lsb=parity.max_lsb,
        exact=parity.exact,
        top1_agreement=parity.top1_agreement,
        reference_exact=parity.reference_exact,
        resolver=parity.resolver,
    )


def _float_run(model, data, output, seed):
    """Keras's own float export, where its backend has one."""
    logits = model.predict(data.x_test, batch_size=256, verbose=0)
    run = Run("float", "float", seed, _accuracy(logits, data.y_test))
    if keras.backend.backend() != "tensorflow":
        return run
    path = output / "float.tflite"
    with _silence():
        model.export(path, format="litert", verbose=False)
    outputs = _run_float_file(path, data.x_test)
    run.file_bytes = path.stat().st_size
    run.file_accuracy = _accuracy(outputs, data.y_test)
    run.top1_agreement = float(
        (outputs.argmax(axis=-1) == logits.argmax(axis=-1)).mean()
    )
    return run


@contextlib.contextmanager
def _silence():
    """Hides what Keras and the converter print about their inner workings."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with (
            open(os.devnull, "w", encoding="utf-8") as nowhere,
            contextlib.redirect_stdout(nowhere),
            warnings.catch_warnings(),
        ):
            os.dup2(nowhere.fileno(), 2)
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        logging.set_verbosity(verbosity)


def _run_float_file(path, x):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    (inputs,) = interpreter.get_input_details()
    (outputs,) = interpreter.get_output_details()
    interpreter.resize_tensor_input(inputs["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(inputs["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(outputs["index"])
