"""The mixture of fake quantizers against NumPy, values and gradients."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_saq.quantizers.mix import mix
from keras_saq.sharpness.surface import backend_differentiate

RANGES = {
    "unsigned": ((0, 3), (0, 7), (0, 63)),
    "signed": ((-2, 1), (-8, 7), (-128, 127)),
    "narrow": ((-1, 1), (-7, 7), (-127, 127)),
    "one passes": ((-2, 1), (-8, 7), None),
}


def oracle(x, scales, p, ranges, dy):
    """Equations of the module, in float64."""
    y, inside = np.zeros_like(x), np.zeros_like(x)
    dp, ds = [], []
    for s, q, limits in zip(scales, p, ranges):
        if limits is None:
            value, mask = x, np.ones_like(x)
            ds.append(0.0)
        else:
            v = x / s
            value = s * np.rint(np.clip(v, *limits))
            mask = (v >= limits[0]) & (v <= limits[1])
            ds.append(q * np.sum(dy * value - dy * mask * x) / s)
        y += q * value
        inside += q * mask
        dp.append(np.sum(dy * value))
    return y, dy * inside, np.array(ds), np.array(dp)


@pytest.mark.parametrize("name", RANGES)
def test_values_and_gradients(name):
    ranges, rng = RANGES[name], np.random.default_rng(0)
    x = rng.normal(size=(5, 7, 3)).astype("float32")
    scales = np.float32([0.7, 0.21, 0.013])
    p, dy = np.float32([0.2, 0.5, 0.3]), rng.normal(size=x.shape)

    def function(points):
        y = mix(*points, ranges)
        return ops.sum(y * ops.convert_to_tensor(dy, "float32")), y

    points = [ops.convert_to_tensor(a) for a in (x, scales, p)]
    _, y, gradients = backend_differentiate()(function, points)
    expected = oracle(
        *(a.astype("float64") for a in (x, scales, p)), ranges, dy
    )
    for value, wanted in zip([y, *gradients], expected, strict=True):
        value = ops.convert_to_numpy(value)
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=2e-4)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="counts what TF keeps"
)
def test_between_the_passes_only_the_input_is_kept():
    """More candidates do not need more memory of the size of the tensor."""
    import tensorflow as tf

    def kept(num_candidates):
        @tf.function
        def forward(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                p = tf.ones((num_candidates,)) / num_candidates
                y = mix(x, p, p, ((0, 15),) * num_candidates)
            return y, tape.gradient(y, x)

        x = tf.zeros((8, 32))
        graph = forward.get_concrete_function(x).graph
        backward = [o for o in graph.get_operations() if "Gradient" in o.type]
        read = [i for o in backward for i in o.inputs if i.shape == x.shape]
        # One candidate after the other: TensorFlow would merge what the
        # backward pass computes with the same in the forward pass.
        again = {i.name: i.op for i in read if i.op.control_inputs}
        assert len(again) == num_candidates
        return {
            again[i.name].inputs[0].name if i.name in again else i.name
            for i in read
        }

    # The tensor itself, and the gradient that comes in.
    assert len(kept(1)) == len(kept(5)) == 2
