"""`verify_litert` in detail, and exports that verify themselves."""

import json

import keras
import numpy as np
import pytest

import keras_saq
from keras_saq.export import litert
from keras_saq.export.isolated import IsolatedFile
from keras_saq.export.lower import lower_model
from tests import networks

layers = keras.layers


def two_outputs():
    inputs = keras.Input((6, 6, 2), name="image")
    x = layers.Conv2D(6, 3, activation="relu", name="first")(inputs)
    y = layers.Conv2D(4, 1, name="second")(x)
    a = layers.Dense(3, name="a")(layers.GlobalAveragePooling2D()(y))
    b = layers.Dense(2, activation="softmax", name="b")(layers.Flatten()(x))
    model = keras.Model(inputs, [a, b])
    x = np.random.default_rng(0).normal(size=(40, 6, 6, 2)).astype("float32")
    return keras_saq.quantize_model(model, "w4a8", calibration=x), x


def change_codes(content, name):
    """The file's bytes with one weight of one layer changed."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    (tensor,) = (
        t
        for t in model.subgraphs[0].tensors
        if t.name == f"{name}/weights".encode()
    )
    data = np.array(model.buffers[tensor.buffer].data)
    data[0] ^= 0x44
    model.buffers[tensor.buffer].data = data
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def test_a_single_input_may_have_another_name(tmp_path):
    """As in a model whose class names its input anew when it is loaded."""

    def model(size, name):
        inputs = keras.Input((size,), name=name)
        float_model = keras.Model(inputs, layers.Dense(3)(inputs))
        return keras_saq.quantize_model(
            float_model, "w4a8", calibration=np.eye(size, dtype="float32")
        )

    path = tmp_path / "m.tflite"
    written, other = model(4, "first"), model(4, "second")
    keras_saq.export_litert(written, path)
    other.set_weights(written.get_weights())
    x = np.eye(4, dtype="float32")
    assert keras_saq.verify_litert(path, other, x).reference_exact
    with pytest.raises(ValueError, match="written from another model"):
        keras_saq.verify_litert(path, model(5, "second"), np.eye(5))


def test_each_output_has_a_row_of_its_own(tmp_path):
    model, x = two_outputs()
    path = tmp_path / "m.tflite"
    keras_saq.export_litert(model, path)
    report = keras_saq.verify_litert(path, model, x)
    first, second = report.per_output
    assert first.reference_exact and second.reference_exact
    predicted = model.predict(x, verbose=0)
    difference = np.abs(report.outputs[0] - predicted[0]) / first.step
    assert first.max_lsb == np.rint(difference.max())
    assert first.mean_lsb == pytest.approx(difference.mean(), abs=1e-3)
    assert first.exact == (difference < 0.5).mean()
    # Behind a softmax a step is that of 8 bits of [0, 1].
    assert second.step == 1 / 256
    assert report.max_lsb == max(first.max_lsb, second.max_lsb)
    assert report.undelegated == () and report.layers == ()
    assert first.name in str(report) and second.name in str(report)
    fields = json.loads(report.to_json())
    assert len(fields["per_output"]) == 2 and "outputs" not in fields


def test_the_first_layer_that_deviates_is_found(tmp_path):
    model, x = two_outputs()
    path = tmp_path / "m.tflite"
    keras_saq.export_litert(model, path)
    for name in ("second", "a"):
        changed = tmp_path / "changed.tflite"
        changed.write_bytes(change_codes(path.read_bytes(), name))
        report = keras_saq.verify_litert(changed, model, x)
        assert not report.reference_exact and not report.within_bounds
        assert report.first_deviation == name
        # What follows computes rightly what it is given.
        assert [r.name for r in report.layers if r.deviates] == [name]
        assert not report.per_output[0].reference_exact
        assert report.per_output[1].reference_exact
        assert f"first layer that deviates: {name}" in str(report)


def test_a_float_operator_that_deviates_is_noticed(tmp_path):
    """Every integer is right, and the output is not."""
    from ai_edge_litert.tools import flatbuffer_utils

    model, x = two_outputs()
    path = tmp_path / "m.tflite"
    keras_saq.export_litert(model, path)
    made = flatbuffer_utils.read_model(str(path))
    softmax = made.subgraphs[0].operators[-1]
    softmax.builtinOptions.beta = 2.0
    path.write_bytes(bytes(flatbuffer_utils.convert_object_to_bytearray(made)))
    report = keras_saq.verify_litert(path, model, x)
    assert report.first_deviation is None
    assert not report.reference_exact and not report.within_bounds
    assert report.per_output[0].reference_exact


def test_layers_beside_those_of_keras(tmp_path):
    model, x = two_outputs()
    path = tmp_path / "m.tflite"
    keras_saq.export_litert(model, path)
    report = keras_saq.verify_litert(path, model, x, per_layer=True)
    rows = {row.name: row for row in report.layers}
    assert not any(row.deviates for row in report.layers)
    for name in ("first", "second", "a"):
        assert rows[name].max_lsb <= 1 and rows[name].exact > 0.95
    assert rows["first"].operator == "CONV_2D"
    assert rows["second"].operator == "FULLY_CONNECTED"
    # The values that Keras's layer makes, layer by layer.
    part = keras.Model(model.inputs, model.get_layer("second").output)
    scale = model.get_layer("second").output_quantizer.scale
    codes = part.predict(x, verbose=0) / float(scale)
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-3)
    # Nothing of the recording is left behind.
    for layer in model.layers:
        assert "call" not in layer.__dict__


@pytest.mark.filterwarnings("ignore:1 layer.s. stay in float")
def test_bounds_of_what_is_not_exact(tmp_path):
    """Behind a float island single codes may differ, within the bound."""
    inputs = keras.Input((16,))
    x = layers.LayerNormalization()(layers.Dense(64)(inputs))
    model = keras.Model(inputs, layers.Dense(8)(layers.Dense(64)(x)))
    x = np.random.default_rng(0).normal(size=(300, 16)).astype("float32")
    q = keras_saq.quantize_model(model, "w4a8", calibration=x)
    path = tmp_path / "m.tflite"
    report = keras_saq.export_litert(q, path, verify=x, require_exact=True)
    assert report.islands and report.parity.within_bounds
    bounds = [source.bound for source in report.error_sources]
    if not report.parity.reference_exact:
        assert bounds and max(bounds) == 1
    rows = keras_saq.verify_litert(path, q, x, per_layer=True).layers
    assert {row.bound for row in rows} <= {0.0, 1.0}


def test_what_the_delegate_does_not_take_is_named():
    content = litert.to_bytes(lower_model(two_outputs()[0]))
    with IsolatedFile(content) as file:
        assert file.has_delegate and not file.undelegated
    with IsolatedFile(content, delegate=False) as file:
        names = [node.name for node in file.undelegated]
        assert not file.has_delegate and names.count("FULLY_CONNECTED") == 3


def test_an_export_can_verify_itself(tmp_path):
    model, x = two_outputs()
    path = tmp_path / "m.tflite"
    report = model.export(path, format="litert", verify=x, require_exact=True)
    assert report.parity.reference_exact
    assert report.parity.num_samples == len(x)
    assert json.loads(report.to_json())["parity"]["within_bounds"] is True
    assert "equal on all" in str(report)


def test_an_export_that_deviates_leaves_no_file(tmp_path, monkeypatch):
    model, x = two_outputs()
    path = tmp_path / "m.tflite"
    right = litert.to_bytes

    def wrong(program):
        return change_codes(right(program), "second")

    monkeypatch.setattr(litert, "to_bytes", wrong)
    with pytest.raises(ValueError, match="not written(.|\n)*deviates: second"):
        keras_saq.export_litert(model, path, verify=x, require_exact=True)
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"an older file")
    with pytest.raises(ValueError, match="not written"):
        keras_saq.export_litert(model, path, verify=x, require_exact=True)
    assert path.read_bytes() == b"an older file"
    report = keras_saq.export_litert(model, path, verify=x)
    assert not report.parity.within_bounds
    with pytest.raises(ValueError, match="needs data"):
        keras_saq.export_litert(model, path, require_exact=True)


def test_a_file_that_litert_does_not_load_is_not_written(tmp_path, monkeypatch):
    from ai_edge_litert.tools import flatbuffer_utils

    model, _ = two_outputs()
    right = litert.to_bytes

    def wrong(program):
        made = flatbuffer_utils.read_model_from_bytearray(
            bytearray(right(program))
        )
        for op in made.subgraphs[0].operators:
            op.inputs = op.inputs[:1]
        return bytes(flatbuffer_utils.convert_object_to_bytearray(made))

    monkeypatch.setattr(litert, "to_bytes", wrong)
    with pytest.raises(ValueError, match="does not load(.|\n)*not written"):
        keras_saq.export_litert(model, tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []


def test_report_of_an_export(tmp_path):
    model, _ = two_outputs()
    path = tmp_path / "m.tflite"
    report = keras_saq.export_litert(model, path)
    assert report.islands == (("b", "softmax is computed in float"),)
    by_path = {row.path: row for row in report.layer_bytes}
    # 4-bit codes, a scale and a bias per channel; the last layer has 8 bits.
    assert by_path["second"].actual == 6 * 4 // 2 + 4 * 8
    assert by_path["a"].actual == 4 * 3 + 3 * 8
    for row in report.layer_bytes:
        assert row.predicted == row.actual
    summary = keras_saq.summary(model, print_fn=False)
    assert report.predicted_bytes == summary.stored_bytes
    assert report.structure_bytes + report.constant_bytes == (
        path.stat().st_size
    )
    fields = json.loads(report.to_json())
    assert fields["predicted_bytes"] == report.predicted_bytes
    assert report.error_sources == () and "is exact" in str(report)
    # Read back without the model, the file says the same about itself.
    again = keras_saq.inspect_litert(path)
    assert again.operations == report.operations
    assert again.tensors == report.tensors


def test_inputs_in_a_dict_and_missing_ones(tmp_path):
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    x = layers.Concatenate()([layers.Dense(4)(a), layers.Dense(4)(b)])
    model = keras.Model({"a": a, "b": b}, layers.Dense(3)(x))
    x, _ = networks.images(12)
    data = {"a": x[:, 0, :6, 0], "b": x[:, 1, :6, 0]}
    q = keras_saq.quantize_model(model, "w4a8", calibration=data)
    path = tmp_path / "m.tflite"
    keras_saq.export_litert(q, path)
    report = keras_saq.verify_litert(path, q, data, per_layer=True)
    assert report.reference_exact and report.first_deviation is None
    with pytest.raises(ValueError, match="2 inputs.*1 arrays"):
        keras_saq.verify_litert(path, q, data["a"])


@pytest.mark.filterwarnings("ignore:1 layer.s. stay in float")
def test_sums_before_a_float_activation_are_not_the_layers_output(tmp_path):
    """A softmax, a GELU in float: what the integers make is not compared."""
    inputs = keras.Input((6,))
    x = layers.Dense(3, activation="softmax")(
        layers.Dense(5, activation="gelu", name="hidden")(inputs)
    )
    model = keras.Model(inputs, x)
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    q = keras_saq.quantize_model(model, "w8a8", calibration=x)
    path = tmp_path / "m.tflite"
    keras_saq.export_litert(q, path)
    report = keras_saq.verify_litert(path, q, x, per_layer=True)
    sums = [r for r in report.layers if r.operator == "FULLY_CONNECTED"]
    assert len(sums) == 2 and all(row.max_lsb is None for row in sums)
    # What the second layer reads is the first one's output again.
    assert [r.max_lsb for r in report.layers if r.max_lsb is not None] == [0]
