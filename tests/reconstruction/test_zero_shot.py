"""A quantized model trained against a generator, without data."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_saq
from keras_saq.reconstruction.zero_shot import _logits_of
from keras_saq.reconstruction.zero_shot import generator_loss
from keras_saq.reconstruction.zero_shot import zero_shot
from tests.reconstruction.test_data_free import trained


def test_the_generators_loss_against_numpy():
    random = np.random.default_rng(0)
    a, b, f = (random.normal(size=s) for s in ((8, 3), (8, 3), (8, 5)))
    found = generator_loss(*(x.astype("float32") for x in (a, b, f)), 2.5)
    expected = -np.abs(a - b).mean() - 0.1 * np.abs(f).mean() + 2.5
    np.testing.assert_allclose(float(found), expected, rtol=1e-5)


@pytest.mark.parametrize("rho", [0.0, 0.02])
def test_the_student_comes_nearer_on_data_it_has_not_seen(rho):
    model, data = trained(2.0, 0.5)
    q = keras_saq.quantize_model(model, "w2a8")
    start = keras_saq.data_free(model, 32, steps=40, verbose=0)
    keras_saq.calibrate(q, start)
    norms = [v for v in q.non_trainable_variables if "moving" in v.name]
    kept = [np.copy(ops.convert_to_numpy(v)) for v in norms]
    before = keras_saq.compare(model, q, data).db
    found = zero_shot(
        q,
        model,
        rounds=40,
        rho=rho,
        learning_rate=3e-3,
        batch_size=16,
        start=start,
        verbose=0,
    )
    assert len(found.student) == len(found.generator) == 40
    assert keras_saq.compare(model, q, data).db > before + 0.5
    for variable, value in zip(norms, kept):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)
    assert all(
        layer.trainable
        for layer in q.layers
        if isinstance(layer, layers.BatchNormalization)
    )
    x = found.make(8)
    assert x.shape == (8, 12, 12, 3)
    # The generator stays where the training data are.
    assert abs(x.mean() - 2.0) < 1.0


def test_a_softmax_is_compared_by_its_logits():
    inputs = keras.Input((4,))
    z = layers.Dense(3)(inputs)
    model = keras.Model(inputs, layers.Softmax()(z))
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    logits = ops.convert_to_numpy(keras.Model(inputs, z)(x))
    found = ops.convert_to_numpy(_logits_of(model)(model(x)))
    centred = logits - logits.mean(-1, keepdims=True)
    np.testing.assert_allclose(found, centred, atol=1e-4)
    plain = keras.Model(inputs, z)
    assert _logits_of(plain)(logits) is logits


def test_what_it_cannot_do_is_told():
    model, _ = trained()
    with pytest.raises(ValueError, match="no quantized layer"):
        zero_shot(model, model)
    two = keras.Model(model.inputs, [model.outputs[0], model.outputs[0]])
    with pytest.raises(ValueError, match="one output"):
        zero_shot(keras_saq.quantize_model(model, "w4a8"), two)
