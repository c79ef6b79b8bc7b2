"""Whole networks: quantize, one step of `fit`, save, load, predict, strip.

The default run takes the networks of `FAST`, eagerly; `pytest -m slow` takes
all of them, compiled as a user would. The table in docs/coverage.md is made
of what `--junitxml=zoo.xml -o junit_family=xunit1` then records.
"""

import collections
import time

import keras
import numpy as np
import pytest

import keras_saq
from keras_saq.layers import Quantized
from keras_saq.layers import roles
from keras_saq.layers.roles import is_weighted
from keras_saq.models.graph import Graph
from keras_saq.models.plan import UNKNOWN_ACTIVATION
from keras_saq.policy import layer_paths
from tests import zoo

# JAX compiles each shape of each operation that runs outside of a `jit`:
# there the other two are a minute each.
FAST = ["KerasHub ViT"]
if keras.backend.backend() == "tensorflow":
    FAST += ["MobileNetV2", "MobileNetV3Small", "subclassed", "two towers"]

# What these hold in float: activations, and what comes before the first
# quantizer.
CONVOLUTIONAL = {
    "MobileNetV2": set(),
    "MobileNetV3Small": {"Rescaling", "Activation"},
    "EfficientNetV2B0": {"Rescaling", "Normalization", "Activation", "Conv2D"},
    "ResNet50": set(),
    "DenseNet121": set(),
    "NASNetMobile": set(),
    "KerasHub MobileNet": {"Activation", "Conv2D"},
    "KerasHub ResNet": set(),
    "KerasHub EfficientNet": {"Activation", "Conv2D"},
    "KerasCV ResNet": {"Rescaling"},
    "U-Net": set(),
    "two towers": set(),
}

pytestmark = [
    pytest.mark.filterwarnings(r"ignore:\d+ layer\(s\) stay in float"),
    # KerasHub's Swin calls its own attention so.
    pytest.mark.filterwarnings("ignore:Layer 'attn'"),
]


@pytest.mark.parametrize("name", FAST)
def test_network(name, tmp_path, record_property):
    run_eagerly = keras.backend.backend() == "tensorflow"
    check_network(name, tmp_path, record_property, run_eagerly)


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_network_as_compiled(name, tmp_path, record_property):
    check_network(name, tmp_path, record_property, run_eagerly=False)


def check_network(name, folder, record, run_eagerly):
    if name.startswith("KerasHub"):
        pytest.importorskip("keras_hub")
    if name.startswith("KerasCV"):
        pytest.importorskip("keras_cv")
    start = time.perf_counter()
    model = zoo.NETWORKS[name]()
    x, y = zoo.data_for(name)
    q = keras_saq.quantize_model(model, "w4a8", calibration=x)
    assert_same_latent_weights(model, q)
    if name in CONVOLUTIONAL:
        assert_no_float_island(q, CONVOLUTIONAL[name])

    q.compile("sgd", "mse", run_eagerly=run_eagerly)
    history = q.fit(x, y, batch_size=zoo.SAMPLES, verbose=0)
    assert np.isfinite(history.history["loss"]).all()

    q.save(folder / "m.keras")
    loaded = keras.saving.load_model(folder / "m.keras")
    expected = q.predict(x, verbose=0)
    assert np.isfinite(expected).all()
    difference = np.abs(loaded.predict(x, verbose=0) - expected).max()
    assert difference == 0.0
    assert_same_variables(q, loaded)
    assert loaded.float_layers == q.float_layers

    summary = keras_saq.summary(q, print_fn=False)
    assert_every_weighted_layer_has_a_row(q, summary)

    float_model = keras_saq.strip(q)
    assert type(float_model) is type(model)
    assert not any(
        isinstance(layer, Quantized) for layer in float_model._flatten_layers()
    )
    float_model.compile(run_eagerly=run_eagerly)
    assert np.isfinite(float_model.predict(x, verbose=0)).all()

    floats = collections.Counter(
        (layer.layer_type, layer.reason) for layer in q.float_layers
    )
    record("network", name)
    record("quantized", sum(row.weight_bits != 32 for row in summary.rows))
    record(
        "floats",
        "; ".join(f"{n} {kind}: {why}" for (kind, why), n in floats.items()),
    )
    record("difference", float(difference))
    record("seconds", round(time.perf_counter() - start, 1))


def assert_same_latent_weights(model, q):
    """Quantizing changes no weight, and puts each where it was.

    But for what calibration corrects: statistics and biases.
    """
    corrected = ("bias", "moving_mean", "moving_variance")
    values = {v.path: v for v in q.variables}
    common = [
        v
        for v in model.variables
        if v.path in values and not v.path.endswith(corrected)
    ]
    for variable in common:
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(variable),
            keras.ops.convert_to_numpy(values[variable.path]),
            err_msg=variable.path,
        )


def assert_same_variables(a, b):
    """Bit for bit, but for seeds of dropout, which Keras does not save."""
    assert len(a.variables) == len(b.variables)
    for first, second in zip(a.variables, b.variables):
        if "seed_generator" not in first.path:
            np.testing.assert_array_equal(
                keras.ops.convert_to_numpy(first),
                keras.ops.convert_to_numpy(second),
                err_msg=first.path,
            )


def assert_every_weighted_layer_has_a_row(q, summary):
    paths = {row.path for row in summary.rows}
    for path, layer in layer_paths(q):
        # The cell of an LSTM is in the LSTM's row.
        inside = any(path.startswith(f"{row}/") for row in paths)
        if is_weighted(layer) and layer.built and not inside:
            assert path in paths
    assert all(row.weight_bits in (4, 8) for row in summary.rows)


# --- The graph of a convolutional network, in the scheme "litert"


def assert_no_float_island(q, allowed):
    """Whatever reads a tensor, other than an activation, reads integers."""
    floats = {layer.path: layer for layer in q.float_layers}
    assert {layer.layer_type for layer in floats.values()} <= allowed
    for layer in floats.values():
        if layer.layer_type in ("Activation", "Conv2D"):
            assert layer.reason == UNKNOWN_ACTIVATION
    for site in Graph(q).sites:
        operation = site.operation
        own = getattr(operation, "input_quantizer", None)
        behind = [quantizer_behind(value) for value in site.inputs]
        # One quantizer per tensor, which all of its consumers share.
        assert own is None or None in behind, site.path
        reads = (
            is_weighted(operation)
            or roles.is_integer(operation)
            and not roles.keeps_grid(operation)
            and roles.family(operation)
            not in ("batch_norm", "relu", "concatenate")
        )
        if reads and site.path not in floats:
            assert own is not None or None not in behind, site.path
        output = getattr(operation, "output_quantizer", None)
        if roles.is_concatenate(operation):
            assert output is not None, site.path
        if roles.is_relu(operation) and output is not None:
            assert output.signed is False, site.path


def quantizer_behind(value):
    """The quantizer whose integers a value holds, or `None`."""
    while value.producer is not None:
        operation = value.producer.operation
        output = getattr(operation, "output_quantizer", None)
        if output is not None:
            return output
        if not roles.keeps_grid(operation):
            return None
        own = getattr(operation, "input_quantizer", None)
        if own is not None:
            return own
        value = value.producer.inputs[0]
    return None
