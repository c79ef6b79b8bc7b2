"""The quantized model against the float one, in dB."""

import json

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_saq
from keras_saq.models.compare import decibels
from keras_saq.models.comparison import LayerRow
from keras_saq.models.nearness import LEAST_DB
from keras_saq.models.nearness import bits_of
from keras_saq.models.nearness import outliers
from tests.field import IMAGES
from tests.field import RANDOM
from tests.field import VECTORS

FAR = "far from the float one"


def small():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16,))
    x = layers.Dense(32, activation="relu", name="wide")(inputs)
    x = layers.Dense(16, activation="relu", name="middle")(x)
    return keras.Model(inputs, layers.Dense(4, name="head")(x))


def test_decibels():
    signal = np.array([3.0, -4.0])
    assert decibels(signal, signal) == np.inf
    assert decibels(np.zeros(2), signal) == -np.inf
    # Noise of a tenth of the signal: 20 dB.
    np.testing.assert_allclose(decibels(signal, 1.1 * signal), 20.0)
    np.testing.assert_allclose(decibels(signal, 1.01 * signal), 40.0)


def test_numbers_are_those_of_numpy():
    """Errors made here and passed on, by hand."""
    model = small()
    q = keras_saq.quantize_model(model, "w4a8", calibration=VECTORS)
    found = keras_saq.compare(model, q, VECTORS)

    def inside(network, name):
        part = keras.Model(network.input, network.get_layer(name).output)
        return ops.convert_to_numpy(part(VECTORS))

    rows = {row.path: row for row in found.rows}
    assert set(rows) == {"wide", "middle", "head"}
    before = {"wide": None, "middle": "wide", "head": "middle"}
    for name, source in before.items():
        expected = inside(model, name)
        given = VECTORS if source is None else inside(model, source)
        here = ops.convert_to_numpy(q.get_layer(name)(given))
        passed = inside(q, name)
        for value, made in ((here, "here_db"), (passed, "passed_db")):
            signal = np.square(expected).sum()
            db = 10 * np.log10(signal / np.square(value - expected).sum())
            np.testing.assert_allclose(getattr(rows[name], made), db, 1e-3)
    a, b = model.predict(VECTORS, verbose=0), q.predict(VECTORS, verbose=0)
    np.testing.assert_allclose(found.db, decibels(a, b), 1e-3)
    assert [row.here_db for row in found.rows] == sorted(
        row.here_db for row in found.rows
    )


def test_the_worst_layer_is_named_with_its_mend():
    model = small()
    rules = (
        keras_saq.Rule(path="middle", weight_bits=2, activation_bits=8),
        keras_saq.Rule(weight_bits=8, activation_bits=8),
    )
    policy = keras_saq.QuantizePolicy(rules=rules)
    q = keras_saq.quantize_model(model, policy, calibration=VECTORS)
    found = keras_saq.compare(model, q, VECTORS)
    worst = found.rows[0]
    assert (worst.path, worst.cause) == ("middle", "2-bit weights")
    mend = eval(worst.mend, {"Rule": keras_saq.Rule})
    better = keras_saq.QuantizePolicy(rules=(mend, rules[1]))
    mended = keras_saq.quantize_model(model, better, calibration=VECTORS)
    assert keras_saq.compare(model, mended, VECTORS).db > found.db + 10
    text = str(found)
    assert "middle" in text and worst.mend in text and "dB" in text
    json.dumps(found.to_dict())


def test_one_layer_of_few_bits_excuses_no_model_of_eight():
    model = deep()
    rules = (
        keras_saq.Rule(path="narrow", weight_bits=2, activation_bits=8),
        keras_saq.Rule(weight_bits=8, activation_bits=8),
    )
    policy = keras_saq.QuantizePolicy(rules=rules)
    with pytest.warns(UserWarning, match=FAR) as told:
        keras_saq.quantize_model(model, policy, calibration=VECTORS)
    (text,) = (str(w.message) for w in told if FAR in str(w.message))
    assert "narrow" in text and "2-bit weights" in text
    # A model of few bits is judged when it was trained.
    keras_saq.quantize_model(model, "w2a8", calibration=VECTORS)


