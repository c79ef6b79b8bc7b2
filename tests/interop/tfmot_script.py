"""Works with TFMOT and prints what came out, as JSON.

A program of its own: to import TFMOT turns `tf.keras` into tf_keras, which
the other tests must not see.
"""

import json
import pathlib
import sys
import tempfile

import keras
import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras
from ai_edge_litert.interpreter import Interpreter
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (  # noqa: E501
    default_8bit_quantize_registry,
)

import keras_saq
from keras_saq import QuantizeConfig
from keras_saq.interop.tfmot import from_tfmot
from keras_saq.interop.tfmot import to_tfmot
from keras_saq.policy.foreign import as_quantizer
from keras_saq.quantizers import LSQ

tfmot_keras = tfmot.quantization.keras
rng = np.random.default_rng(0)
IMAGES = rng.random((32, 8, 8, 3)).astype("float32")
TARGETS = rng.random((32, 4)).astype("float32")


def config(num_bits=4, channel_axes=(-1,)):
    weight = LSQ(num_bits, narrow_range=True, channel_axes=channel_axes)
    return QuantizeConfig({"kernel": weight}, outputs=LSQ(8, signed=None))


def annotated(layer, quantize_config):
    return tfmot_keras.quantize_annotate_layer(layer, to_tfmot(quantize_config))


def network(num_bits=4, dense_axes=(-1,)):
    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers
    conv = layers.Conv2D(6, 3, activation="relu", name="conv")
    depthwise = layers.DepthwiseConv2D(3, name="depthwise")
    dense = layers.Dense(4, name="dense")
    model = tf_keras.Sequential(
        [
            layers.InputLayer((8, 8, 3)),
            annotated(conv, config(num_bits)),
            annotated(depthwise, config(num_bits, (-2, -1))),
            layers.Flatten(),
            annotated(dense, config(num_bits, dense_axes)),
        ]
    )
    return tfmot_keras.quantize_apply(model)


def values(model, text):
    return {v.name: v.numpy() for v in model.variables if text in v.name}


def kernel_difference(wrapper, axes, training):
    """Between our Keras 3 quantizer and TFMOT's, at the same kernel."""
    kernel, quantizer, variables = wrapper._weight_vars[0]
    ours = LSQ(4, narrow_range=True, channel_axes=axes)
    ours.initialize(kernel.numpy())
    expected = keras.ops.convert_to_numpy(ours(kernel.numpy()))
    received = quantizer(kernel, training, weights=variables).numpy()
    assert np.unique(expected).size > 10
    return float(np.abs(expected - received).max())


def layer_difference(wrapper, x):
    """Between the whole layer here, and computed from our quantizers."""
    kernel, _, variables = wrapper._weight_vars[0]
    weight = LSQ(4, narrow_range=True, channel_axes=(-1,))
    weight.build(kernel.shape)
    weight.set_scale(np.exp(variables["log_scale"].numpy()))
    output = LSQ(8)
    output.build(())
    output.set_scale(np.exp(wrapper._output_quantizer_vars["log_scale"]))
    kernel = keras.ops.convert_to_numpy(weight(kernel.numpy()))
    y = x @ kernel + wrapper.layer.bias.numpy()
    expected = keras.ops.convert_to_numpy(output(y))
    return float(np.abs(expected - wrapper(x, training=False).numpy()).max())


def check_training():
    model = network()
    conv, depthwise = (
        model.get_layer(f"quant_{n}") for n in ("conv", "depthwise")
    )
    result = {
        "kernel_training": kernel_difference(conv, (-1,), True),
        "kernel_inference": kernel_difference(conv, (-1,), False),
        "depthwise_training": kernel_difference(depthwise, (-2, -1), True),
        "depthwise_inference": kernel_difference(depthwise, (-2, -1), False),
    }
    before = values(model, "log_scale")
    result["states_before"] = sorted(
        float(v) for v in values(model, "state").values()
    )
    model.compile(tf_keras.optimizers.SGD(0.05), "mse")
    model.fit(IMAGES, TARGETS, batch_size=32, epochs=1, verbose=0)
    after = values(model, "log_scale")
    result["moved"] = {
        name: float(np.mean(before[name] != after[name])) for name in before
    }
    result["states_after"] = {
        name: float(v) for name, v in values(model, "state").items()
    }
    x = rng.standard_normal((16, 96)).astype("float32")
    result["layer"] = layer_difference(model.get_layer("quant_dense"), x)
    second = {k: v.copy() for k, v in after.items()}
    model.fit(IMAGES, TARGETS, batch_size=32, epochs=1, verbose=0)
    steps = [
        float(np.abs(value - second[name]).max())
        for name, value in values(model, "log_scale").items()
    ]
    result["second_steps"] = [min(steps), max(steps)]
    with tempfile.TemporaryDirectory() as folder:
        path = str(pathlib.Path(folder) / "q.h5")
        model.save(path)
        with tfmot_keras.quantize_scope():
            loaded = tf_keras.models.load_model(path)
    result["loaded"] = float(
        np.abs(
            loaded.predict(IMAGES, verbose=0) - model.predict(IMAGES, verbose=0)
        ).max()
    )
    return result


