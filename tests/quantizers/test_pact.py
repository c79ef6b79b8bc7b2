import keras
import numpy as np
import pytest

from keras_saq.quantizers import PACT
from keras_saq.quantizers import check_role
from tests.quantizers import helpers


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("num_bits", [2, 4, 8])
def test_forward_and_gradients_equal_the_oracle(num_bits, signed):
    rng = np.random.default_rng(0)
    quantizer = PACT(num_bits, signed=signed)
    quantizer.build(())
    quantizer.set_scale(0.125)
    qmin, qmax, scale = quantizer.qmin, quantizer.qmax, 0.125
    v = rng.integers(qmin - 5, qmax + 6, 200) + rng.uniform(-0.4, 0.4, 200)
    v[:3] = qmin, qmax, 0.25
    x = (v * scale).astype("float32")
    dy = rng.normal(size=200).astype("float32")
    code = np.rint(np.clip(v, qmin, qmax))
    np.testing.assert_allclose(
        helpers.numpy(quantizer(x)), code * scale, rtol=1e-6
    )
    np.testing.assert_array_equal(quantizer.codes(x), code)
    np.testing.assert_allclose(
        float(helpers.numpy(quantizer.alpha)), qmax * scale
    )
    dx, others = helpers.quantizer_gradients(quantizer, x[3:], dy[3:])
    v, dy = v[3:], dy[3:]
    np.testing.assert_array_equal(dx, dy * ((v > qmin) & (v < qmax)))
    # d alpha of the paper is the part above, times d alpha / d log(s).
    dlog = (dy * (v >= qmax)).sum() * qmax * scale
    dlog += (dy * (v <= qmin)).sum() * qmin * scale
    np.testing.assert_allclose(others["log_scale"], dlog, rtol=1e-4, atol=1e-4)


def test_the_gradient_at_the_level_is_that_of_the_level():
    quantizer = PACT(2, signed=False)
    quantizer.build(())
    x = np.float32([3.0])  # alpha is 3
    dx, others = helpers.quantizer_gradients(quantizer, x, np.ones(1, "f"))
    assert dx == 0.0
    assert others["log_scale"] == 3.0


def test_the_penalty_is_a_loss():
    quantizer = PACT(2, signed=False, l2_regularization=0.1)
    quantizer.build(())
    quantizer.set_scale(2.0)
    (loss,) = quantizer.losses
    np.testing.assert_allclose(float(helpers.numpy(loss)), 0.1 * 36, rtol=1e-6)
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(quantizer)
    )
    assert copy.l2_regularization == 0.1
    assert not PACT(2).losses


def test_it_is_for_activations():
    with pytest.raises(ValueError, match="PACT.*not made for weights"):
        check_role(PACT(4), "weights")
