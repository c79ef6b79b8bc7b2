"""DoReFa: fixed ranges, reached by tanh for weights."""

import keras
from keras import ops

from keras_saq.quantizers.base import MAX_BITS
from keras_saq.quantizers.base import Quantizer
from keras_saq.quantizers.fake_quant import fake_quantize
from keras_saq.quantizers.fake_quant import with_gradient_of

_SMALLEST_MAGNITUDE = 1e-30


@keras.saving.register_keras_serializable("keras_saq")
class DoReFa(Quantizer):
    """Quantizes weights to [-1, 1] and activations to [0, 1].

    Source: DoReFa-Net (Zhou et al., 2016, arXiv 1606.06160), equations 9 and
    11. With n = 2^b - 1, signed codes are those for weights,

        t = tanh(x)
        y = 2 / n * round(n * (t / (2 max|t|) + 1/2)) - 1

    with the gradient of t / max|t|, and unsigned ones those for activations,

        y = round(n * clip(x, 0, 1)) / n

    with the gradient of the clip. Nothing is trained or calibrated. Weights
    come out with magnitude 1, so a normalization layer should follow them; the
    maximum is over the elements that share a scale, in the paper all of them.

    The grid of the weights has no zero: its 2^b values are the odd multiples
    of 1 / n, from -1 to 1. They are exact integers of b + 1 bits.

    Args:
        num_bits: width of the codes, 2 to 8.
        signed: `True` for weights, `False` or `None` for activations.
        **kwargs: see `LSQ`.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_saq.quantizers import DoReFa
    >>> quantizer = DoReFa(2)
    >>> x = np.float32([-2.0, -0.1, 0.3, 1.0])
    >>> y = keras.ops.convert_to_numpy(quantizer(x))
    >>> [round(float(v), 4) for v in y]
    [-1.0, -0.3333, 0.3333, 1.0]
    >>> quantizer.codes(x).tolist()
    [-3, -1, 1, 3]
    """

    role_hint = (
        "DoReFa quantizes weights with `signed=True`, and activations, which "
        "it clips to [0, 1], with `signed=False`. For signed activations use "
        '"lsq".'
    )

    def __init__(self, num_bits=8, signed=True, **kwargs):
        super().__init__(num_bits, bool(signed), **kwargs)

    @property
    def for_weights(self):
        return self.signed

    @property
    def for_activations(self):
        return not self.signed

    @property
    def export_obstacle(self):
        if self.signed and self.num_bits == MAX_BITS:
            return (
                "DoReFa's grid for weights has no zero: with 8 bits its codes "
                "need 9. Use 7 bits or fewer."
            )
        return None

    @property
    def qmin(self):
        return -self.qmax if self.signed else 0

    @property
    def qmax(self):
        return 2**self.num_bits - 1

    @property
    def code_bits(self):
        return self.num_bits + int(self.signed)

    @property
    def calibrated(self):
        """Always, once it is built: there is nothing to calibrate."""
        return self.built

    def build_parameters(self, shape):
        self._scale_shape = shape

    @property
    def scale(self):
        return ops.full(self._scale_shape, 1.0 / self.qmax, dtype="float32")

    def fake_quantize(self, x, training=False):
        spread = self.granularity.spread
        scale = spread(self.scale)
        if not self.signed:
            return fake_quantize(x, scale, self.qmin, self.qmax)
        t = ops.tanh(x)
        # First by a constant, then by what is 1 and has the gradient of the
        # largest: squares of tiny values are zero.
        constant = ops.stop_gradient(self._largest(t))
        t = t / spread(ops.maximum(constant, _SMALLEST_MAGNITUDE))
        largest = self._largest(t)
        t = t / spread(ops.where(largest > 0, largest, 1.0))
        codes = 2 * ops.round(self.qmax * (t + 1) / 2) - self.qmax
        return with_gradient_of(codes * scale, t)

    def _largest(self, x):
        return self.granularity.reduce(ops.max, ops.abs(x))
