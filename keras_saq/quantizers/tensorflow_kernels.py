"""The per-tensor fake quantizer on TensorFlow's fused kernels.

The cost of fake quantization is memory traffic over activations. TensorFlow
has kernels that read and write each tensor once, forward and backward; only
their range gradient is not LSQ's. It follows from what they return: with the
masked gradient dx and y = s * codes, equation 3 of LSQ says

    s * dL/ds = sum(dy * y - dx * x)

so neither the mask nor the rounding error is ever written to memory.
"""

import tensorflow as tf


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
            dx, _, _ = tf.raw_ops.FakeQuantWithMinMaxVarsGradient(
                gradients=dy, inputs=x, min=low, max=high, num_bits=num_bits
            )
            return dx, tf.reduce_sum(dy * y - dx * x) / scale

        return y, gradient

    return function(x, scale)
