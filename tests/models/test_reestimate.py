"""`fit` ends with batch-norm statistics of the weights it ends with."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_saq
from keras_saq.models.fitting import arguments_of_fit
from keras_saq.models.fitting import updates_of_fit
from keras_saq.models.reestimate import reestimate_batch_norm

X = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 64)


def _network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    x = layers.BatchNormalization()(layers.Dense(8)(inputs))
    return keras.Model(inputs, layers.Dense(3)(layers.ReLU()(x)))


def _trainee(saq, **kwargs):
    model = keras_saq.quantize_model(_network(), "w4a8", calibration=X)
    if saq:
        model = keras_saq.SAQModel(model, rho=0.05, **kwargs)
    model.compile(
        keras.optimizers.SGD(0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    return model


def _statistics(model):
    return np.concatenate(
        [
            ops.convert_to_numpy(v)
            for v in model.non_trainable_variables
            if v.name.startswith("moving")
        ]
    )


class Batches(keras.utils.PyDataset):
    """Sixteen samples a batch."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        part = slice(16 * index, 16 * index + 16)
        return X[part], Y[part]


@pytest.mark.parametrize("saq", [False, True])
@pytest.mark.parametrize("kind", ["arrays", "sequence"])
def test_statistics_are_those_of_the_training_data(saq, kind):
    model = _trainee(saq)
    if kind == "arrays":
        model.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    else:
        model.fit(Batches(), epochs=2, shuffle=False, verbose=0)
    found = _statistics(model)
    reestimate_batch_norm(model, X, batch_size=16)
    np.testing.assert_allclose(found, _statistics(model), atol=1e-6)


def test_it_can_be_left():
    moved = _trainee(False)
    moved.fit(X, Y, verbose=0, reestimate_batch_norm=False)
    found = _statistics(moved)
    reestimate_batch_norm(moved, X)
    assert np.abs(found - _statistics(moved)).max() > 1e-3
    neither = _trainee(True, batch_norm="neither")
    before = _statistics(neither)
    neither.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(before, _statistics(neither))


def test_a_frozen_norm_stays():
    model = _trainee(False)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    before = _statistics(model)
    model.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(before, _statistics(model))


def test_what_can_be_read_once_is_told():
    model = _trainee(False)
    batches = ((X[:16], Y[:16]) for _ in range(2))
    with pytest.warns(UserWarning, match="cannot be read again"):
        model.fit(batches, steps_per_epoch=2, shuffle=False, verbose=0)


def test_weights_that_are_not_finite_are_left():
    model = _trainee(False)
    model.layers[-1].kernel.assign(np.full((8, 3), np.nan))
    before = _statistics(model)
    model.fit(X, Y, verbose=0, epochs=1)
    assert before.shape == _statistics(model).shape


def test_samples_of_validation_are_not_used():
    """And the last part, which Keras validates on, is no sample of it."""
    model = _trainee(False)
    x = X.copy()
    x[48:] += 100.0
    model.fit(x, Y, batch_size=16, validation_split=0.25, verbose=0)
    found = _statistics(model)
    reestimate_batch_norm(model, x[:48], batch_size=16)
    np.testing.assert_allclose(found, _statistics(model), atol=1e-6)


@pytest.mark.parametrize(
    "given, expected",
    [
        ({"x": X, "epochs": 3}, (0, 6)),
        ({"x": X, "batch_size": 10, "epochs": 3}, (0, 21)),
        ({"x": X, "validation_split": 0.5, "epochs": 3}, (0, 3)),
        ({"x": Batches(), "epochs": 3, "initial_epoch": 1}, (-4, 8)),
        ({"x": iter([]), "steps_per_epoch": 7, "epochs": 2}, (0, 14)),
        ({"x": iter([]), "epochs": 2}, (0, None)),
    ],
)
def test_how_many_updates_a_fit_has(given, expected):
    optimizer = keras.optimizers.SGD()
    assert updates_of_fit(optimizer, arguments_of_fit(**given)) == expected


def test_accumulated_gradients_are_one_update():
    optimizer = keras.optimizers.SGD(gradient_accumulation_steps=2)
    given = arguments_of_fit(X, batch_size=16, epochs=3)
    assert updates_of_fit(optimizer, given) == (0, 6)
