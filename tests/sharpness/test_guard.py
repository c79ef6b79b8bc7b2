"""A radius that is too large is told, and only then."""

import re
import warnings

import keras
import numpy as np
import pytest

import keras_saq
from tests.sharpness.oracle import build


def _fit(rho, loss="mse", epochs=2, **kwargs):
    model, _, x, target = build(0, rho=rho, **kwargs)
    model.compile(keras.optimizers.SGD(0.01), loss, jit_compile=False)
    model.fit(x, target, batch_size=4, epochs=epochs, verbose=0)
    return model


def test_the_factor_is_that_of_the_last_epoch():
    model = _fit(0.1, epochs=1)
    assert 1 < model.ascent_factor < 3
    data = build(0)[2:]
    model = _fit(0.1)
    x, target = data
    # At a rate of 0 nothing moves: the factor is that of these weights.
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
    model.fit(x, target, batch_size=8, verbose=0)
    measured = keras_saq.sharpness.measure_sharpness(
        model, (x, target), rho=0.1, eigenvalue=False
    )
    assert model.ascent_factor == pytest.approx(
        1 + measured.rise / measured.loss, rel=1e-3
    )


def test_a_steep_ascent_is_told_once():
    with pytest.warns(UserWarning) as found:
        _fit(8.0, epochs=3)
    told = [str(w.message) for w in found if "ascent" in str(w.message)]
    assert len(told) == 1
    assert re.search("times as large.*epoch 1.*rho=", told[0])
    schedule = keras.optimizers.schedules.CosineDecay(8.0, 100)
    with pytest.warns(UserWarning, match="times as large"):
        _fit(schedule)


@pytest.mark.parametrize("strategy", ["none", "momentum"])
def test_without_a_clean_and_a_perturbed_pass_there_is_no_factor(strategy):
    model, _, x, target = build(0, rho=1.0, strategy=strategy)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
    model.fit(x, target, verbose=0)
    assert model.ascent_factor is None


def test_a_small_cross_entropy_may_rise_steeply():
    """Losses of almost 0 have large ratios, and that is no large radius."""
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    model.layers[1].kernel.assign(8 * np.eye(2))
    saq = keras_saq.SAQModel(model, rho=2.0)
    saq.compile(
        keras.optimizers.SGD(0.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        saq.fit(np.eye(2), np.array([0, 1]), verbose=0)
    assert saq.ascent_factor > 3


def test_callbacks_of_every_form_are_kept():
    seen = []
    spy = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(epoch)
    )
    for callbacks in (spy, [spy], (spy,)):
        model, _, x, target = build(0)
        model.compile("sgd", "mse", jit_compile=False)
        model.fit(x, target, verbose=0, callbacks=callbacks)
    whole = keras.callbacks.CallbackList([spy], add_history=True, model=model)
    model.fit(x, target, verbose=0, callbacks=whole)
    assert seen == [0, 0, 0, 0]
