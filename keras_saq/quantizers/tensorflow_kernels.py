"""The per-tensor fake quantizer on TensorFlow's fused kernels.

The cost of fake quantization is memory traffic over activations. TensorFlow
has kernels that read and write each tensor once, forward and backward; only
their range gradient is not LSQ's. It follows from what they return, the
masked gradient dx and the sums of dy below and above the range: with
y = s * codes, equation 3 of LSQ says

    dL/ds = sum(dx * (y - x)) / s + qmin * below + qmax * above

so no mask is ever written to memory.
"""

import tensorflow as tf

from keras_saq.quantizers.fake_quant import ON_BOUND


def read(x):
    """A tensor: `tf.custom_gradient` refuses variables as arguments."""
    return tf.convert_to_tensor(x)


def supports(qmin, qmax):
    """Whether [qmin, qmax] is a full integer range that has a kernel."""
    num_codes = qmax - qmin + 1
    return num_codes & (num_codes - 1) == 0 and 4 <= num_codes <= 1 << 16


def fake_quantize_per_tensor(x, scale, qmin, qmax):
    num_bits = (qmax - qmin + 1).bit_length() - 1

    @tf.custom_gradient
    def function(x, scale):
        low, high = qmin * scale, qmax * scale
        y = tf.quantization.fake_quant_with_min_max_vars(
            x, low, high, num_bits=num_bits
        )

        def gradient(dy):
            dx, below, above = tf.raw_ops.FakeQuantWithMinMaxVarsGradient(
                gradients=dy,
                inputs=x,
                min=low * ON_BOUND,
                max=high * ON_BOUND,
                num_bits=num_bits,
            )
            inside = tf.reduce_sum(dx * (y - x)) / scale
            return dx, inside + qmin * below + qmax * above

        return y, gradient

    return function(x, scale)


def _after(first, x):
    """The tensor `x`, to be read only when `first` is there.

    Without it TensorFlow computes all candidates at once, and keeps those of
    the forward pass for the backward pass, which asks for the same.
    """
    with tf.control_dependencies([first]):
        return tf.identity(x)


def mix_per_tensor(x, scales, probabilities, ranges):
    """See `keras_saq.quantizers.mix.mix`."""

    def bounds(i, tolerance=1.0):
        qmin, qmax = ranges[i]
        return {
            "min": qmin * scales[i] * tolerance,
            "max": qmax * scales[i] * tolerance,
            "num_bits": (qmax - qmin + 1).bit_length() - 1,
        }

    def values(x, i):
        if ranges[i] is None:
            return x
        return tf.quantization.fake_quant_with_min_max_vars(x, **bounds(i))

    @tf.custom_gradient
    def function(x, scales, probabilities):
        y = probabilities[0] * values(x, 0)
        for i in range(1, len(ranges)):
            y += probabilities[i] * values(_after(y, x), i)

        def gradient(dy):
            dx, dscales, dprobabilities = 0.0, [], []
            for i, limits in enumerate(ranges):
                again = _after(dprobabilities[-1] if i else dy, x)
                product = tf.reduce_sum(dy * values(again, i))
                dprobabilities.append(product)
                if limits is None:
                    masked = dy
                    dscales.append(tf.zeros_like(product))
                else:
                    masked, _, _ = tf.raw_ops.FakeQuantWithMinMaxVarsGradient(
                        gradients=dy, inputs=again, **bounds(i, ON_BOUND)
                    )
                    slope = product - tf.reduce_sum(masked * again)
                    dscales.append(probabilities[i] * slope / scales[i])
                dx += probabilities[i] * masked
            return dx, tf.stack(dscales), tf.stack(dprobabilities)

        return y, gradient

    return function(x, scales, probabilities)
