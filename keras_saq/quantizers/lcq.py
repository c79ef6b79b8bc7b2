"""LCQ: a non-uniform grid from a learned compressor."""

import keras
import numpy as np
from keras import ops

from keras_saq.quantizers.fake_quant import ON_BOUND
from keras_saq.quantizers.granularity import Granularity
from keras_saq.quantizers.learned_scale import LearnedScale
from keras_saq.quantizers.standardize import standardize

# The inverse divides by slopes.
_SMALLEST_SLOPE = 1e-6


@keras.saving.register_keras_serializable("keras_saq")
class LCQ(LearnedScale):
    """Learnable companding quantizer: uniform in a learned coordinate.

    Source: LCQ (Yamamoto, CVPR 2021, arXiv 2103.07156). With the clipping
    level alpha, q uniform on [0, 1] with n steps, and a compressor g, which
    is increasing, piecewise linear on K equal intervals, from g(0) = 0 to
    g(1) = 1, with slopes K * softmax(theta),

        y = sign(x) * alpha * g^-1(q(g(min(|x| / alpha, 1))))

    alpha and theta are trained; q passes gradients straight through, all else
    is the chain rule, and outside of [-alpha, alpha] dy/dalpha is sign(x).
    Signed codes have n = 2^(b-1) - 1, unsigned ones n = 2^b - 1.

    A reconstruction in part: the abstract and the components are the paper's,
    the number of intervals is recalled. The paper's limited weight
    normalization standardizes the weights inside of the quantizer;
    `standardize=True` does so, and leaves the result in units of the
    deviation, as `LIQ` does.

    Args:
        num_intervals: K.
        standardize: whether weights are standardized first.
        **kwargs: see `LSQ`. `initial_scale` is applied while g is still the
            identity, where LCQ is a uniform quantizer. `theta` is shared by
            all scales.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_saq.quantizers import LCQ
    >>> quantizer = LCQ(3, num_intervals=2, initial_scale="minmax")
    >>> x = np.float32([-1.0, 0.1, 0.3, 0.8])
    >>> quantizer.initialize(x)
    >>> _ = quantizer.theta.assign(np.log([2.0, 1.0]))
    >>> [round(float(v), 4) for v in quantizer.codebook()]
    [0.0, 0.25, 0.5, 1.0]
    >>> y = keras.ops.convert_to_numpy(quantizer(x))
    >>> [round(float(v), 4) for v in y]
    [-1.0, 0.0, 0.25, 1.0]
    >>> quantizer.codes(x).tolist()
    [-3, 0, 1, 3]
    """

    export_obstacle = (
        "LCQ's values are no multiples of one step: they need a codebook, "
        "which integer kernels do not have. LSQ is its uniform counterpart."
    )

    def __init__(
        self, num_bits=8, num_intervals=16, standardize=False, **kwargs
    ):
        super().__init__(num_bits, **kwargs)
        if int(num_intervals) != num_intervals or num_intervals < 1:
            raise ValueError(
                "`num_intervals` must be a positive integer. "
                f"Received: num_intervals={num_intervals!r}"
            )
        self.num_intervals = int(num_intervals)
        self.standardize = bool(standardize)

    @property
    def qmin(self):
        return 0 if self.signed is False else -self.qmax

    def build_parameters(self, shape):
        super().build_parameters(shape)
        self.theta = self.add_weight(
            name="theta",
            shape=(self.num_intervals,),
            initializer="zeros",
            autocast=False,
        )

    def initialize_parameters(self, rows):
        if self.standardize:
            rows = standardize(ops.convert_to_tensor(rows), Granularity((-2,)))
            rows = ops.convert_to_numpy(rows)
        super().initialize_parameters(rows)

    @property
    def alpha(self):
        """The clipping level, the largest value on the grid."""
        return self.qmax * self.scale

    def codebook(self):
        """Values of the codes 0 to `qmax`, as parts of alpha, ascending."""
        return ops.convert_to_numpy(self._expanded(*self._compressor())[0])

    def codes(self, x):
        """Codes as NumPy int32: sign(code) * codebook[|code|] * alpha."""
        x = ops.convert_to_tensor(ops.convert_to_numpy(x), dtype="float32")
        split = self._standardized(self.granularity.split(x))
        compressed = self._compress(split, *self._compressor())
        codes = _sign(split) * ops.round(compressed * self.qmax)
        if self.signed is False:
            codes = ops.maximum(codes, 0.0)
        codes = self.granularity.join(codes, x.shape)
        return ops.convert_to_numpy(codes).astype("int32")

    def _standardized(self, x):
        return standardize(x, self.granularity) if self.standardize else x

    def _compressor(self):
        """Slopes of g, and g at the lower ends of its intervals."""
        slopes = self.num_intervals * ops.softmax(self.theta.value)
        slopes = ops.maximum(slopes, _SMALLEST_SLOPE)
        return slopes, (ops.cumsum(slopes) - slopes) / self.num_intervals

    def _compress(self, x, slopes, starts):
        """g(min(|x| / alpha, 1))."""
        alpha = self.granularity.spread(self.alpha)
        magnitude = x * _sign(x)
        inside = magnitude < alpha * ON_BOUND
        part = ops.where(inside, magnitude / alpha, 1.0)
        interval = ops.floor(ops.stop_gradient(part) * self.num_intervals)
        interval = ops.minimum(interval, self.num_intervals - 1.0)
        index = ops.cast(interval, "int32")
        within = part - interval / self.num_intervals
        return ops.take(starts, index) + ops.take(slopes, index) * within

    def _expanded(self, slopes, starts):
        """g^-1 at every code, and its slope there."""
        levels = np.arange(self.qmax + 1, dtype="float32") / self.qmax
        levels = ops.convert_to_tensor(levels)
        reached = ops.expand_dims(levels, 1) >= starts
        index = ops.sum(ops.cast(reached, "int32"), axis=1) - 1
        index = ops.clip(index, 0, self.num_intervals - 1)
        inverse = 1.0 / ops.take(slopes, index)
        beyond = (levels - ops.take(starts, index)) * inverse
        beyond = ops.minimum(beyond, 1.0 / self.num_intervals)
        lower = ops.cast(index, "float32") / self.num_intervals
        return lower + beyond, inverse

    def fake_quantize(self, x, training=False):
        x = self._standardized(x)
        slopes, starts = self._compressor()
        compressed = self._compress(x, slopes, starts)
        code = ops.round(ops.stop_gradient(compressed) * self.qmax)
        code = ops.clip(ops.cast(code, "int32"), 0, self.qmax)
        values, inverse = self._expanded(slopes, starts)
        # The first term has the value, the second the gradient through g.
        level = ops.take(values, code)
        through = ops.take(ops.stop_gradient(inverse), code) * compressed
        level = level + (through - ops.stop_gradient(through))
        y = _sign(x) * self.granularity.spread(self.alpha) * level
        return ops.where(x >= 0, y, 0.0) if self.signed is False else y

    def get_config(self):
        return {
            **super().get_config(),
            "num_intervals": self.num_intervals,
            "standardize": self.standardize,
        }


def _sign(x):
    """-1 or 1: at zero too there is a gradient."""
    return ops.where(x < 0, -1.0, 1.0)