def deep():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16,))
    x = layers.Dense(64, activation="relu", name="wide")(inputs)
    x = layers.Dense(3, name="narrow")(x)
    x = layers.Dense(64, activation="relu", name="wider")(x)
    return keras.Model(inputs, layers.Dense(16, name="head")(x))


def test_bits_are_those_of_most_weights():
    rows = [
        LayerRow(str(i), "Dense", db, db) for i, db in enumerate((5, 40, 41))
    ]
    assert [row.path for row in outliers(rows)] == ["0"]
    assert outliers(rows[:2]) == [] and outliers(rows[1:] * 3) == []
    model = deep()
    for bits, expected in ((8, 8), (2, 2)):
        rules = (
            keras_saq.Rule(
                path="narrow|wider", weight_bits=bits, activation_bits=8
            ),
            keras_saq.Rule(weight_bits=8, activation_bits=8),
        )
        policy = keras_saq.QuantizePolicy(rules=rules)
        assert bits_of(keras_saq.quantize_model(model, policy)) == expected


def test_calls_of_a_shared_layer_have_rows_of_their_own():
    model = shared()
    q = keras_saq.quantize_model(model, "w8a8", calibration=VECTORS)
    rows = {row.path: row for row in keras_saq.compare(model, q, VECTORS).rows}
    name = model.layers[1].name
    assert {f"{name} (call 1)", f"{name} (call 2)"} < set(rows)
    first, second = (rows[f"{name} (call {i})"] for i in (1, 2))
    assert first.here_db != second.here_db
    assert "call" not in first.mend


def nested():
    inner = keras.Sequential([keras.Input((16,)), layers.Dense(8, "relu")])
    inputs = keras.Input((16,))
    x = inner(inputs)
    return keras.Model(inputs, [layers.Dense(2)(x), layers.Dense(3)(x)])


def shared():
    a = keras.Input((16,))
    dense = layers.Dense(16, "relu")
    return keras.Model(a, layers.Dense(2)(dense(dense(a))))


class Block(keras.Model):
    def __init__(self):
        super().__init__()
        self.first = layers.Dense(8, "relu", name="first")
        self.last = layers.Dense(2, name="last")

    def call(self, x):
        return self.last(self.first(x))


def subclassed():
    model = Block()
    model(VECTORS[:2])
    return model


def attention():
    inputs = keras.Input((16,))
    x = layers.Reshape((4, 4))(inputs)
    x = x + layers.MultiHeadAttention(2, 4)(x, x)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


@pytest.mark.filterwarnings("ignore:.*in float")
@pytest.mark.parametrize("build", [nested, shared, subclassed, attention])
def test_models_of_every_kind(build):
    model = build()
    inplace = build is subclassed
    reference = build() if inplace else model
    if inplace:
        reference.set_weights(model.get_weights())
    q = keras_saq.quantize_model(
        model, "w8a8", calibration=VECTORS, inplace=inplace
    )
    found = keras_saq.compare(reference, q, VECTORS)
    assert found.db > 20
    assert all(row.here_db > 20 and row.passed_db > 15 for row in found.rows)
    assert len(found.rows) >= 2


def test_a_trained_model_is_compared_with_the_float_one():
    model = small()
    q = keras_saq.quantize_model(model, "w8a8", calibration=VECTORS)
    before = keras_saq.compare(model, q, VECTORS).db
    head = q.get_layer("head").kernel
    head.assign(head * 1.5)
    after = keras_saq.compare(model, q, VECTORS)
    assert after.db < before - 10 and after.rows[0].path == "head"


# --- What `quantize_model` says


def test_what_it_measures_is_kept_saved_and_shown(tmp_path):
    q = keras_saq.quantize_model(small(), "w8a8", calibration=VECTORS)
    (row,) = q.comparison.outputs
    assert row.name == "head" and 25 < row.db < 70
    q.save(tmp_path / "q.keras")
    again = keras.saving.load_model(tmp_path / "q.keras")
    assert again.comparison.outputs == q.comparison.outputs
    lines = []
    table = keras_saq.summary(again, print_fn=lines.append)
    assert f"{row.db:.1f} dB" in lines[0] and table.comparison.db == row.db


