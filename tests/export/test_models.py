"""Whole models of every kind of layer: file = reference, and what is refused.

Random weights and scales from calibration data: what is compared are integers,
which do not care.
"""

import keras
import numpy as np
import pytest

import keras_saq
from benchmarks import export_matrix
from keras_saq.export.lower import lower_model

layers = keras.layers
in_float = pytest.mark.filterwarnings("ignore:.*stay in float")
coarse = pytest.mark.filterwarnings("ignore:Much of these kernels")


def exported(model, bits, x, path, **kwargs):
    q = keras_saq.quantize_model(model, bits, calibration=x)
    report = keras_saq.export_litert(q, path / "m.tflite", **kwargs)
    return q, report, keras_saq.verify_litert(path / "m.tflite", q, x)


def model_of(function, shape, seed=0, dtype="float32"):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(shape, dtype=dtype)
    return keras.Model(inputs, function(inputs))


def data(shape, num=16):
    return np.random.default_rng(0).normal(size=(num, *shape)).astype("float32")


@in_float
@coarse
@pytest.mark.parametrize("bits", ["w4a8", "w2a2", "mixed"])
@pytest.mark.parametrize("name", ["squeeze-excite", "transposed", "vit"])
def test_networks_of_the_matrix(name, bits):
    run = export_matrix.measure(name, bits, seed=0)
    line, is_as_promised = export_matrix._row(name, bits, [run])
    assert is_as_promised, line
    assert not run["undelegated"] and run["inside"] == 0
    assert run["exact"] == (name != "vit")


def sequence_network(x):
    x = layers.Conv1D(6, 3, padding="causal", dilation_rate=2)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv1D(3, padding="same")(x)
    x = layers.SeparableConv1D(8, 3, activation="relu")(x)
    x = layers.AveragePooling1D(2)(layers.ZeroPadding1D(1)(x))
    x = layers.UpSampling1D(2)(layers.Cropping1D(1)(x))
    return layers.Dense(3)(layers.GlobalMaxPooling1D()(x))


def einsum_network(x):
    x = layers.EinsumDense("...x,xy->...y", 6, bias_axes="y")(x)
    x = layers.EinsumDense("abc,cde->adbe", (3, 12, 2), bias_axes="de")(x)
    x = layers.EinsumDense("adbe,def->abf", (12, 4), activation="relu")(x)
    return layers.Dense(3)(layers.Flatten()(layers.Permute((2, 1))(x)))


def merging_network(x):
    a = layers.Dense(8, activation="relu")(x)
    b = layers.Dense(8)(x)
    x = layers.Concatenate()(
        [
            layers.Subtract()([a, b]),
            layers.Maximum()([a, b]),
            layers.Minimum()([a, b]),
            layers.Average()([a, b]),
            layers.Add()([a, b, a]),
            a * b,
            b + a,
            a * 0.3 + 1.0,
        ]
    )
    return layers.Dense(3)(layers.GlobalAveragePooling1D()(x))


@coarse
@in_float
@pytest.mark.parametrize("bits", ["w4a8", "w2a4"])
@pytest.mark.parametrize(
    "network", [sequence_network, einsum_network, merging_network]
)
def test_networks_on_sequences(network, bits, tmp_path):
    x = data((12, 4))
    _, report, parity = exported(model_of(network, (12, 4)), bits, x, tmp_path)
    assert parity.reference_exact and parity.reference_max_lsb == 0
    assert parity.max_lsb <= 2 and not parity.undelegated
    for _, reason in report.islands:
        assert "exactly" in reason


