import numpy as np
import pytest

from keras_saq.quantizers import LSQ
from keras_saq.quantizers import NoiseTempering
from tests.quantizers import helpers


def make(scale=0.25, step=0.0, **kwargs):
    quantizer = NoiseTempering(4, seed=3, **kwargs)
    quantizer.build(())
    quantizer.set_scale(scale)
    quantizer.step.assign(step)
    return quantizer


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=500).astype("float32")
    return x, rng.normal(size=500).astype("float32")


def parts(x, scale=0.25):
    v = x / scale
    quantized = np.rint(np.clip(v, -8, 7)) * scale
    error = np.clip(v, -8, 7) * scale - quantized
    return quantized, error, (v >= -8) & (v <= 7)


def test_noise_is_as_large_as_the_rounding_error():
    x, _ = data()
    quantized, error, _ = parts(x)
    for step, temperature in ((0, 1.0), (100, np.exp(-1.0)), (1e6, 0.0)):
        y = helpers.numpy(make(step=step, decay_steps=100)(x, training=True))
        difference = np.abs(y - quantized)
        assert np.all(difference <= np.abs(error) * temperature + 1e-6)
        if temperature:
            large = np.abs(error) > 0.01
            noise = (y - quantized)[large] / (error * temperature)[large]
            assert noise.min() < -0.9 and noise.max() > 0.9
            assert abs(noise.mean()) < 0.1


def test_gradients_equal_the_oracle():
    x, dy = data()
    scale, step, logit = 0.25, 30.0, 0.4
    quantizer = make(step=step, decay_steps=100)
    quantizer.strength_logit.assign(logit)
    quantized, error, inside = parts(x)
    temperature = np.exp(-step / 100)
    sigmoid = 1 / (1 + np.exp(-logit))
    dx, others = helpers.quantizer_gradients(quantizer, x, dy, training=True)
    bend = 2 * sigmoid * temperature * error / scale
    np.testing.assert_allclose(
        dx, dy * inside * (1 + np.sign(dy) * bend), rtol=1e-4, atol=1e-6
    )
    v = x / scale
    ds = np.where(inside, np.rint(v) - v, np.clip(v, -8, 7))
    np.testing.assert_allclose(
        others["log_scale"], (dy * ds).sum() * scale, rtol=1e-3
    )
    # y - Q(x) is proportional to the strength.
    y = helpers.numpy(quantizer(x, training=True))
    dlogit = (dy * (y - quantized)).sum() * (1 - sigmoid)
    np.testing.assert_allclose(others["strength_logit"], dlogit, rtol=1e-3)


def test_outside_of_training_it_is_lsq():
    x, dy = data()
    quantizer, lsq = make(), LSQ(4)
    lsq.build(())
    lsq.set_scale(0.25)
    for training in (None, False):
        np.testing.assert_array_equal(
            helpers.numpy(quantizer(x, training=training)),
            helpers.numpy(lsq(x)),
        )
    assert float(helpers.numpy(quantizer.step)) == 0.0
    dx, _ = helpers.quantizer_gradients(quantizer, x, dy)
    np.testing.assert_array_equal(
        dx, helpers.quantizer_gradients(lsq, x, dy)[0]
    )


def test_steps_and_noise_advance_in_training():
    x, _ = data()
    quantizer = make()
    first = helpers.numpy(quantizer(x, training=True))
    second = helpers.numpy(quantizer(x, training=True))
    assert float(helpers.numpy(quantizer.step)) == 2.0
    assert np.any(first != second)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="decay_steps.*0"):
        NoiseTempering(4, decay_steps=0)
