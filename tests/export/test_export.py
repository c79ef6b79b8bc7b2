"""Whole models: file = reference on every output, and the rest."""

import os

import keras
import numpy as np
import pytest

import keras_saq
from keras_saq.export import reference
from keras_saq.export.lower import lower_model
from tests import networks
from tests.networks import fit
from tests.networks import images

layers = keras.layers


def trained(name, bits, epochs=2, **kwargs):
    x, _ = images()
    model = fit(networks.NETWORKS[name](), epochs=1)
    return fit(keras_saq.quantize_model(model, bits, calibration=x), epochs)


@pytest.mark.parametrize("name", networks.NETWORKS)
@pytest.mark.parametrize("bits", ["w8a8", "w4a8", "w2a4", "w2a2"])
def test_file_equals_the_reference_on_every_output(name, bits, tmp_path):
    model = trained(name, bits)
    path = tmp_path / "m.tflite"
    report = model.export(path, format="litert")
    x, _ = images(200, seed=5)
    parity = keras_saq.verify_litert(path, model, x)
    assert parity.reference_exact and parity.reference_max_lsb == 0
    assert parity.resolver == "XNNPACK"
    assert parity.num_outputs == 200 * 10
    assert parity.max_lsb <= 2 and parity.exact > 0.97
    assert parity.top1_agreement > 0.99
    assert not report.float_operators and not report.islands
    assert report.file_bytes == path.stat().st_size


def test_packed_tensors_are_in_the_report(tmp_path):
    for bits, expected in (
        ("w4a8", "INT4"),
        ("w3a8", "INT4"),
        ("w2a8", "INT2"),
    ):
        model = trained("residual", bits, epochs=1)
        report = model.export(tmp_path / "m.tflite", format="litert")
        packed = report.packed_tensors
        assert {t.type for t in packed} == {expected}
        # Two 1x1 convolutions and the first Dense; the last has 8 bits.
        assert sorted(t.shape for t in packed) == [(8, 12), (12, 12), (16, 16)]
        for tensor in packed:
            codes = np.prod(tensor.shape)
            assert tensor.num_bytes == codes * int(expected[3:]) // 8
        assert str(report).count(f" {expected}  ") == 3


def test_codes_and_scales_of_the_file_are_those_of_the_model():
    """After folding the batch norm, to one ulp; codes up to its sign."""
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(12, 3, name="conv")(inputs)
    x = layers.BatchNormalization(name="norm", momentum=0.5)(x)
    model = fit(keras.Model(inputs, _head(x)), epochs=2)
    norm = model.get_layer("norm")
    signs = np.where(np.arange(12) % 2, 1.0, -1.0)
    norm.gamma.assign(norm.gamma.numpy() * signs)
    x, _ = images()
    q = keras_saq.quantize_model(model, "w4a8", calibration=x)
    layer, norm = q.get_layer("conv"), q.get_layer("norm")
    op = next(op for op in lower_model(q).ops if op.kind == "conv")
    expected = layer.kernel_quantizer.codes(layer.kernel)
    expected = expected.transpose(3, 0, 1, 2) * signs[:, None, None, None]
    np.testing.assert_array_equal(op.weights.codes, expected)
    slope = norm.gamma.numpy() / np.sqrt(
        norm.moving_variance.numpy() + norm.epsilon
    )
    scale = keras.ops.convert_to_numpy(layer.kernel_quantizer.scale)
    np.testing.assert_allclose(
        op.weights.scale, scale * np.abs(slope), rtol=3e-7
    )


def _head(x):
    return layers.Dense(10)(layers.GlobalAveragePooling2D()(layers.ReLU()(x)))


@pytest.mark.parametrize("gamma", [0.0, 1e-12, 1e-30])
def test_a_batch_norm_that_switches_channels_off(gamma, tmp_path):
    """Zero-initialised residual branches: the bias would overflow."""
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3)(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    model = keras.Model(inputs, _head(x))
    model.get_layer("norm").gamma.assign([gamma, 1.0, -gamma, 1.0])
    model.get_layer("norm").beta.assign([0.7, 0.1, 0.0, -0.3])
    x, _ = images()
    q = keras_saq.quantize_model(model, "w4a8", calibration=x)
    assert np.isfinite(q.predict(x, verbose=0)).all()
    path = tmp_path / "m.tflite"
    q.export(path, format="litert")
    parity = keras_saq.verify_litert(path, q, x)
    assert parity.reference_exact and parity.max_lsb <= 1


@pytest.mark.parametrize("types", [("int8", "int8"), ("uint8", "uint8")])
def test_integer_inputs_and_outputs(types, tmp_path):
    model = trained("residual", "w4a8", epochs=1)
    path = tmp_path / "m.tflite"
    report = keras_saq.export_litert(model, path, *types)
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    (inputs,) = interpreter.get_input_details()
    (outputs,) = interpreter.get_output_details()
    assert (inputs["dtype"].__name__, outputs["dtype"].__name__) == types
    assert "DEQUANTIZE" not in report.operators
    x, _ = images()
    parity = keras_saq.verify_litert(path, model, x)
    assert parity.reference_exact and parity.top1_agreement == 1


def test_softmax_is_a_declared_island(tmp_path):
    inputs = keras.Input((8, 8, 1))
    x = layers.Flatten()(layers.Conv2D(4, 3, activation="relu")(inputs))
    model = keras.Model(inputs, layers.Dense(10, activation="softmax")(x))
    x, _ = images()
    q = keras_saq.quantize_model(model, "w4a8", calibration=x)
    path = tmp_path / "m.tflite"
    report = q.export(path, format="litert")
    assert report.islands == (("dense", "softmax is computed in float"),)
    assert report.float_operators == ("SOFTMAX",)
    parity = keras_saq.verify_litert(path, q, x)
    assert parity.reference_exact and parity.top1_agreement == 1
    with pytest.raises(ValueError, match="int8.*computed in float"):
        keras_saq.export_litert(q, path, output_type="int8")


def test_two_inputs_and_two_outputs(tmp_path):
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    x = layers.Concatenate()([layers.Dense(4)(a), layers.Dense(4)(b)])
    model = keras.Model([a, b], [layers.Dense(3)(x), layers.Dense(2)(x)])
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(20, 6)).astype("float32") for _ in range(2)]
    q = keras_saq.quantize_model(model, "w4a8", calibration=data)
    path = tmp_path / "m.tflite"
    q.export(path, format="litert")
    parity = keras_saq.verify_litert(path, q, data)
    assert parity.reference_exact and parity.num_outputs == 20 * 5