def check_file():
    """An int8 file by the route that TFMOT's users take."""
    model = network(8, dense_axes=())
    model.compile("sgd", "mse")
    model.fit(IMAGES, TARGETS, epochs=1, verbose=0)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    interpreter = Interpreter(model_content=converter.convert())
    interpreter.allocate_tensors()
    (source,) = interpreter.get_input_details()
    (target,) = interpreter.get_output_details()
    results = []
    for image in IMAGES[:8]:
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        results.append(interpreter.get_tensor(target["index"])[0])
    step = np.exp(model.layers[-1]._output_quantizer_vars["log_scale"])
    difference = np.abs(results - model.predict(IMAGES[:8], verbose=0)).max()
    types = [d["dtype"].__name__ for d in interpreter.get_tensor_details()]
    return {
        "steps_off": float(difference / step),
        "int8": types.count("int8"),
        "float": types.count("float32"),
    }


def check_carried_scale():
    kernel = rng.standard_normal((5, 4)).astype("float32")
    ours = LSQ(4, narrow_range=True, channel_axes=(-1,))
    ours.initialize(kernel)
    ours.set_scale(keras.ops.convert_to_numpy(ours.scale) * 1.5)
    dense = tf_keras.layers.Dense(4, input_shape=(5,), name="dense")
    model = tf_keras.Sequential(
        [annotated(dense, QuantizeConfig({"kernel": ours}))]
    )
    model = tfmot_keras.quantize_apply(model)
    wrapper = model.get_layer("quant_dense")
    _, quantizer, variables = wrapper._weight_vars[0]
    received = quantizer(kernel, False, weights=variables).numpy()
    expected = keras.ops.convert_to_numpy(ours(kernel))
    return float(np.abs(received - expected).max())


def check_numerics():
    """TFMOT's quantizers and what they are read as, step by step."""
    differences = {}
    for name in (
        "LastValueQuantizer",
        "MovingAverageQuantizer",
        "AllValuesQuantizer",
    ):
        for num_bits, per_axis, symmetric, narrow_range in (
            (8, False, True, True),
            (4, False, True, False),
            (4, True, True, True),
            (8, False, False, False),
            (4, False, False, True),
        ):
            if per_axis and name != "LastValueQuantizer":
                continue  # TFMOT keeps one range in the others
            if symmetric and name == "MovingAverageQuantizer":
                continue  # averaged before, not after, it is made symmetric
            theirs = getattr(tfmot_keras.quantizers, name)(
                num_bits, per_axis, symmetric, narrow_range
            )
            ours = as_quantizer(theirs, "ours", "it", is_weight=symmetric)
            layer = tf_keras.layers.Layer()
            variables = theirs.build(tf.TensorShape((70, 50)), "x", layer)
            key = f"{name} {num_bits} {per_axis} {symmetric} {narrow_range}"
            for step in range(4):
                x = rng.standard_normal((70, 50)).astype("float32") * (step + 1)
                if step == 0:
                    ours.build(x.shape)
                    if name == "AllValuesQuantizer":
                        ours.initialize(x)  # TFMOT's range starts at zero
                expected = theirs(tf.constant(x), True, variables).numpy()
                received = ours(keras.ops.convert_to_tensor(x), training=True)
                received = keras.ops.convert_to_numpy(received)
                # A value between two codes may be rounded either way.
                other = np.abs(expected - received) > 1e-5
                differences[key] = differences.get(key, 0) + int(other.sum())
    return differences


def check_from_tfmot():
    class UserConfig(tfmot_keras.QuantizeConfig):
        def get_weights_and_quantizers(self, layer):
            quantizer = tfmot_keras.quantizers.LastValueQuantizer(
                num_bits=4, per_axis=True, symmetric=True, narrow_range=True
            )
            return [(layer.kernel, quantizer)]

        def get_activations_and_quantizers(self, layer):
            quantizer = tfmot_keras.quantizers.MovingAverageQuantizer(
                num_bits=8, per_axis=False, symmetric=False, narrow_range=False
            )
            return [(layer.activation, quantizer)]

        def set_quantize_weights(self, layer, quantize_weights):
            raise AssertionError("Keras 3 layers are only read")

        def set_quantize_activations(self, layer, quantize_activations):
            raise AssertionError("Keras 3 layers are only read")

        def get_output_quantizers(self, layer):
            return []

        def get_config(self):
            return {}

    default = default_8bit_quantize_registry.Default8BitConvQuantizeConfig(
        ["kernel"], ["activation"], False
    )
    layer = keras.layers.Dense(4, activation="relu", name="head")
    layer.build((None, 3))
    result = {}
    for name, given in (("user", UserConfig()), ("default", default)):
        read = from_tfmot(given, layer)
        weight = read.weights["kernel"]
        result[name] = [
            list(read.weights),
            [weight.num_bits, weight.narrow_range, list(weight.channel_axes)],
            [read.outputs.num_bits, read.outputs.symmetric],
        ]
    dense = keras.layers.Dense(4, activation="relu", name="head")
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras_saq.quantize_annotate_layer(dense, UserConfig()),
        ]
    )
    q = keras_saq.quantize_apply(model, "w8a8")
    head = q.get_layer("head")
    result["applied"] = [
        head.kernel_quantizer.num_bits,
        head.output_quantizer.num_bits,
    ]
    return result


def main():
    checks = {
        name.removeprefix("check_"): function()
        for name, function in list(globals().items())
        if name.startswith("check_")
    }
    print(json.dumps(checks), file=sys.__stdout__)


if __name__ == "__main__":
    main()
