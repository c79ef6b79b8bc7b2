"""Bit operations against the published counts of the SAQ paper's network."""

import importlib.util
import pathlib

import keras
import numpy as np
import pytest

import keras_saq
from keras_saq.layers.storage import storage_bits
from keras_saq.search import layer_costs
from tests import networks
from tests.networks import images

layers = keras.layers
EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


def resnet20(num_classes=100):
    path = EXAMPLES / "cifar_resnet20.py"
    spec = importlib.util.spec_from_file_location("resnet20_for_cost", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.preact_resnet20(num_classes)


@pytest.mark.parametrize("scheme", ["litert", "paper"])
@pytest.mark.parametrize(
    "bits, millions", [("w2a2", 190.2), ("w3a3", 392.05), ("w4a4", 674.64)]
)
def test_resnet20_on_cifar100(bits, millions, scheme):
    """ziplab/SAQ: 392.1 M and 674.6 M; 2 bits by the same formula."""
    policy = keras_saq.QuantizePolicy.preset(bits, scheme=scheme)
    q = keras_saq.quantize_model(resnet20(), policy)
    bops = keras_saq.summary(q, print_fn=False).bops
    assert round(bops / 1e6, 1 if bits == "w2a2" else 2) == millions


def test_macs_of_each_kind_of_layer():
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(6, 3, groups=2)(inputs)  # 6x6
    x = layers.DepthwiseConv2D(3, strides=2, padding="same")(x)  # 3x3
    x = layers.Dense(5)(layers.Flatten()(x))
    macs = [c.macs for c in layer_costs(keras.Model(inputs, x))]
    assert macs == [3 * 3 * 2 * 6 * 36, 3 * 3 * 6 * 9, 54 * 5]


def test_float_model_counts_32_bits():
    inputs = keras.Input((4,))
    (cost,) = layer_costs(keras.Model(inputs, layers.Dense(3)(inputs)))
    assert cost.weight_bits == cost.activation_bits == 32
    assert cost.bops == 12 * 32 * 32
    assert cost.stored_bytes == (12 + 3) * 4


def test_storage_follows_the_kernels_of_litert():
    inputs = keras.Input((8, 8, 4))
    dense, conv1 = layers.Dense(8), layers.Conv2D(8, 1)
    strided, conv3 = layers.Conv2D(8, 1, strides=2), layers.Conv2D(8, 3)
    for layer in (dense, conv1, strided, conv3):
        layer(inputs)
    assert [storage_bits(dense, b) for b in (2, 3, 4, 5)] == [2, 4, 4, 8]
    assert storage_bits(conv1, 4) == 4
    assert storage_bits(strided, 4) == storage_bits(conv3, 2) == 8


def test_stored_bytes_are_those_of_the_file(tmp_path):
    x, _ = images()
    model = networks.sequential_network()
    q = keras_saq.quantize_model(model, "w4a8", calibration=x)
    report = q.export(tmp_path / "m.tflite", format="litert")
    weights = [t for t in report.tensors if t.name.endswith("/weights")]
    biases = [t for t in report.tensors if t.name.endswith("/bias")]
    # A float32 scale per channel is not a tensor but a tensor's property.
    channels = sum(np.prod(t.shape) for t in biases)
    stored = sum(t.num_bytes for t in (*weights, *biases)) + 4 * channels
    assert keras_saq.summary(q, print_fn=False).stored_bytes == stored


def test_no_static_size():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layers.Conv2D(4, 3)(inputs))
    with pytest.raises(ValueError, match="no static output size"):
        layer_costs(model)
