"""Kernels that read weight codes and round their float input themselves."""

import keras
import numpy as np
import pytest

import keras_saq
from keras_saq.export import reference
from keras_saq.export.lower import lower_model

layers = keras.layers
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*stay in float"),
    pytest.mark.filterwarnings("ignore:Much of these kernels"),
]


def convolutions(x):
    x = layers.Conv2D(8, 3, use_bias=False, activation="relu")(x)
    x = layers.Conv2D(16, 3, strides=2, padding="same")(x)
    x = layers.ReLU(6)(layers.BatchNormalization()(x))
    x = layers.Conv2D(8, 1)(x)
    return layers.Dense(4)(layers.Flatten()(x))


def sequence(x):
    x = layers.Reshape((25, 8))(x)
    x = layers.Conv1D(8, 3, padding="causal")(x)
    x = layers.EinsumDense("...x,xy->...y", 6, bias_axes="y")(x)
    return layers.Dense(3)(layers.GlobalMaxPooling1D()(x))


def with_other_kernels(x):
    """Of these the depthwise kernel stays behind a DEQUANTIZE."""
    x = layers.Conv2D(8, 3, activation="swish")(x)
    x = layers.DepthwiseConv2D(3)(x)
    x = layers.Conv2D(8, 3, groups=2)(x)
    x = layers.Conv2DTranspose(8, 3)(x)
    return layers.Dense(4)(layers.GlobalAveragePooling2D()(x))


def transformer(x):
    x = layers.LayerNormalization()(layers.Reshape((25, 8))(x))
    x = x + layers.MultiHeadAttention(2, 4)(x, x)
    x = layers.Dense(16, activation="gelu")(x)
    return layers.Dense(3)(layers.GlobalAveragePooling1D()(x))


def data(seed=0):
    rng = np.random.default_rng(seed)
    # Samples of different ranges, and one without any.
    x = rng.normal(size=(64, 10, 10, 2)) * rng.uniform(0, 9, (64, 1, 1, 1))
    x[5] = 0.0
    return x.astype("float32")


def quantized(network, bits, seed=0):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((10, 10, 2))
    policy = keras_saq.QuantizePolicy.preset(bits, first_last_bits=None)
    model = keras.Model(inputs, network(inputs))
    return keras_saq.quantize_model(model, policy, calibration=data())


def export(q, path, **kwargs):
    path = path / "m.tflite"
    return path, keras_saq.export_litert(q, path, dynamic_range=True, **kwargs)


def equals_to_the_last_bit(q, path):
    """No tolerance for float outputs, which `verify_litert` has."""
    found = keras_saq.verify_litert(path, q, data()).outputs[0]
    program = lower_model(q, dynamic_range=True)
    return np.array_equal(found, reference.run(program, [data()])[0])


def transposed(x):
    return layers.Conv2DTranspose(6, 3, strides=2)(x)


def grouped(x):
    return layers.Conv2D(6, 3, groups=2)(x)


@pytest.mark.parametrize("bits", ["w8", "w4"])
@pytest.mark.parametrize("network", [convolutions, transposed, grouped])
def test_no_bit_differs(network, bits, tmp_path):
    q = quantized(network, bits)
    path, _ = export(q, tmp_path)
    assert equals_to_the_last_bit(q, path)


@pytest.mark.parametrize("bits", ["w8", "w4"])
@pytest.mark.parametrize(
    "network", [convolutions, sequence, with_other_kernels, transformer]
)
def test_file_is_what_the_reference_computes(network, bits, tmp_path):
    q = quantized(network, bits)
    path, report = export(q, tmp_path)
    parity = keras_saq.verify_litert(path, q, data())
    assert parity.reference_exact, str(parity)
    assert not parity.undelegated
    # The inputs of its kernels are rounded: close to the model, not the same.
    assert 0 < parity.max_lsb < 10
    has_packed = any(t.type == "INT4" for t in report.packed_tensors)
    assert has_packed == (bits == "w4")
    behind = {"with_other_kernels": 1}.get(network.__name__, 0)
    assert report.operators.get("DEQUANTIZE", 0) == behind
    reasons = [reason for _, reason in report.islands]
    assert any("8 bits of each sample's own range" in r for r in reasons)


