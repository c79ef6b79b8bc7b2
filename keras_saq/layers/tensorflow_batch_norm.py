"""Batch normalization in training, on TensorFlow's fused kernel.

Keras composes it from a dozen operations, each of which reads and writes the
whole activation; the kernel computes the same, forward and backward, in a
quarter to a half of the time on CPU.
"""

import tensorflow as tf

# cuDNN refuses a smaller one.
SMALLEST_EPSILON = 1e-5


def supports(layer, x):
    """Whether the kernel computes what a `BatchNormalization` layer does.

    Args:
        layer: the layer.
        x: its input, in float32.
    """
    return (
        layer.axis in (-1, len(x.shape) - 1)
        and not layer.synchronized
        and layer.epsilon >= SMALLEST_EPSILON
    )


def normalize(x, gamma, beta, epsilon):
    """Normalizes by the moments of the batch.

    Args:
        x: float32 tensor, channels last.
        gamma: tensor of shape `(channels,)`, or `None` for ones.
        beta: tensor of shape `(channels,)`, or `None` for zeros.
        epsilon: what is added to the variance.

    Returns:
        `(y, mean, variance)`: a tensor of the shape of `x`, and two of shape
        `(channels,)`, through which no gradient goes.
    """
    channels = x.shape[-1]
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=tf.reshape(x, (-1, 1, 1, channels)),
        scale=tf.ones(channels) if gamma is None else gamma,
        offset=tf.zeros(channels) if beta is None else beta,
        mean=tf.zeros(0),
        variance=tf.zeros(0),
        epsilon=epsilon,
        is_training=True,
    )
    # The kernel returns the variance over n - 1, Keras keeps that over n.
    count = tf.cast(tf.size(x) // channels, tf.float32)
    variance = variance * ((count - 1) / count)
    y = tf.ensure_shape(tf.reshape(y, tf.shape(x)), x.shape)
    return y, tf.stop_gradient(mean), tf.stop_gradient(variance)
