"""The interface of every quantizer: a small Keras layer with a scale."""

import math

import keras
import numpy as np
from keras import ops

from keras_saq.quantizers.calibration import is_calibrating
from keras_saq.quantizers.fake_quant import fake_quantize
from keras_saq.quantizers.initial_scale import RULES
from keras_saq.quantizers.initial_scale import initial_scale

MIN_BITS = 2
MAX_BITS = 8

# How the variable `state` remembers, in files of weights too, whether the
# scale was initialised and which sign was found in the data.
_UNCALIBRATED, _UNSIGNED, _SIGNED = 0, 1, 2


def check_bits(num_bits, what="num_bits"):
    """Returns `num_bits` as an int, or raises if it is not in 2..8."""
    if isinstance(num_bits, bool) or int(num_bits) != num_bits:
        raise ValueError(
            f"`{what}` must be an integer. Received: {what}={num_bits!r}"
        )
    if not MIN_BITS <= num_bits <= MAX_BITS:
        raise ValueError(
            f"`{what}` must be between {MIN_BITS} and {MAX_BITS}. "
            f"Received: {what}={num_bits}"
        )
    return int(num_bits)


@keras.saving.register_keras_serializable("keras_saq")
class LSQ(keras.layers.Layer):
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
        channel_axes: axes of the input that have a scale of their own, the
            last ones, e.g. `(-1,)`; `()` for one scale per tensor.
        initial_scale: `"mse"` (least squared error), `"lsq"` (the paper's
            rule) or `"minmax"`.

    Example:

    >>> import numpy as np
    >>> from keras_saq.quantizers import LSQ
    >>> quantizer = LSQ(num_bits=4, initial_scale="minmax")
    >>> x = np.float32([-1.0, -0.4, 0.1, 1.0])
    >>> quantizer.initialize(x)
    >>> [round(float(v), 4) for v in quantizer(x)]
    [-1.0, -0.4286, 0.1429, 1.0]
    """

    def __init__(
        self,
        num_bits=8,
        signed=True,
        narrow_range=False,
        channel_axes=(),
        initial_scale="mse",
        **kwargs,
    ):
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.num_bits = check_bits(num_bits)
        if initial_scale not in RULES:
            raise ValueError(
                f"`initial_scale` must be one of {sorted(RULES)}. "
                f"Received: initial_scale={initial_scale!r}"
            )
        channel_axes = tuple(int(axis) for axis in channel_axes)
        if channel_axes != tuple(range(-len(channel_axes), 0)):
            raise ValueError(
                "`channel_axes` must name the last axes in order, such as "
                f"(-1,) or (-2, -1). Received: channel_axes={channel_axes}"
            )
        self.signed = signed if signed is None else bool(signed)
        self.narrow_range = bool(narrow_range)
        self.channel_axes = channel_axes
        self.initial_scale = initial_scale

    @property
    def qmin(self):
        """Smallest code."""
        if self.signed is False:
            return 0
        return -(2 ** (self.num_bits - 1)) + int(self.narrow_range)

    @property
    def qmax(self):
        """Largest code."""
        if self.signed is False:
            return 2**self.num_bits - 1
        return 2 ** (self.num_bits - 1) - 1

    def build(self, input_shape):
        shape = tuple(input_shape[axis] for axis in self.channel_axes)
        self.log_scale = self.add_weight(
            name="log_scale", shape=shape, initializer="zeros", autocast=False
        )
        self.state = self.add_weight(
            name="state",
            shape=(),
            initializer="zeros",
            trainable=False,
            autocast=False,
        )

    @property
    def scale(self):
        """The positive scale: a scalar, or one value per channel."""
        return ops.exp(self.log_scale.value)

    @property
    def calibrated(self):
        """Whether the scale has been taken from data."""
        return (
            self.built
            and int(ops.convert_to_numpy(self.state)) != _UNCALIBRATED
        )

    def initialize(self, x):
        """Takes the scale, and the sign where it is open, from an array."""
        x = ops.convert_to_numpy(x).astype("float32")
        if not self.built:
            self.build(x.shape)
        if self.signed is None:
            self.signed = bool(x.min() < 0)
        groups = x.reshape(-1, max(math.prod(self.log_scale.shape), 1)).T
        scale = initial_scale(groups, self.qmin, self.qmax, self.initial_scale)
        self.set_scale(scale.reshape(self.log_scale.shape))

    def set_scale(self, scale):
        """Sets the scale and marks the quantizer as calibrated."""
        self.log_scale.assign(np.log(np.asarray(scale, dtype="float32")))
        self.state.assign(_UNSIGNED if self.signed is False else _SIGNED)

    def load_own_variables(self, store):
        super().load_own_variables(store)
        state = int(ops.convert_to_numpy(self.state))
        if self.signed is None and state != _UNCALIBRATED:
            self.signed = state == _SIGNED

    def call(self, x):
        if is_calibrating() and not self.calibrated:
            self.initialize(x)
        return fake_quantize(x, self.log_scale.value, self.qmin, self.qmax)

    def codes(self, x):
        """The integer codes of an array, as NumPy int32."""
        scale = ops.convert_to_numpy(self.scale)
        x = ops.convert_to_numpy(x).astype("float32")
        codes = np.rint(np.clip(x / scale, self.qmin, self.qmax))
        return codes.astype("int32")

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = super().get_config()
        config.pop("dtype", None)
        return {
            **config,
            "num_bits": self.num_bits,
            "signed": self.signed,
            "narrow_range": self.narrow_range,
            "channel_axes": list(self.channel_axes),
            "initial_scale": self.initial_scale,
        }
