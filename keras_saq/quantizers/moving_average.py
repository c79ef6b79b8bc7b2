"""Ranges that follow the data instead of being trained."""

import keras
import numpy as np
from keras import ops

from keras_saq.quantizers.base import Quantizer
from keras_saq.quantizers.fake_quant import nearest_on_grid
from keras_saq.quantizers.fake_quant import where_inside
from keras_saq.quantizers.fake_quant import with_gradient_of

_UPDATES = ("moving_average", "last_value", "all_values")
# Where the range starts without calibration, as in TFMOT.
_START = 6.0
_SMALLEST_SCALE = 1e-12


@keras.saving.register_keras_serializable("keras_saq")
class MovingAverage(Quantizer):
    """Range from the minima and maxima of batches, as TFMOT has it.

    Source: Jacob et al., CVPR 2018 (arXiv 1712.05877), section 3.1, as in the
    `MovingAverageQuantizer` of the TensorFlow Model Optimization Toolkit. In
    training, with the momentum m,

        low  <- m * low  + (1 - m) * min(batch, 0)
        high <- m * high + (1 - m) * max(batch, 0)

    and the range is moved so that zero is on its grid:

        s = (high - low) / (2^b - 1)
        z = round(-low / s)
        y = s * round(clip(x / s, -z, 2^b - 1 - z))

    The gradient is 1 inside the range and 0 outside of it. Outside of
    training the range stays as it is.

    Args:
        num_bits: width of the codes, 2 to 8.
        signed: `False` where the input has no negative values: low is zero.
            `None`: decided by the calibration data.
        narrow_range: one value fewer; signed only.
        symmetric: whether the range is symmetric about zero, so that the
            codes are those of `LSQ`. Default: where `narrow_range` is, as in
            TFMOT, whose weights are both and whose activations are neither.
        momentum: weight of the old range in the moving average.
        update: what becomes of the range in training: `"moving_average"`,
            `"last_value"` (that of the batch, TFMOT's choice for weights) or
            `"all_values"` (the widest seen).
        **kwargs: see `LSQ`.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_saq.quantizers import MovingAverage
    >>> quantizer = MovingAverage(4, momentum=0.75)
    >>> quantizer.initialize(np.float32([-1.0, 2.0]))
    >>> quantizer.qmin, quantizer.qmax, quantizer.zero_point
    (-5, 10, 5)
    >>> _ = quantizer(np.float32([-1.0, 6.0]), training=True)
    >>> float(keras.ops.convert_to_numpy(quantizer.maximum))
    3.0
    """

    role_hint = (
        "Weights need a range that is symmetric about zero: pass "
        "`symmetric=True`."
    )

    def __init__(
        self,
        num_bits=8,
        signed=True,
        narrow_range=False,
        symmetric=None,
        momentum=0.999,
        update="moving_average",
        **kwargs,
    ):
        super().__init__(num_bits, signed, narrow_range, **kwargs)
        if update not in _UPDATES:
            raise ValueError(
                f"`update` must be one of {list(_UPDATES)}. "
                f"Received: update={update!r}"
            )
        if not 0 <= momentum < 1:
            raise ValueError(
                "`momentum` must be at least 0 and less than 1. "
                f"Received: momentum={momentum}"
            )
        self.symmetric = self.narrow_range if symmetric is None else symmetric
        self.momentum = float(momentum)
        self.update = update
        if not self.symmetric and self.channel_axes and signed is not False:
            raise ValueError(
                "With scales per channel the range must be symmetric, since "
                "an integer kernel has one zero point. Received: "
                f"channel_axes={self.channel_axes}, symmetric=False. "
                "Pass `symmetric=True`."
            )

    @property
    def for_weights(self):
        return bool(self.symmetric)

    @property
    def _moves(self):
        """Whether the zero point depends on the range."""
        return self.signed is not False and not self.symmetric

    @property
    def _num_steps(self):
        return 2**self.num_bits - 1 - int(self.narrow_range)

    @property
    def zero_point(self):
        """The code of zero when the smallest code counts as 0."""
        return -self.qmin

    @property
    def qmin(self):
        if self._moves and self.built:
            _, qmin, _ = self._grid()
            return int(ops.convert_to_numpy(qmin))
        return super().qmin

    @property
    def qmax(self):
        return self.qmin + self._num_steps if self._moves else super().qmax

    def build_parameters(self, shape):
        def add(name, value):
            return self.add_weight(
                name=name,
                shape=shape,
                initializer=keras.initializers.Constant(value),
                trainable=False,
                autocast=False,
                aggregation="mean",
            )

        low = 0.0 if self.signed is False else -_START
        self.minimum = add("minimum", low)
        self.maximum = add("maximum", _START)

    def initialize_parameters(self, rows):
        low, high = rows.min(axis=1), rows.max(axis=1)
        shape = self.minimum.shape
        self.minimum.assign(np.minimum(low, 0.0).reshape(shape))
        self.maximum.assign(np.maximum(high, 0.0).reshape(shape))

    @property
    def scale(self):
        return self._grid()[0]

    def _grid(self):
        """The scale and the code range, as tensors."""
        low, high = self.minimum.value, self.maximum.value
        if not self._moves:
            qmin, qmax = super().qmin, super().qmax
            scale = high / qmax
            if qmin:
                scale = ops.maximum(scale, low / qmin)
            return ops.maximum(scale, _SMALLEST_SCALE), qmin, qmax
        # Each divided before they are added, which could overflow.
        scale = high / self._num_steps - low / self._num_steps
        scale = ops.maximum(scale, _SMALLEST_SCALE)
        qmin = ops.clip(ops.round(low / scale), -self._num_steps, 0)
        return scale, qmin, qmin + self._num_steps

    def fake_quantize(self, x, training=False):
        if training:
            self._follow(ops.stop_gradient(x))
        scale, qmin, qmax = self._grid()
        scale = self.granularity.spread(scale)
        return with_gradient_of(
            nearest_on_grid(x, scale, qmin, qmax),
            where_inside(x, qmin * scale, qmax * scale),
        )

    def _follow(self, x):
        low = ops.minimum(self.granularity.reduce(ops.min, x), 0.0)
        high = ops.maximum(self.granularity.reduce(ops.max, x), 0.0)
        if self.signed is False:
            low = ops.zeros_like(low)
        if self.update == "moving_average":
            m = self.momentum
            low = m * self.minimum.value + (1 - m) * low
            high = m * self.maximum.value + (1 - m) * high
        elif self.update == "all_values":
            low = ops.minimum(self.minimum.value, low)
            high = ops.maximum(self.maximum.value, high)
        self.minimum.assign(low)
        self.maximum.assign(high)

    def get_config(self):
        return {
            **super().get_config(),
            "symmetric": self.symmetric,
            "momentum": self.momentum,
            "update": self.update,
        }
