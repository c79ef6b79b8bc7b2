"""NIPQ: noise instead of rounding in training, with learned bits."""

import keras
import numpy as np
from keras import ops

from keras_saq.quantizers.base import MAX_BITS
from keras_saq.quantizers.base import MIN_BITS
from keras_saq.quantizers.base import Quantizer
from keras_saq.quantizers.base import check_bits
from keras_saq.quantizers.fake_quant import clip_with_gradient
from keras_saq.quantizers.fake_quant import nearest_on_grid
from keras_saq.quantizers.fake_quant import two_to_the
from keras_saq.quantizers.fake_quant import with_gradient_of
from keras_saq.quantizers.initial_scale import check_rule
from keras_saq.quantizers.initial_scale import initial_scale as scale_from

_NUM_BINS = 256
# How close to the ends of the range of bits the learned number may start.
_MARGIN = 0.02


@keras.saving.register_keras_serializable("keras_saq")
class NIPQ(Quantizer):
    """Noise proxy instead of rounding, with learned range and width.

    Source: NIPQ (Shin et al., CVPR 2023, arXiv 2206.00820) with its released
    code. With two trained variables, u ~ U(-1/2, 1/2) drawn in training only,
    and B the largest width,

        b     = round(2 + (B - 2) * sigmoid(theta) + u)    (straight-through)
        alpha = softplus(rho)
        delta = alpha / (2^(b-1) - 1), unsigned: alpha / (2^b - 1)

    In training nothing is rounded. Where |x| >= alpha, y is the bound, and
    elsewhere

        y = x + delta * n

    with n drawn for each element from the histogram, of 256 bins, of the
    rounding errors (Q(x) - x) / delta of the tensor; its gradients are those
    of this formula with n constant. Outside of training y = Q(x), the nearest
    value on the grid, so that it can be exported.

    The authors let b reach 14 bits, and add a loss on the number of bit
    operations; without one the widths only grow. `bits` is the differentiable
    width to compute one from, and `bits_regularization` the simplest such.

    Args:
        num_bits: width to begin with, 2 to 8. Afterwards this attribute is
            the learned width, rounded.
        max_bits: B, at most 8 here.
        bits_regularization: this times the width is a loss of the quantizer.
        initial_scale: how calibration chooses alpha; see `LSQ`.
        seed: of the noise.
        **kwargs: see `LSQ`. The width is shared by all scales.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_saq.quantizers import NIPQ
    >>> quantizer = NIPQ(3, initial_scale="minmax", seed=0)
    >>> x = np.float32([-3.0, 0.4, 1.6, 3.0])
    >>> quantizer.initialize(x)
    >>> y = keras.ops.convert_to_numpy(quantizer(x))
    >>> [round(float(v), 4) for v in y]
    [-3.0, 0.0, 2.0, 3.0]
    >>> y = keras.ops.convert_to_numpy(quantizer(x, training=True))
    >>> bool((abs(y - x) <= 0.5).all()), bool((y == np.round(y)).all())
    (True, False)
    """

    def __init__(
        self,
        num_bits=8,
        max_bits=MAX_BITS,
        bits_regularization=0.0,
        initial_scale="mse",
        seed=None,
        **kwargs,
    ):
        super().__init__(num_bits, **kwargs)
        self.max_bits = check_bits(max_bits, "max_bits")
        if self.max_bits <= MIN_BITS or num_bits > max_bits:
            raise ValueError(
                f"`max_bits` must be more than {MIN_BITS}, and not less than "
                f"`num_bits`. Received: max_bits={max_bits}, "
                f"num_bits={num_bits}"
            )
        self.bits_regularization = float(bits_regularization)
        self.initial_scale = check_rule(initial_scale)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build_parameters(self, shape):
        learned = self.max_bits - MIN_BITS
        part = (self._num_bits - MIN_BITS) / learned
        part = min(max(part, _MARGIN), 1 - _MARGIN)
        self.theta = self.add_weight(
            name="theta",
            shape=(),
            initializer=keras.initializers.Constant(np.log(part / (1 - part))),
            regularizer=self._penalty if self.bits_regularization else None,
            autocast=False,
        )
        self.rho = self.add_weight(
            name="rho", shape=shape, initializer="ones", autocast=False
        )

    def _penalty(self, theta):
        return self.bits_regularization * self._width(theta)

    def _width(self, theta):
        return MIN_BITS + (self.max_bits - MIN_BITS) * ops.sigmoid(theta)

    @property
    def bits(self):
        """The learned width, a real number, as a tensor."""
        return self._width(self.theta.value)

    @property
    def num_bits(self):
        """The learned width, rounded; before it is built, the first one."""
        if not self.built:
            return self._num_bits
        return int(np.rint(ops.convert_to_numpy(self.bits)))

    @property
    def qmin(self):
        return 0 if self.signed is False else -self.qmax

    @property
    def alpha(self):
        """The clipping level, the largest value on the grid."""
        return ops.softplus(self.rho.value)

    @property
    def scale(self):
        return self.alpha / self._largest_code(self.bits)

    def _largest_code(self, bits):
        """2^b - 1, or 2^(b-1) - 1 with signs, for the rounded b."""
        return two_to_the(bits if self.signed is False else bits - 1) - 1

    def initialize_parameters(self, rows):
        scale = scale_from(rows, self.qmin, self.qmax, self.initial_scale)
        alpha = (scale * self.qmax).astype("float64").reshape(self.rho.shape)
        self.rho.assign(alpha + np.log(-np.expm1(-alpha)))

    def fake_quantize(self, x, training=False):
        alpha = self.granularity.spread(self.alpha)
        low = 0.0 * alpha if self.signed is False else -alpha
        bits = self.bits
        if training:
            dither = keras.random.uniform(
                (), -0.5, 0.5, seed=self.seed_generator
            )
            # Width 2 is 1.5 to 2.5; 1 would have one positive code.
            bits = bits + ops.clip(
                dither,
                MIN_BITS - 0.499 - ops.stop_gradient(bits),
                self.max_bits + 0.499 - ops.stop_gradient(bits),
            )
        qmax = self._largest_code(bits)
        scale = alpha / qmax
        qmin = 0.0 if self.signed is False else -qmax
        clipped = clip_with_gradient(x, low, alpha)
        if not training:
            return with_gradient_of(
                nearest_on_grid(x, scale, qmin, qmax), clipped
            )
        inside = ops.logical_and(x > low, x < alpha)
        if self.signed is False:
            inside = ops.logical_or(inside, x == 0.0)
            clipped = ops.where(x == 0.0, x, clipped)
        noise = self._draw(ops.stop_gradient(x / scale), inside)
        return ops.where(inside, clipped + scale * noise, clipped)

    def _draw(self, v, inside):
        """Noise with the distribution of the rounding errors of `v`."""
        v = ops.where(inside, v, 0.0)
        bins = ops.floor((ops.round(v) - v + 0.5) * _NUM_BINS)
        bins = ops.cast(ops.clip(bins, 0, _NUM_BINS - 1), "int32")
        counts = ops.segment_sum(
            ops.reshape(ops.cast(inside, "float32"), (-1,)),
            ops.reshape(bins, (-1,)),
            num_segments=_NUM_BINS,
        )
        total = ops.cumsum(counts)
        drawn = keras.random.uniform(ops.shape(v), seed=self.seed_generator)
        drawn = ops.reshape(drawn * total[-1], (-1,))
        drawn = ops.searchsorted(total, drawn, side="right")
        drawn = ops.minimum(ops.cast(drawn, "float32"), _NUM_BINS - 1.0)
        noise = (drawn + 0.5) / _NUM_BINS - 0.5
        return ops.stop_gradient(ops.reshape(noise, ops.shape(v)))

    def get_config(self):
        return {
            **super().get_config(),
            "max_bits": self.max_bits,
            "bits_regularization": self.bits_regularization,
            "initial_scale": self.initial_scale,
            "seed": self.seed,
        }