@coarse
@in_float
@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("layer", [layers.LSTM, layers.GRU, layers.SimpleRNN])
def test_recurrent_layers(layer, go_backwards, tmp_path):
    def network(x):
        x = layer(5, return_sequences=True)(x)
        return layers.Dense(3)(layer(4, go_backwards=go_backwards)(x))

    x = data((6, 4))
    q, report, parity = exported(model_of(network, (6, 4)), "w4a8", x, tmp_path)
    assert parity.within_bounds and parity.max_lsb <= 1
    assert len(report.islands) == 2 and "1 step" in report.islands[0][1]
    # Codes are stored, and once, however long the sequence is.
    kernels = [t for t in report.tensors if t.type == "INT8"]
    assert sum(t.num_bytes for t in kernels) == sum(
        int(np.prod(variable.shape))
        for quantized in q.layers
        if getattr(quantized, "weight_names", None)
        for _, variable, _ in quantized.quantized_weights()
        if quantized is not q.layers[-1]
    ) + (12 if q.layers[-1].weight_names else 0)


@keras.saving.register_keras_serializable("keras_saq_tests")
class Scaled(layers.Layer):
    """A custom layer whose weight is a vector."""

    def build(self, input_shape):
        self.gain = self.add_weight(shape=(input_shape[-1],), name="gain")
        self.gain.assign(np.linspace(-1, 1, input_shape[-1]))

    def call(self, x, training=None):
        if training:
            return x
        return keras.ops.relu(x * self.gain)


@in_float
@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_over_another_sequence_and_causal(is_causal, tmp_path):
    def network(x):
        attention = layers.MultiHeadAttention(2, 6, value_dim=5, dropout=0.1)
        if is_causal:
            x = attention(x, x, use_causal_mask=True)
        else:
            x = attention(x, layers.Dense(8)(x[:, :4]))
        return layers.Dense(3)(x)

    x = data((7, 8))
    q, report, parity = exported(model_of(network, (7, 8)), "w4a8", x, tmp_path)
    assert parity.within_bounds and parity.max_lsb <= 1
    assert report.operators["BATCH_MATMUL"] == 2 and not parity.undelegated
    assert [r for _, r in report.islands if "softmax" in r]
    changed = np.concatenate([x[:, :-1], -x[:, -1:]], axis=1)
    other = keras_saq.verify_litert(tmp_path / "m.tflite", q, changed)
    same = (other.outputs[0] == parity.outputs[0]).all(axis=(0, 2))
    assert same[0] and not same[-1]


@in_float
def test_custom_layers_and_averages_at_borders(tmp_path):
    def network(x):
        x = Scaled()(layers.Conv2D(8, 3)(x))
        x = layers.AveragePooling2D(3, strides=2, padding="same")(x)
        x = layers.Activation("swish")(x)
        return layers.Dense(4)(layers.GlobalAveragePooling2D()(x[:, 1:]))

    x = data((10, 10, 3))
    model = model_of(network, (10, 10, 3))
    _, report, parity = exported(model, "w4a8", x, tmp_path)
    assert parity.within_bounds and parity.max_lsb <= 1
    reasons = dict(report.islands)
    assert any("border" in reason for reason in reasons.values())
    assert not parity.undelegated


@coarse
@pytest.mark.parametrize("bits", ["w8a8", "w4a8", "w2a8"])
def test_embedding(bits, tmp_path):
    def network(x):
        x = layers.Embedding(20, 8)(x)
        return layers.Dense(3)(layers.Flatten()(layers.Conv1D(8, 3)(x)))

    x = np.random.default_rng(0).integers(0, 20, (16, 6)).astype("int32")
    model = model_of(network, (6,), dtype="int32")
    policy = keras_saq.QuantizePolicy.preset(bits, first_last_bits=None)
    _, report, parity = exported(model, policy, x, tmp_path)
    assert parity.reference_exact and parity.max_lsb <= 1
    stored = {t.shape: t.type for t in report.tensors}
    assert stored[(20, 8)] == {"8": "INT8", "4": "INT4", "2": "INT2"}[bits[1]]


