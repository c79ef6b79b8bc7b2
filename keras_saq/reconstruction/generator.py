"""A small network that makes inputs out of noise."""

import keras
import numpy as np
from keras import layers
from keras import ops

LATENT = 64


def make_generator(shape, mean, deviation):
    """From noise of shape `(64,)` to inputs of a shape.

    Images come from three convolutions with two upsamplings, vectors and
    everything else from two dense layers; a batch norm at the end gives every
    channel the mean and the deviation that are asked for.

    Args:
        shape: of a sample.
        mean: array that broadcasts to it, as `deviation`.
        deviation: array.
    """
    noise = keras.Input((LATENT,))
    if len(shape) == 3 and min(shape[:2]) >= 4:
        x = _image(noise, shape)
    else:
        x = _hidden(layers.Dense(128)(noise))
        x = layers.Reshape(shape)(layers.Dense(int(np.prod(shape)))(x))
    x = layers.BatchNormalization(center=False, scale=False)(x)
    x = layers.Rescaling(1.0)(x)
    model = keras.Model(noise, x, name="generator")
    return _Placed(model, mean, deviation)


class _Placed:
    """A generator whose numbers have a mean and a deviation."""

    def __init__(self, model, mean, deviation):
        self.model = model
        self.mean = np.asarray(mean, "float32")
        self.deviation = np.asarray(deviation, "float32")

    def __call__(self, noise):
        """Inputs, with the statistics of the batch."""
        x = self.model(noise, training=True)
        return self.mean + self.deviation * ops.cast(x, "float32")


def _hidden(x):
    return layers.LeakyReLU(0.2)(layers.BatchNormalization()(x))


def _image(noise, shape):
    height, width, channels = shape
    small = -(-height // 4), -(-width // 4)
    x = layers.Dense(small[0] * small[1] * 64)(noise)
    x = _hidden(layers.Reshape((*small, 64))(x))
    for filters in (64, 32):
        x = layers.UpSampling2D()(x)
        x = _hidden(layers.Conv2D(filters, 3, padding="same")(x))
    x = layers.Conv2D(channels, 3, padding="same")(x)
    return x[:, :height, :width]
