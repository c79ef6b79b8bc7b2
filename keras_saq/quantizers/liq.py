"""LIQ: the weight quantizer of the SAQ authors."""

import keras
import numpy as np
from keras import ops

from keras_saq.quantizers.base import MAX_BITS
from keras_saq.quantizers.fake_quant import fake_quantize
from keras_saq.quantizers.granularity import Granularity
from keras_saq.quantizers.initial_scale import initial_scale
from keras_saq.quantizers.learned_scale import LearnedScale
from keras_saq.quantizers.standardize import standardize


@keras.saving.register_keras_serializable("keras_saq")
class LIQ(LearnedScale):
    """Standardized weights on a grid without zero.

    Source: the quantizer of SAQ (Liu et al., arXiv 2111.12273) in its
    released code. With n = 2^b - 1, mean m and deviation d of the weights,
    which count as constants, and the trained clipping level c,

        v = (x - m) / d
        u = clip(v / c, -1, 1)
        q = round((u + 1) / 2 * n) / n
        y = (2 * q - 1) * c

        dy/dx = 1 / d where |v| <= c, else 0
        dy/dc = (2 * q - 1) - u inside, -1 below, 1 above

    The result stays in units of the deviation: a normalization layer should
    follow. In the authors' networks that is so for every convolution; for the
    dense layer at the end they leave the weights as they are, which is
    `standardize=False`. What is trained here is log(c), so c stays positive.

    The 2^b values are the odd multiples of c / n, from -c to c. They are
    exact integers of b + 1 bits, so `codes` are odd, from -n to n, and
    `scale` is c / n.

    Args:
        num_bits: width of the codes, 2 to 8.
        standardize: whether the weights are standardized, over the elements
            that share a scale: in the authors' code all of them.
        initial_scale: see `LSQ`, and `"authors"`: c = 1 where weights are
            standardized, else 0.8 * max|x|.
        **kwargs: see `LSQ`. The grid is always symmetric, whatever `signed`
            and `narrow_range` are.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_saq.quantizers import LIQ
    >>> quantizer = LIQ(2, standardize=False, initial_scale="minmax")
    >>> x = np.float32([-3.0, -0.1, 0.5, 2.5])
    >>> quantizer.initialize(x)
    >>> y = keras.ops.convert_to_numpy(quantizer(x))
    >>> [round(float(v), 4) for v in y]
    [-3.0, -1.0, 1.0, 3.0]
    >>> quantizer.codes(x).tolist()
    [-3, -1, 1, 3]
    """

    for_activations = False
    role_hint = (
        'For activations the authors\' quantizer is LSQ on [0, c]: use "lsq".'
    )
    initial_scales = ("authors", *LearnedScale.initial_scales)

    def __init__(self, num_bits=8, standardize=True, **kwargs):
        kwargs["signed"] = True
        super().__init__(num_bits, **kwargs)
        self.standardize = bool(standardize)

    @property
    def export_obstacle(self):
        if self.num_bits == MAX_BITS:
            return (
                "LIQ's grid has no zero: with 8 bits its codes need 9. Use 7 "
                "bits or fewer."
            )
        return None

    @property
    def qmin(self):
        return -self.qmax

    @property
    def qmax(self):
        return 2**self.num_bits - 1

    @property
    def code_bits(self):
        return self.num_bits + 1

    @property
    def clip(self):
        """The clipping level c."""
        return self.qmax * self.scale

    def initialize_parameters(self, rows):
        if self.standardize:
            rows = standardize(ops.convert_to_tensor(rows), Granularity((-2,)))
            rows = ops.convert_to_numpy(rows)
        if self.initial_scale == "authors":
            level = 0.8 * np.abs(rows).max(axis=1)
            level = np.ones_like(level) if self.standardize else level
            scale = np.where(level > 0, level, 1.0) / self.qmax
        else:
            limits = self.qmin, self.qmax
            scale = initial_scale(rows, *limits, self.initial_scale, step=2)
        self.set_scale(scale.reshape(self.log_scale.shape))

    def fake_quantize(self, x, training=False):
        if self.standardize:
            x = standardize(x, self.granularity)
        scale = self.granularity.spread(self.scale)
        return fake_quantize(x, scale, self.qmin, self.qmax, step=2)

    def get_config(self):
        return {**super().get_config(), "standardize": self.standardize}
