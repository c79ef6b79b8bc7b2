"""Frame by frame as all at once, code by code, in Keras and in the file."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers
from keras import ops

import keras_saq
from keras_saq.models import initial_states
from keras_saq.models import stream
from keras_saq.models import streaming_model

# Gates are float islands, on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:(.|\n)*stay in float")

X = np.random.default_rng(0).normal(size=(8, 16, 6)).astype("float32")


def network(function, shape=(16, 6)):
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape, name="frames")
    return keras.Model(inputs, function(inputs))


def convolutions(x):
    x = layers.Conv1D(8, 3, padding="causal", activation="relu")(x)
    y = layers.ZeroPadding1D((4, 0))(x)
    y = layers.DepthwiseConv1D(3, dilation_rate=2)(y)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    x = layers.Add()([x, layers.Conv1D(8, 1)(y)])
    return layers.Dense(4)(x)


def gates(x):
    x = layers.Conv1D(8, 2, padding="causal")(x)
    a, b = ops.split(x, 2, -1)
    return layers.Dense(3)(a * layers.Activation("tanh")(b))


def images(x):
    x = layers.Reshape((16, 6, 1))(x)
    x = layers.ZeroPadding2D(((2, 0), (1, 1)))(x)
    x = layers.Conv2D(4, 3, activation="relu")(x)
    x = layers.ZeroPadding2D(((1, 0), (0, 0)))(x)
    return layers.Conv2D(2, (2, 6))(x)


KINDS = {
    "convolutions": (convolutions, 1),
    "four_frames": (convolutions, 4),
    "gates": (gates, 1),
    "images": (images, 2),
    "gru": (lambda x: layers.GRU(5, return_sequences=True)(x), 1),
    "last_state": (
        lambda x: layers.Dense(2)(
            layers.LSTM(4)(layers.LSTM(4, return_sequences=True)(x))
        ),
        1,
    ),
    "simple_rnn": (
        lambda x: layers.Dense(2)(
            layers.SimpleRNN(4, return_sequences=True)(x)
        ),
        2,
    ),
    "strided": (
        lambda x: layers.Dense(2)(
            layers.AveragePooling1D(2)(
                layers.Conv1D(4, 4, strides=2, padding="causal")(x)
            )
        ),
        4,
    ),
}


@pytest.mark.parametrize("policy", ["w8a8", "w4a8"])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_make_what_the_model_makes(kind, policy):
    function, frames = KINDS[kind]
    q = keras_saq.quantize_model(network(function), policy, calibration=X)
    step = streaming_model(q, frames)
    np.testing.assert_allclose(
        stream(step, X), q.predict(X, verbose=0), atol=1e-6
    )
    # The model itself is as it was.
    assert len(q.inputs) == 1 and q.inputs[0].shape[1] == 16


def test_layers_of_a_nested_model():
    inner = keras.Sequential(
        [
            keras.Input((16, 8)),
            layers.Conv1D(8, 3, padding="causal", activation="relu"),
            layers.GRU(4, return_sequences=True),
        ],
        name="inner",
    )
    model = network(lambda x: layers.Dense(3)(inner(layers.Dense(8)(x))))
    for each in (model, keras_saq.quantize_model(model, "w8a8", calibration=X)):
        made = stream(streaming_model(each), X)
        np.testing.assert_allclose(made, each.predict(X, verbose=0), atol=1e-5)


def test_float_and_sequential_models():
    model = keras.Sequential(
        [
            keras.Input((16, 6)),
            layers.Conv1D(4, 3, padding="causal"),
            layers.Dense(2),
        ]
    )
    for each in (
        model,
        keras_saq.quantize_model(model, "w8a8", calibration=X),
    ):
        step = streaming_model(each)
        made, expected = stream(step, X), each.predict(X, verbose=0)
        np.testing.assert_allclose(made, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["convolutions", "gru", "last_state"])
def test_the_file_streams_as_its_reference_does(kind, tmp_path):
    function, frames = KINDS[kind]
    q = keras_saq.quantize_model(network(function), "w8a8", calibration=X)
    step = streaming_model(q, frames)
    random = np.random.default_rng(1)
    states = [
        random.normal(size=state.shape).astype("float32")
        for state in initial_states(step, len(X))
    ]
    path = tmp_path / "step.tflite"
    report = step.export(path, format="litert")
    parity = keras_saq.verify_litert(path, step, [X[:, :frames], *states])
    assert parity.reference_exact and parity.within_bounds
    # The file, step after step, against the file of the whole.
    runner = Interpreter(model_path=str(path)).get_signature_runner()
    fed = {s.name: np.zeros((1, *s.shape[1:]), "float32") for s in step.inputs}
    made = []
    for start in range(0, 16, frames):
        outputs = runner(**fed | {"frames": X[:1, start : start + frames]})
        for name in fed.keys() - {"frames"}:
            fed[name] = outputs.pop(f"next_{name}")
        (output,) = outputs.values()
        made.append(output)
    # The network's size, not that of a sequence.
    whole = q.export(tmp_path / "whole.tflite", format="litert")
    runner = Interpreter(
        model_path=str(tmp_path / "whole.tflite")
    ).get_signature_runner()
    (expected,) = runner(frames=X[:1]).values()
    if kind == "last_state":
        made = made[-1:]
    made = np.concatenate(made, 1) if expected.ndim > 2 else made[-1]
    np.testing.assert_array_equal(made, expected)
    if kind != "convolutions":
        assert report.file_bytes < 0.6 * whole.file_bytes


def test_a_step_model_is_saved_and_loaded(tmp_path):
    q = keras_saq.quantize_model(network(convolutions), "w8a8", calibration=X)
    step = streaming_model(q)
    step.save(tmp_path / "step.keras")
    loaded = keras.saving.load_model(tmp_path / "step.keras")
    np.testing.assert_allclose(stream(loaded, X), stream(step, X), atol=1e-6)


@pytest.mark.parametrize(
    "function, name",
    [
        (lambda x: layers.Conv1D(4, 3, padding="same", name="wide")(x), "wide"),
        (
            lambda x: layers.Bidirectional(
                layers.GRU(2, return_sequences=True), name="both"
            )(x),
            "both",
        ),
        (
            lambda x: layers.Dense(2)(
                layers.GlobalAveragePooling1D(name="mean")(x)
            ),
            "mean",
        ),
        (
            lambda x: layers.UnitNormalization(axis=1, name="over_time")(x),
            "over_time",
        ),
        (lambda x: layers.ZeroPadding1D((1, 1), name="ends")(x), "ends"),
        (lambda x: layers.Flatten(name="flat")(x), "flat"),
    ],
)
def test_what_needs_more_frames_is_named(function, name):
    model = network(lambda x: function(layers.Dense(4)(x)))
    with pytest.raises(ValueError, match=f"'[a-z_/]*{name}.*frame by frame"):
        streaming_model(model)


def test_long_sequences_are_checked_at_their_beginning():
    model = network(convolutions, (5000, 6))
    step = streaming_model(model)
    x = np.random.default_rng(0).normal(size=(1, 5000, 6)).astype("float32")
    expected = model.predict(x, verbose=0)[:, :30]
    made = stream(step, x[:, :30])
    np.testing.assert_allclose(made, expected, atol=1e-5)
    model = network(lambda x: layers.Conv1D(2, 3, padding="same")(x), (5000, 6))
    with pytest.raises(ValueError, match="frame by frame"):
        streaming_model(model)


def test_wrong_arguments():
    model = network(convolutions)
    for frames in (0, 1.5):
        with pytest.raises(ValueError, match="frames"):
            streaming_model(model, frames)
    with pytest.raises(ValueError, match="no multiple of 5"):
        streaming_model(model, 5)
    a = keras.Input((4,))
    with pytest.raises(ValueError, match="time, features"):
        streaming_model(keras.Model(a, layers.Dense(2)(a)))
    with pytest.raises(ValueError, match="before its quantizers have scales"):
        streaming_model(keras_saq.quantize_model(model, "w8a8"))