def test_saq_model_exports_the_model_inside(tmp_path):
    model = trained("sequential", "w4a8")
    paths = [tmp_path / "a.tflite", tmp_path / "b.tflite"]
    model.export(paths[0], format="litert")
    keras_saq.SAQModel(model).export(paths[1], format="litert")
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_changed_file_is_found_out(tmp_path):
    """The check can fail: one flipped weight code is seen."""
    model = trained("sequential", "w8a8")
    path = tmp_path / "m.tflite"
    model.export(path, format="litert")
    x, _ = images()
    layer = model.get_layer(index=0)
    codes = layer.kernel_quantizer.codes(layer.kernel)
    stored = codes.transpose(3, 0, 1, 2).astype(np.int8).tobytes()
    content = path.read_bytes()
    sign = 1 if stored in content else -1
    if sign < 0:
        program = lower_model(model)
        op = next(op for op in program.ops if op.kind == "conv")
        stored = op.weights.codes.astype(np.int8).tobytes()
    at = content.index(stored)
    changed = bytearray(content)
    changed[at + 4] = (changed[at + 4] + 64) % 256
    path.write_bytes(bytes(changed))
    parity = keras_saq.verify_litert(path, model, x)
    assert not parity.reference_exact
    assert parity.reference_max_lsb > 0
    assert "NOT equal" in str(parity)


def test_reference_runs_in_integers_and_keeps_tensors():
    model = trained("residual", "w2a4", epochs=1)
    program = lower_model(model)
    kept = []
    x, _ = images(4)
    reference.run(program, [x], keep=kept)
    assert len(kept) == len(program.ops)
    for op, array in kept:
        assert array.shape == (4, *op.output.shape)
        assert array.dtype == (np.float32 if op.output.is_float else np.int8)
        if op.output.is_unsigned:
            assert array.min() >= op.output.zero_point


# --- Bad input: one clear error, and no file.


def quick():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3)(inputs))
    return keras_saq.quantize_model(model, "w4a8", calibration=np.eye(4))


@pytest.mark.parametrize("name", ["m.bin", "m", "none/m.tflite"])
def test_bad_path(name, tmp_path):
    with pytest.raises(ValueError, match="tflite|does not exist"):
        quick().export(tmp_path / name, format="litert")
    assert os.listdir(tmp_path) == []


def test_path_is_a_folder(tmp_path):
    (tmp_path / "m.tflite").mkdir()
    with pytest.raises(ValueError, match="not a writable path"):
        quick().export(tmp_path / "m.tflite", format="litert")


def test_failure_while_writing_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"old")

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        quick().export(path, format="litert")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["m.tflite"]


def test_models_that_cannot_be_exported(tmp_path):
    path = tmp_path / "m.tflite"
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3)(inputs))
    with pytest.raises(ValueError, match="not quantized(.|\n)*quantize_model"):
        keras_saq.export_litert(model, path)
    q = keras_saq.quantize_model(model, "w4a8")
    with pytest.raises(ValueError, match="cannot be exported before"):
        keras_saq.export_litert(q, path)
    policy = keras_saq.QuantizePolicy.preset("w4a8", scheme="paper")
    model = networks.preactivation_network()
    q = keras_saq.quantize_model(model, policy, calibration=images()[0])
    with pytest.raises(ValueError, match="no integer scale(.|\n)*litert"):
        keras_saq.export_litert(q, path)
    with pytest.raises(ValueError, match="input_type.*int4"):
        keras_saq.export_litert(quick(), path, input_type="int4")
    assert os.listdir(tmp_path) == []


def test_verify_refuses_what_is_not_this_models_file(tmp_path):
    path = tmp_path / "m.tflite"
    with pytest.raises(ValueError, match="not a readable LiteRT file"):
        keras_saq.verify_litert(path, quick(), np.eye(4))
    path.write_bytes(b"not a model at all")
    with pytest.raises(ValueError, match="not a readable LiteRT file"):
        keras_saq.verify_litert(path, quick(), np.eye(4))
    trained("sequential", "w4a8", epochs=1).export(path, format="litert")
    with pytest.raises(ValueError, match="written from another model"):
        keras_saq.verify_litert(path, quick(), np.eye(4))
    with pytest.raises(ValueError, match="at least one sample"):
        keras_saq.verify_litert(path, quick(), np.zeros((0, 4)))