def test_codes_of_two_bits(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((10, 10, 2))
    outputs = layers.Dense(4)(layers.Flatten()(inputs))
    policy = keras_saq.QuantizePolicy(
        rules=(keras_saq.Rule(weight_bits=2),), first_last_bits=None
    )
    model = keras.Model(inputs, outputs)
    q = keras_saq.quantize_model(model, policy, calibration=data())
    path, report = export(q, tmp_path, verify=data(), require_exact=True)
    assert [t.type for t in report.packed_tensors] == ["INT2"]
    assert report.parity.reference_exact and equals_to_the_last_bit(q, path)


def test_a_dense_kernel_by_hand(tmp_path):
    """Asymmetric codes of the row, exact sums, and the scales."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3)(inputs))
    x = np.float32([[1.0, -1.55, 0.3, 0.0], [0.2, 0.4, 0.9, 5.1]])
    q = keras_saq.quantize_model(model, "w8", calibration=x, correct=False)
    path, report = export(q, tmp_path)
    assert report.operators == {"FULLY_CONNECTED": 1}
    dense = q.layers[-1]
    weights = keras.ops.convert_to_numpy(
        dense.kernel_quantizer(dense.kernel)
    ).astype(float)
    # [-1.55, 1] is 255 steps of 0.01, and [0, 5.1] is 255 of 0.02.
    steps = np.array([[0.01], [0.02]])
    codes = np.array([[100, -155, 30, 0], [10, 20, 45, 255]])
    expected = (codes * steps) @ weights
    parity = keras_saq.verify_litert(path, q, x)
    np.testing.assert_allclose(parity.outputs[0], expected, rtol=1e-5)


def test_another_models_weights_are_found_out(tmp_path):
    q = quantized(transformer, "w8")
    path, _ = export(q, tmp_path)
    layer = next(x for x in q.layers if x.name.startswith("dense"))
    layer.kernel.assign(keras.ops.flip(layer.kernel.value, 0))
    parity = keras_saq.verify_litert(path, q, data())
    assert not parity.reference_exact and not parity.within_bounds


def test_last_bits_in_front_of_a_kernel_are_no_deviation(tmp_path, monkeypatch):
    """A float that is a little off moves a code; the kernel is not to blame."""
    from keras_saq.export.kernels import KERNELS

    q = quantized(transformer, "w8")
    path, _ = export(q, tmp_path)
    gelu = KERNELS["gelu"]

    def off(op, x):
        return gelu.run(op, x) * np.float32(1 + 2e-6)

    changed = type(gelu)(**{**vars(gelu), "run": off})
    monkeypatch.setitem(KERNELS, "gelu", changed)
    parity = keras_saq.verify_litert(path, q, data(), per_layer=True)
    assert parity.within_bounds
    assert parity.first_deviation is None and parity.layers


def test_weights_behind_a_dequantize_stay_the_default(tmp_path):
    q = quantized(convolutions, "w4")
    dynamic, report = export(q, tmp_path)
    default = keras_saq.export_litert(q, tmp_path / "float.tflite")
    assert "DEQUANTIZE" in default.operators
    assert report.file_bytes < default.file_bytes
    kinds = {op.kind for op in lower_model(q).ops}
    assert not any(kind.startswith("dynamic") for kind in kinds)
    page = tmp_path / "report.html"
    keras_saq.write_report(page, q, file=dynamic, sharpness=False)
    assert "own range" in page.read_text()


def test_quantized_activations_are_refused(tmp_path):
    q = quantized(convolutions, "w4a8")
    with pytest.raises(ValueError, match="learned ranges"):
        export(q, tmp_path)
    assert not list(tmp_path.iterdir())