def test_without_data_nothing_is_measured():
    assert keras_saq.quantize_model(small(), "w8a8").comparison is None


def far_outlier():
    """One weight a thousand times larger than the others of its channel."""
    model = small()
    kernel = ops.convert_to_numpy(model.get_layer("head").kernel).copy()
    kernel[0] *= 3e3
    model.get_layer("head").kernel.assign(kernel)
    wide = model.get_layer("middle")
    bias = ops.convert_to_numpy(wide.bias).copy()
    bias[0] = -100.0  # the ReLU in front of it is dead
    wide.bias.assign(bias)
    return model, VECTORS, "head"


def cancelling_branches():
    """Two large numbers whose difference is small."""
    inputs = keras.Input((16,))
    x = layers.Dense(8, name="a")(inputs)
    y = layers.Dense(8, name="b")(inputs)
    model = keras.Model(inputs, layers.Subtract(name="small")([x, y]))
    a = 100 * ops.convert_to_numpy(model.get_layer("a").kernel)
    model.get_layer("a").kernel.assign(a)
    b = a + 0.1 * RANDOM.normal(size=a.shape)
    model.get_layer("b").kernel.assign(b)
    return model, VECTORS, "small"


def one_channel_of_a_head():
    """A probability beside a number of pixels, made by one layer."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 1, name="head")(inputs)
    model = keras.Model(inputs, x)
    kernel = np.array(ops.convert_to_numpy(model.get_layer("head").kernel))
    kernel[..., 1:] *= 1e4
    model.get_layer("head").kernel.assign(kernel)
    return model, IMAGES, "channel 0"


@pytest.mark.filterwarnings("ignore:(Much of these|These hold nothing)")
@pytest.mark.parametrize(
    "build", [far_outlier, cancelling_branches, one_channel_of_a_head]
)
def test_a_model_that_is_far_is_said_to_be(build):
    model, x, word = build()
    with pytest.warns(UserWarning, match=f"(?s){FAR}.*{word}"):
        keras_saq.quantize_model(model, "w8a8", calibration=x)


@pytest.mark.filterwarnings("ignore:Much of these kernels")
@pytest.mark.parametrize("policy", ["w8a8", "w6a8", "w4a8", "w2a2"])
def test_usual_models_are_not(policy):
    q = keras_saq.quantize_model(small(), policy, calibration=VECTORS)
    least = LEAST_DB.get(int(policy[1]), -np.inf)
    assert q.comparison.db >= least


# --- The file


def test_a_file_is_compared_with_the_float_model(tmp_path):
    model = small()
    q = keras_saq.quantize_model(model, "w8a8", calibration=VECTORS)
    path = tmp_path / "m.tflite"
    keras_saq.export_litert(q, path)
    report = keras_saq.verify_litert(path, q, VECTORS, float_model=model)
    (row,) = report.per_output
    expected = decibels(model.predict(VECTORS, verbose=0), report.outputs[0])
    np.testing.assert_allclose(row.float_db, expected, 1e-3)
    assert f"{row.float_db:.1f} dB" in str(report)
    json.loads(report.to_json())
    other = keras.Sequential([keras.Input((16,)), layers.Dense(7)])
    with pytest.raises(ValueError, match="other outputs"):
        keras_saq.verify_litert(path, q, VECTORS, float_model=other)


# --- Bad input


def test_the_models_are_in_this_order():
    model = small()
    q = keras_saq.quantize_model(model, "w8a8", calibration=VECTORS)
    with pytest.raises(ValueError, match="no quantized layer"):
        keras_saq.compare(q, model, VECTORS)
    with pytest.raises(ValueError, match="no scales|none yet"):
        keras_saq.compare(
            model, keras_saq.quantize_model(model, "w8a8"), VECTORS
        )
    with pytest.raises(ValueError, match="shapes"):
        keras_saq.compare(model, q, RANDOM.normal(size=(4, 3)))