@in_float
def test_nested_shared_and_several_outputs(tmp_path):
    """One backbone, called twice; the file holds its weights once."""
    image = keras.Input((8, 8, 3))
    y = layers.Conv2D(8, 3, activation="relu")(image)
    backbone = keras.Model(image, layers.GlobalAveragePooling2D()(y))
    a, b = keras.Input((8, 8, 3), name="a"), keras.Input((8, 8, 3), name="b")
    x = layers.Subtract()([backbone(a), backbone(b)])
    outputs = [layers.Dense(3)(x), layers.Dense(2, activation="softmax")(x)]
    model = keras.Model([a, b], outputs)
    x = [data((8, 8, 3)), data((8, 8, 3))[::-1].copy()]
    _, report, parity = exported(model, "w4a8", x, tmp_path)
    assert parity.reference_exact and len(parity.per_output) == 2
    kernels = [t for t in report.tensors if t.shape == (8, 3, 3, 3)]
    assert sum(t.num_bytes for t in kernels) in (216, 432)
    content = (tmp_path / "m.tflite").stat().st_size
    assert content < 12_000


@coarse
@in_float
@pytest.mark.parametrize("bits", ["w8", "w4"])
@pytest.mark.parametrize("storage", ["exact", "small"])
def test_models_with_quantized_weights_alone(bits, storage, tmp_path):
    def network(x):
        x = layers.Conv2D(8, 3, use_bias=False, activation="swish")(x)
        x = layers.DepthwiseConv2D(3)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Conv2D(8, 1)(x)
        return layers.Dense(4)(layers.GlobalAveragePooling2D()(x))

    model = model_of(network, (8, 8, 3))
    norm = next(x for x in model.layers if "batch" in x.name)
    norm.gamma.assign(np.linspace(-1, 1.3, 8))
    x = data((8, 8, 3))
    policy = keras_saq.QuantizePolicy.preset(bits, first_last_bits=None)
    _, report, parity = exported(model, policy, x, tmp_path, storage=storage)
    assert len(report.float_operators) > 5
    expected, made = parity.predicted[0], parity.outputs[0]
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-6)
    packed = storage == "small" and bits == "w4"
    assert bool(report.packed_tensors) == packed
    stored = {t.shape: t.type for t in report.tensors}
    expected = "INT4" if packed else "INT8"
    assert stored[(8, 3, 3, 3)] == stored[(1, 3, 3, 8)] == expected


@in_float
def test_layers_that_a_rule_keeps_in_float(tmp_path):
    """In the middle of a network: an island with float weights."""

    def network(x):
        x = layers.Conv2D(8, 3, activation="relu")(x)
        x = layers.Conv2D(8, 3, activation="relu", name="kept")(x)
        return layers.Dense(4)(layers.GlobalAveragePooling2D()(x))

    policy = keras_saq.QuantizePolicy(
        rules=(
            keras_saq.Rule(path="kept", keep_float=True),
            keras_saq.Rule(weight_bits=4, activation_bits=8),
        )
    )
    x = data((8, 8, 3))
    model = model_of(network, (8, 8, 3))
    _, report, parity = exported(model, policy, x, tmp_path)
    assert parity.within_bounds and parity.max_lsb <= 2
    assert [path for path, _ in report.islands] == ["kept"]
    assert "a float layer" in report.islands[0][1]


def test_storage_of_larger_kernels(tmp_path):
    def network(x):
        x = layers.Conv2D(32, 3, activation="relu")(x)
        x = layers.Conv2D(32, 3, strides=2, activation="relu")(x)
        return layers.Dense(4)(layers.GlobalAveragePooling2D()(x))

    x = data((10, 10, 8))
    model = model_of(network, (10, 10, 8))
    policy = keras_saq.QuantizePolicy.preset("w4a8", first_last_bits=None)
    sizes, outputs = {}, {}
    for storage in ("exact", "small", "int8"):
        _, report, parity = exported(
            model, policy, x, tmp_path, storage=storage
        )
        assert parity.reference_exact and not parity.undelegated
        sizes[storage] = report.file_bytes
        outputs[storage] = parity.outputs[0]
        types = {t.type for t in report.packed_tensors}
        assert types == (set() if storage == "int8" else {"INT4"})
    assert sizes["small"] < 0.85 * sizes["exact"]
    assert sizes["exact"] <= sizes["int8"]
    np.testing.assert_array_equal(outputs["small"], outputs["exact"])
    np.testing.assert_array_equal(outputs["int8"], outputs["exact"])
    with pytest.raises(ValueError, match="storage.*tiny"):
        exported(model, policy, x, tmp_path, storage="tiny")


