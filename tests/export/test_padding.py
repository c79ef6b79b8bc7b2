"""PADs that become part of a convolution, and those that do not."""

import keras
import numpy as np
import pytest

import keras_saq
from keras_saq.export.lower import lower_model
from keras_saq.export.padding import with_fused_padding

layers = keras.layers


def network(padding, size=8, kernel=3, strides=2, second_reader=False):
    inputs = keras.Input((size, size, 3))
    x = padded = layers.ZeroPadding2D(padding)(inputs)
    x = layers.DepthwiseConv2D(kernel, strides)(x)
    x = layers.GlobalAveragePooling2D()(x)
    if second_reader:
        y = layers.GlobalMaxPooling2D()(padded)
        x = layers.Concatenate()([x, y])
    model = keras.Model(inputs, layers.Dense(4)(x))
    x = np.random.default_rng(0).normal(size=(12, size, size, 3))
    x = x.astype("float32")
    return keras_saq.quantize_model(model, "w4a8", calibration=x), x


@pytest.mark.parametrize(
    "padding, options, num_pads",
    [
        (((0, 1), (0, 1)), {}, 0),
        (((1, 1), (1, 1)), {"size": 9}, 0),
        (((1, 1), (1, 1)), {"strides": 1}, 0),
        (((1, 2), (1, 2)), {"kernel": 5}, 0),
        (((1, 1), (1, 1)), {}, 1),
        (((0, 1), (0, 2)), {}, 1),
        (((0, 1), (0, 1)), {"second_reader": True}, 1),
    ],
)
def test_files_compute_the_same_with_and_without(
    padding, options, num_pads, tmp_path
):
    model, x = network(padding, **options)
    program = lower_model(model)
    assert "pad" in {op.kind for op in program.ops}
    fused = with_fused_padding(program)
    assert sum(op.kind == "pad" for op in fused.ops) == num_pads
    path = tmp_path / "m.tflite"
    report = keras_saq.export_litert(model, path)
    assert report.operators.get("PAD", 0) == num_pads
    # `verify_litert` compares with the program that has its PADs.
    assert keras_saq.verify_litert(path, model, x).reference_exact
