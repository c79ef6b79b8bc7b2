import keras
import numpy as np
import pytest

from keras_saq.quantizers import NIPQ
from tests.quantizers import helpers


def softplus(x):
    return np.log1p(np.exp(x))


def make(num_bits=4, signed=True, rho=0.7, theta=None, seed=3, **kwargs):
    quantizer = NIPQ(num_bits, signed=signed, seed=seed, **kwargs)
    quantizer.build(())
    quantizer.rho.assign(rho)
    if theta is not None:
        quantizer.theta.assign(theta)
    return quantizer


def largest_code(bits, signed):
    return 2 ** (bits - 1) - 1 if signed else 2**bits - 1


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("num_bits", [2, 3, 4, 8])
def test_evaluation_rounds_to_the_grid(num_bits, signed):
    x = np.random.default_rng(0).normal(size=300).astype("float32")
    quantizer = make(num_bits, signed)
    assert quantizer.num_bits == num_bits
    n = largest_code(num_bits, signed)
    assert (quantizer.qmin, quantizer.qmax) == (-n if signed else 0, n)
    scale = softplus(0.7) / n
    codes = np.clip(np.rint(x / scale), quantizer.qmin, n)
    np.testing.assert_allclose(
        helpers.numpy(quantizer(x)), codes * scale, atol=1e-5
    )
    np.testing.assert_array_equal(quantizer.codes(x), codes)
    assert quantizer.export_obstacle is None


@pytest.mark.parametrize("signed", [False, True])
def test_training_gradients_equal_the_oracle(signed):
    rng = np.random.default_rng(0)
    rho, theta = 0.4, -0.3
    quantizer = make(4, signed, rho, theta)
    dither = keras.random.uniform(
        (), -0.5, 0.5, seed=keras.random.SeedGenerator(3)
    )
    sigmoid = 1 / (1 + np.exp(-theta))
    bits = np.rint(2 + 6 * sigmoid + float(helpers.numpy(dither)))
    n, alpha = largest_code(bits, signed), softplus(rho)
    x = rng.normal(size=400).astype("float32")
    x[:5] = 0.0
    dy = rng.normal(size=400).astype("float32")
    low = -alpha if signed else 0.0
    inside = (x < alpha) & ((x > low) if signed else (x >= low))

    with keras.StatelessScope([]):  # the noise of the gradients below
        y = helpers.numpy(quantizer(x, training=True))
    delta = alpha / n
    noise = np.where(inside, (y - x) / delta, 0.0)
    assert np.abs(noise).max() <= 0.5
    outside = np.clip(x, low, alpha)
    np.testing.assert_allclose(y[~inside], outside[~inside], rtol=1e-5)

    dx, others = helpers.quantizer_gradients(quantizer, x, dy, training=True)
    np.testing.assert_allclose(dx, dy * inside, rtol=1e-6)
    dalpha = dy * np.where(inside, noise / n, outside / alpha)
    drho = dalpha.sum() / (1 + np.exp(-rho))
    np.testing.assert_allclose(others["rho"], drho, rtol=1e-3, atol=1e-3)
    power = 2 ** (bits - 1) if signed else 2**bits
    ddelta = -alpha / n**2 * power * np.log(2.0)
    dtheta = (dy * noise).sum() * ddelta * 6 * sigmoid * (1 - sigmoid)
    np.testing.assert_allclose(others["theta"], dtheta, rtol=1e-3, atol=1e-4)


def test_noise_has_the_distribution_of_the_rounding_errors():
    rng = np.random.default_rng(0)
    # Errors between 0.1 and 0.3 steps only, on a grid of 15 codes.
    rho = np.log(np.expm1(7.0))
    x = rng.integers(-6, 6, 20000) + rng.uniform(0.1, 0.3, 20000)
    quantizer = make(4, rho=rho, theta=np.log(2 / 4))
    x = x.astype("float32")
    # The width is drawn too: 4 here in about every draw.
    for _ in range(5):
        noise = helpers.numpy(quantizer(x, training=True)) - x
        if np.abs(noise).max() > 0.31:
            continue
        np.testing.assert_allclose(noise.mean(), -0.2, atol=0.01)
        np.testing.assert_allclose(noise.std(), 0.2 / np.sqrt(12), atol=0.01)
        return
    pytest.fail("the width was never 4")


def test_the_width_is_learned_and_saved():
    quantizer = make(8)
    quantizer.theta.assign(0.0)
    assert quantizer.num_bits == 5
    np.testing.assert_allclose(float(helpers.numpy(quantizer.bits)), 5.0)
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(quantizer)
    )
    assert copy.num_bits == 8
    copy.set_weights(quantizer.get_weights())
    assert copy.num_bits == 5 and copy.qmax == 15


def test_the_width_can_be_penalized():
    quantizer = make(5, bits_regularization=0.5)
    (loss,) = quantizer.losses
    np.testing.assert_allclose(float(helpers.numpy(loss)), 2.5, rtol=1e-6)


def test_the_range_comes_from_data():
    quantizer = NIPQ(8, initial_scale="minmax", channel_axes=(-1,))
    x = np.float32([[1e-6, 2.0, -1e6], [0.0, 1.0, 3.0]])
    quantizer.initialize(x)
    np.testing.assert_allclose(
        helpers.numpy(quantizer.alpha), [1e-6, 2.0, 1e6], rtol=1e-5
    )


def test_bad_arguments_are_refused():
    for arguments in ({"max_bits": 9}, {"max_bits": 2}, {"max_bits": 4}):
        with pytest.raises(ValueError, match="max_bits"):
            NIPQ(**{"num_bits": 5, **arguments})