@coarse
@in_float
@pytest.mark.parametrize("name", ["residual", "transposed", "vit", "lstm"])
def test_codes_and_scales_of_every_tensor(name):
    """Codes are the Keras layers' own; scales too, to one float32 step."""
    model, x = export_matrix.make(name, seed=1)
    policy = export_matrix.policy("mixed", model)
    q = keras_saq.quantize_model(model, policy, calibration=x)
    program = lower_model(q)
    stored = {}
    for op in program.ops:
        if op.weights is not None:
            stored[op.path] = op.weights.codes, op.weights.scale
        for tensor in op.inputs:
            if tensor.is_constant and not tensor.is_float:
                stored[tensor.name] = tensor.data, tensor.scale
    seen = 0
    for path, layer in keras_saq.policy.layer_paths(q):
        if not getattr(layer, "weight_names", None):
            continue
        for weight, variable, quantizer in layer.quantized_weights():
            codes, scale = stored.get(
                path, stored.get(f"{path}/{weight.split('.')[-1]}/weights")
            ) or (None, None)
            assert codes is not None, path
            expected = quantizer.codes(variable)
            learned = np.asarray(quantizer.scale).reshape(-1)
            slope, factor = _folded(q, layer), _factor(path)
            np.testing.assert_array_equal(
                np.sort(np.abs(codes), axis=None),
                np.sort(np.abs(expected), axis=None),
            )
            np.testing.assert_array_equal(
                _by_channel(codes, len(learned)),
                _by_channel(_channels_first(layer, weight, expected), None)
                * np.sign(slope)[:, None],
            )
            wanted = learned.astype(np.float64) * np.abs(slope) * factor
            np.testing.assert_array_max_ulp(
                scale, wanted.astype(np.float32), maxulp=1
            )
            seen += 1
    assert seen >= 4


def _folded(q, layer):
    """The slope of the batch norm behind a layer."""
    reader = (
        next(
            (
                x
                for x in q.layers
                if isinstance(x, layers.BatchNormalization)
                and x.input is layer.output
            ),
            None,
        )
        if layer in q.layers
        else None
    )
    channels = max(1, int(np.size(_scale(layer))))
    if reader is None:
        return np.ones(channels, np.float32)
    variance = np.asarray(reader.moving_variance, np.float64)
    return np.asarray(reader.gamma) / np.sqrt(variance + reader.epsilon)


def _scale(layer):
    (_, _, quantizer), *_ = layer.quantized_weights()
    return np.asarray(quantizer.scale)


def _factor(path):
    """1 / sqrt(key_dim), which is folded into the queries' kernel."""
    return np.float32(1.0 / np.sqrt(8)) if path.endswith("query") else 1.0


def _channels_first(layer, weight, codes):
    from keras_saq.layers.roles import weight_axes

    axes = [axis % codes.ndim for axis in weight_axes(layer)[weight]]
    others = [axis for axis in range(codes.ndim) if axis not in axes]
    shape = (int(np.prod([codes.shape[a] for a in axes])), -1)
    return codes.transpose([*axes, *others]).reshape(shape)


def _by_channel(codes, channels):
    return codes if channels is None else codes.reshape(channels, -1)


