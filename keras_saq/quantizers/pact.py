"""PACT: activations with a learned clipping level."""

import keras
from keras import ops

from keras_saq.quantizers.fake_quant import clip_with_gradient
from keras_saq.quantizers.fake_quant import nearest_on_grid
from keras_saq.quantizers.fake_quant import with_gradient_of
from keras_saq.quantizers.learned_scale import LearnedScale


@keras.saving.register_keras_serializable("keras_saq")
class PACT(LearnedScale):
    """Parameterized clipping of activations.

    Source: PACT (Choi et al., 2018, arXiv 1805.06085), equations 1 to 3. With
    the clipping level alpha and s = alpha / (2^b - 1),

        y         = s * round(clip(x, 0, alpha) / s)
        dy/dx     = 1 where 0 < x < alpha, else 0
        dy/dalpha = 1 where x >= alpha, else 0

    so rounding adds nothing to the gradient of the level; that is what sets
    it apart from LSQ. Signed inputs, which the paper does not have, are
    clipped at `qmin * s` too, whose gradient follows likewise. What is trained
    is log(s), so alpha stays positive.

    Args:
        l2_regularization: the paper's penalty: this times the sum of alpha^2
            is a loss of the quantizer.
        **kwargs: see `LSQ`.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_saq.quantizers import PACT
    >>> quantizer = PACT(2, signed=False)
    >>> quantizer.build(())
    >>> quantizer.set_scale(2.0)
    >>> float(keras.ops.convert_to_numpy(quantizer.alpha))
    6.0
    >>> x = np.float32([-1.0, 2.9, 3.1, 9.0])
    >>> y = keras.ops.convert_to_numpy(quantizer(x))
    >>> [float(v) for v in y]
    [0.0, 2.0, 4.0, 6.0]
    """

    for_weights = False

    def __init__(
        self, num_bits=8, signed=False, l2_regularization=0.0, **kwargs
    ):
        super().__init__(num_bits, signed, **kwargs)
        self.l2_regularization = float(l2_regularization)

    def build_parameters(self, shape):
        super().build_parameters(shape)
        if self.l2_regularization:
            self.log_scale.regularizer = self._penalty

    def _penalty(self, log_scale):
        alpha = self.qmax * ops.exp(log_scale)
        return self.l2_regularization * ops.sum(ops.square(alpha))

    @property
    def alpha(self):
        """The clipping level, the largest value on the grid."""
        return self.qmax * self.scale

    def fake_quantize(self, x, training=False):
        scale = self.granularity.spread(self.scale)
        low, high = self.qmin * scale, self.qmax * scale
        return with_gradient_of(
            nearest_on_grid(x, scale, self.qmin, self.qmax),
            clip_with_gradient(x, low, high),
        )

    def get_config(self):
        return {
            **super().get_config(),
            "l2_regularization": self.l2_regularization,
        }
