"""LSQ: uniform quantization with a learned scale."""

import keras

from keras_saq.quantizers.fake_quant import fake_quantize
from keras_saq.quantizers.initial_scale import oriented_scale
from keras_saq.quantizers.learned_scale import LearnedScale


@keras.saving.register_keras_serializable("keras_saq")
class LSQ(LearnedScale):
    """Learned-scale uniform quantizer (LSQ, arXiv 1902.08153).

    Maps `x` to `scale * codes` with `codes = round(clip(x / scale))`; the
    scale is trained. Gradients: see `keras_saq.quantizers.fake_quant`.
    Computes in float32 under every dtype policy.

    Args:
        num_bits: width of the codes, 2 to 8.
        signed: whether codes can be negative. `None`: decided by the data
            that the quantizer is calibrated with.
        narrow_range: leaves out the most negative code, so that the range is
            symmetric: [-(2^(b-1) - 1), 2^(b-1) - 1]. Signed only.
        channel_axes: axes of the input that have a scale per index, counted
            from the last axis, e.g. `(-1,)`; `()` for one scale per tensor.
        group_size: for kernels of shape (inputs, outputs) with
            `channel_axes=(-1,)`: how many inputs share a scale. `None`: all.
        initial_scale: `"mse"` (least squared error), `"lsq"` (the paper's
            rule), `"minmax"`, `"percentile"`, `"dobi"` or `"three_sigma"`.
        oriented: for weights with few bits: whether each channel has all 2^b
            codes, and whether they are -2^(b-1)..2^(b-1)-1 or their mirror
            image is chosen by the squared error, once, when the scale is
            taken from data. Codes then take one bit more. `narrow_range` has
            no effect.

    Raises:
        ValueError: if an argument is out of its range, or, when it takes its
            scale from data, if these are empty or not finite.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_saq.quantizers import LSQ
    >>> quantizer = LSQ(num_bits=4, initial_scale="minmax")
    >>> x = np.float32([-1.0, -0.4, 0.1, 1.0])
    >>> quantizer.initialize(x)
    >>> y = keras.ops.convert_to_numpy(quantizer(x))
    >>> [round(float(v), 4) for v in y]
    [-1.0, -0.4286, 0.1429, 1.0]
    """

    def __init__(
        self,
        num_bits=8,
        signed=True,
        narrow_range=False,
        channel_axes=(),
        group_size=None,
        initial_scale="mse",
        oriented=False,
        **kwargs,
    ):
        super().__init__(
            num_bits,
            True if oriented else signed,
            False if oriented else narrow_range,
            channel_axes,
            group_size,
            initial_scale,
            **kwargs,
        )
        self.oriented = bool(oriented)

    @property
    def clips_below_zero(self):
        return self.signed is False

    @property
    def code_bits(self):
        return self.num_bits + int(self.oriented)

    def build_parameters(self, shape):
        super().build_parameters(shape)
        if self.oriented:
            self.orientation = self.add_weight(
                name="orientation",
                shape=shape,
                initializer="ones",
                trainable=False,
                autocast=False,
                aggregation="mean",
            )

    def initialize_parameters(self, rows):
        if not self.oriented:
            super().initialize_parameters(rows)
            return
        limits = self.qmin, self.qmax
        scale, sign = oriented_scale(rows, *limits, self.initial_scale)
        shape = self.log_scale.shape
        self.orientation.assign(sign.reshape(shape))
        self.set_scale(scale.reshape(shape))

    def fake_quantize(self, x, training=False):
        scale = self.granularity.spread(self.scale)
        if not self.oriented:
            return fake_quantize(x, scale, self.qmin, self.qmax)
        sign = self.granularity.spread(self.orientation.value)
        return sign * fake_quantize(sign * x, scale, self.qmin, self.qmax)

    def get_config(self):
        config = super().get_config()
        return config | ({"oriented": True} if self.oriented else {})
