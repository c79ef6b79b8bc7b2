import numpy as np
import pytest

from keras_saq.quantizers import RAND
from keras_saq.quantizers import check_role
from tests.quantizers import helpers


def scale_of(x, order, qmax, axis=None):
    return (np.abs(x) ** order).sum(axis) ** (1 / order) / qmax


@pytest.mark.parametrize("axes", [(), (-1,)])
@pytest.mark.parametrize("order", [8, 32])
def test_forward_and_gradients_equal_the_oracle(axes, order):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3)).astype("float32")
    dy = rng.normal(size=x.shape).astype("float32")
    quantizer = RAND(4, order=order, narrow_range=True, channel_axes=axes)
    quantizer.initialize(x)
    axis = 0 if axes else None
    x64 = x.astype("float64")
    scale = scale_of(x64, order, 7, axis)
    np.testing.assert_allclose(helpers.numpy(quantizer.scale), scale, rtol=1e-5)
    v = x64 / scale
    codes = np.rint(v)
    y = helpers.numpy(quantizer(x, training=True))
    np.testing.assert_allclose(y, codes * scale, atol=1e-5)
    # With the codes constant, y = s(x) * code + (x - s * v, straight through).
    ds = (dy * (codes - v)).sum(axis)
    dscale = np.sign(x64) * np.abs(x64) ** (order - 1)
    dscale = dscale * (7 * scale) ** (1 - order) / 7
    dx, _ = helpers.quantizer_gradients(quantizer, x, dy, training=True)
    np.testing.assert_allclose(dx, dy + ds * dscale, rtol=1e-3, atol=1e-4)
    dx, _ = helpers.quantizer_gradients(quantizer, x, dy)
    np.testing.assert_array_equal(dx, dy)


def test_the_scale_follows_in_training_only():
    x = np.float32([-1.0, 0.2, 0.5])
    quantizer = RAND(4, narrow_range=True)
    quantizer.initialize(x)
    quantizer(4 * x)
    np.testing.assert_allclose(
        float(helpers.numpy(quantizer.scale)), 1 / 7, rtol=1e-4
    )
    quantizer(4 * x, training=True)
    np.testing.assert_allclose(
        float(helpers.numpy(quantizer.scale)), 4 / 7, rtol=1e-4
    )


def test_the_decay_of_the_norm_is_a_loss():
    x = np.float32([-2.0, 0.2, 0.5])
    quantizer = RAND(4, norm_decay=0.1)
    quantizer.initialize(x)
    quantizer(x, training=True)
    (loss,) = quantizer.losses
    np.testing.assert_allclose(float(helpers.numpy(loss)), 0.2, rtol=1e-4)


def test_bad_uses_are_refused():
    with pytest.raises(ValueError, match="order.*inf"):
        RAND(4, order=float("inf"))
    with pytest.raises(ValueError, match="not made for activations"):
        check_role(RAND(4), "activations")
