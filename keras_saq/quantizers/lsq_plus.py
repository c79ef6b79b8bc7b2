"""LSQ+: uniform quantization with a learned scale and offset."""

import keras
import numpy as np
from keras import ops

from keras_saq.quantizers.fake_quant import fake_quantize
from keras_saq.quantizers.initial_scale import bounds
from keras_saq.quantizers.learned_scale import LearnedScale


@keras.saving.register_keras_serializable("keras_saq")
class LSQPlus(LearnedScale):
    """Learned scale and offset, for activations with a negative tail.

    Source: LSQ+ (Bhalgat et al., CVPR Workshops 2020, arXiv 2004.09576). With
    scale s and offset beta, both trained,

        y = s * round(clip((x - beta) / s, qmin, qmax)) + beta

    The gradients for `x` and `s` are LSQ's at x - beta, and
    dy/dbeta = 0 inside the range and 1 outside of it.

    The paper quantizes weights without offset. That is `LSQ` with
    `initial_scale="three_sigma"`.

    Args:
        num_bits: width of the codes, 2 to 8.
        signed: whether the codes are signed. With an offset this only names
            them otherwise. `None`: decided by the calibration data.
        initial_scale: how calibration chooses the range: `"mse"` or `"dobi"`
            (shrinks both ends, least squared error), `"minmax"` or
            `"percentile"`.
        **kwargs: see `LSQ`.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_saq.quantizers import LSQPlus
    >>> quantizer = LSQPlus(2, signed=False, initial_scale="minmax")
    >>> x = np.float32([-0.25, 0.2, 2.75])
    >>> quantizer.initialize(x)
    >>> y = keras.ops.convert_to_numpy(quantizer(x))
    >>> [float(v) for v in y]
    [-0.25, -0.25, 2.75]
    >>> quantizer.codes(x).tolist()
    [0, 0, 3]
    """

    for_weights = False
    role_hint = (
        "For weights LSQ+ learns no offset: use "
        '`LSQ(..., initial_scale="three_sigma")`, which is its scheme.'
    )
    export_obstacle = (
        "LSQ+ learns an offset that is no whole number of steps, and integer "
        "kernels need real zero on the grid. LSQ has no offset."
    )
    initial_scales = ("dobi", "minmax", "mse", "percentile")

    def build_parameters(self, shape):
        super().build_parameters(shape)
        self.offset = self.add_weight(
            name="offset", shape=shape, initializer="zeros", autocast=False
        )

    def initialize_parameters(self, rows):
        num_codes = self.qmax - self.qmin + 1
        low, high = bounds(rows, num_codes, self.initial_scale)
        # A constant is its own offset, whatever the scale.
        scale = np.where(high > low, (high - low) / (num_codes - 1), 1e-3)
        scale = np.clip(scale, 1e-12, 1e30)
        shape = self.log_scale.shape
        self.set_scale(scale.reshape(shape))
        self.offset.assign((low - self.qmin * scale).reshape(shape))

    def initialize_behind(self, x, function):
        pass  # its own search has both ends

    def start_listening(self, silent):
        super().start_listening(silent)
        if silent.any():
            # Zero stays zero, until there is something to have an offset.
            silent = silent.reshape(self.offset.shape)
            offset = ops.convert_to_numpy(self.offset)
            self.offset.assign(np.where(silent, 0.0, offset))

    def offset_for(self, shape):
        return self.granularity.spread_over(self.offset.value, shape)

    def fake_quantize(self, x, training=False):
        scale = self.granularity.spread(self.scale)
        offset = self.granularity.spread(self.offset.value)
        return fake_quantize(x - offset, scale, self.qmin, self.qmax) + offset