@pytest.mark.parametrize(
    "layer, shape, reason",
    [
        (layers.UnitNormalization(), (8,), "no kernel is known"),
        (layers.Conv1DTranspose(4, 3), (8, 4), "Conv2DTranspose"),
        (layers.UpSampling2D(interpolation="bilinear"), (8, 8, 3), "nearest"),
        (layers.GRU(4, reset_after=False), (5, 4), "reset_after"),
        (layers.Dense(4, activation="selu", name="d"), (8,), "activation"),
        (layers.EinsumDense("abc,bcd->abd", (5, 4)), (5, 4), "per element"),
        (layers.LayerNormalization(axis=1), (5, 4), "last axis"),
    ],
)
@in_float
def test_what_has_no_kernel_is_an_island(layer, shape, reason, tmp_path):
    inputs = keras.Input(shape)
    x = layers.Flatten()(layer(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    x = data(shape, 4)
    q = keras_saq.quantize_model(model, "w8a8", calibration=x)
    path = tmp_path / "m.tflite"
    report = keras_saq.export_litert(q, path)
    found = {p: why for p, why in report.islands if p == layer.name}
    assert reason in found[layer.name]
    assert keras_saq.verify_litert(path, q, x).within_bounds


@in_float
def test_a_state_between_calls_is_refused(tmp_path):
    inputs = keras.Input((5, 4), batch_size=4)
    x = layers.LSTM(4, stateful=True, name="lstm")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(x))
    q = keras_saq.quantize_model(model, "w8a8", calibration=data((5, 4), 4))
    with pytest.raises(ValueError, match="lstm .*stateful"):
        keras_saq.export_litert(q, tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())


@in_float
def test_failing_exports_keep_the_file_that_is_there(tmp_path, monkeypatch):
    """Whatever fails, and wherever: the old file stays, and no other one."""
    path = tmp_path / "m.tflite"
    path.write_bytes(b"old")
    x = data((8,))
    model = model_of(lambda x: layers.Dense(3)(x), (8,))
    q = keras_saq.quantize_model(model, "w4a8", calibration=x)
    import keras_saq.export.litert as litert

    for name in ("to_bytes", "with_io_types", "export_report", "_write_whole"):
        with monkeypatch.context() as patch:
            patch.setattr(litert, name, _interrupt)
            with pytest.raises(KeyboardInterrupt):
                q.export(path, format="litert")
        assert path.read_bytes() == b"old"
        assert [p.name for p in tmp_path.iterdir()] == ["m.tflite"]
    q.export(path, format="litert")
    assert path.read_bytes()[4:8] == b"TFL3"


def _interrupt(*args, **kwargs):
    raise KeyboardInterrupt


class HasAModel(keras.Model):
    """A user's model whose attribute `model` is only a part of it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.model = keras.Sequential([layers.Dense(6, activation="relu")])
        self.head = layers.Dense(3)

    def call(self, x):
        return self.head(self.model(x))


def test_a_part_that_is_called_model_is_not_taken_for_the_whole(tmp_path):
    x = data((8,), 32)
    model = HasAModel()
    model(x)
    q, report, parity = exported(model, "w4a8", x, tmp_path)
    assert parity.reference_exact
    assert parity.outputs[0].shape == (32, 3)


def test_slices_with_steps(tmp_path):
    """As in shortcuts of ResNet's option A, where columns are left out."""

    def slices(x):
        x = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
        y = keras.ops.pad(x[:, ::2, ::3], [(0, 0)] * 3 + [(2, 2)])
        return y, x[:, 1:8:4, 2], x[:, -1, 1::2]

    x = data((9, 8, 3))
    q, report, parity = exported(
        model_of(slices, (9, 8, 3)), "w4a8", x, tmp_path
    )
    assert parity.reference_exact and parity.max_lsb == 0
    assert not parity.undelegated and not report.islands
    shapes = [output.shape[1:] for output in parity.outputs]
    assert shapes == [(5, 3, 8), (2, 4), (4, 4)]
