"""What quantizers with a trained scale have in common."""

import numpy as np
from keras import ops

from keras_saq.quantizers.base import Quantizer
from keras_saq.quantizers.initial_scale import RULES
from keras_saq.quantizers.initial_scale import check_rule
from keras_saq.quantizers.initial_scale import initial_scale as scale_from


class LearnedScale(Quantizer):
    """A quantizer that trains the logarithm of its scale.

    The scale stays positive whatever the optimizer does, and a step of the
    optimizer changes it by a factor; see `keras_saq.quantizers.fake_quant`.

    Args:
        initial_scale: how calibration chooses the scale: `"mse"` (least
            squared error), `"lsq"` (that paper's rule), `"minmax"` (nothing
            is clipped), `"percentile"` (99.9 % are not clipped), `"dobi"`
            (2DQuant's shrinking bounds) or `"three_sigma"` (LSQ+'s rule).
        **kwargs: see `Quantizer`.
    """

    # The rules of `initial_scale` that make sense for the class.
    initial_scales = tuple(sorted(RULES))

    def __init__(
        self,
        num_bits=8,
        signed=True,
        narrow_range=False,
        channel_axes=(),
        group_size=None,
        initial_scale="mse",
        **kwargs,
    ):
        super().__init__(
            num_bits, signed, narrow_range, channel_axes, group_size, **kwargs
        )
        self.initial_scale = check_rule(initial_scale, self.initial_scales)

    def build_parameters(self, shape):
        self.log_scale = self.add_weight(
            name="log_scale", shape=shape, initializer="zeros", autocast=False
        )

    @property
    def scale(self):
        return ops.exp(self.log_scale.value)

    def initialize_parameters(self, rows):
        scale = scale_from(rows, self.qmin, self.qmax, self.initial_scale)
        self.set_scale(scale.reshape(self.log_scale.shape))

    def set_scale(self, scale):
        """Sets the scale and marks the quantizer as calibrated."""
        self.log_scale.assign(np.log(np.asarray(scale, dtype="float32")))
        self.mark_calibrated()

    def get_config(self):
        return {**super().get_config(), "initial_scale": self.initial_scale}
