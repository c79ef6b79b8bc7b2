"""Uniform quantization with scales that are powers of two."""

import math

import keras
import numpy as np

from keras_saq.quantizers.fake_quant import fake_quantize
from keras_saq.quantizers.fake_quant import two_to_the
from keras_saq.quantizers.initial_scale import rounding_error
from keras_saq.quantizers.learned_scale import LearnedScale


@keras.saving.register_keras_serializable("keras_saq")
class PowerOfTwo(LearnedScale):
    """LSQ with the scale 2^k, for kernels that rescale by shifting.

    Source: the trained logarithmic scale with a straight-through power of two
    of TQT (Jain et al., MLSys 2020, arXiv 1903.08066). There the exponent is
    rounded up; here to the nearest in training, and of weights at first by
    the error of the result (`initial_scale="mse"`). With the trained log(s),

        k = round(log2(s))
        y = 2^k * round(clip(x / 2^k, qmin, qmax))

    The gradients are LSQ's at the scale 2^k, and pass through the rounding of
    the exponent.

    Args:
        **kwargs: see `LSQ`.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_saq.quantizers import PowerOfTwo
    >>> quantizer = PowerOfTwo(4, initial_scale="minmax")
    >>> x = np.float32([-1.0, -0.4, 0.1, 1.0])
    >>> quantizer.initialize(x)
    >>> float(keras.ops.convert_to_numpy(quantizer.scale))
    0.125
    >>> y = keras.ops.convert_to_numpy(quantizer(x))
    >>> [float(v) for v in y]
    [-1.0, -0.375, 0.125, 0.875]
    """

    def initialize_parameters(self, rows):
        """Of weights the power of two with less error, below or above."""
        super().initialize_parameters(rows)
        if self.initial_scale != "mse" or not self.narrow_range:
            return  # steps of activations that are twice as large cost more
        log_scale = keras.ops.convert_to_numpy(self.log_scale)
        exponent = np.floor(log_scale.reshape(-1) / math.log(2.0))
        low = np.exp2(exponent).astype("float32")
        errors = [
            rounding_error(rows, scale, self.qmin, self.qmax)
            for scale in (low, 2 * low)
        ]
        scale = np.where(errors[0] <= errors[1], low, 2 * low)
        self.set_scale(scale.reshape(log_scale.shape))

    @property
    def scale(self):
        return two_to_the(self.total_log_scale / math.log(2.0))

    def fake_quantize(self, x, training=False):
        scale = self.granularity.spread(self.scale)
        return fake_quantize(x, scale, self.qmin, self.qmax)
