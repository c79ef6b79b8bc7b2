"""The interface of every quantizer: a small Keras layer with a grid."""

import keras
import numpy as np
from keras import ops

from keras_saq.quantizers.calibration import is_calibrating
from keras_saq.quantizers.granularity import Granularity
from keras_saq.quantizers.initial_scale import check_finite
from keras_saq.quantizers.pass_through import is_passing_through
from keras_saq.quantizers.silence import find_silent
from keras_saq.quantizers.silence import stand_in

MIN_BITS = 2
MAX_BITS = 8

# How the variable `state` remembers, in files of weights too, whether the
# scale was initialised and which sign was found in the data.
_UNCALIBRATED, _UNSIGNED, _SIGNED = 0, 1, 2


def check_bits(num_bits, what="num_bits"):
    """Returns `num_bits` as an int, or raises if it is not in 2..8.

    Args:
        num_bits: an integer.
        what: its name, for the error.

    Raises:
        ValueError: if it is no integer or out of the range.

    Example:

    >>> from keras_saq.quantizers import check_bits
    >>> check_bits(4.0)
    4
    """
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


class Quantizer(keras.layers.Layer):
    """What all quantizers have in common.

    A quantizer maps a float tensor to `scale * codes`, where the codes are
    integers in [`qmin`, `qmax`], and computes in float32 under every dtype
    policy. Until it is `calibrated` its scale means nothing: call
    `initialize(x)`, or call the quantizer inside a `calibration_scope`.

    A subclass defines `build_parameters(shape)`,
    `initialize_parameters(rows)`, the property `scale`, and
    `fake_quantize(x, training)`. The last one receives the tensor after
    `granularity.split`, against which `granularity.spread(scale)` broadcasts.

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
        listens: whether some of what it was calibrated with was all zero, see
            `keras_saq.quantizers.silence`. Calibration sets it.

    Attributes:
        num_silent: how many of its scales found nothing but zeros when they
            were taken from data.
        for_weights: whether it is made for weights.
        for_activations: whether it is made for activations.
        export_obstacle: `None` where an integer kernel can compute with
            `scale` and `codes`, otherwise a sentence that says why not.

    Raises:
        ValueError: if an argument is out of its range, or, when it takes its
            scale from data, if these are empty or not finite.

    Example, a quantizer with a scale that is never changed:

    >>> import keras
    >>> import numpy as np
    >>> from keras_saq.quantizers import Quantizer
    >>> from keras_saq.quantizers.fake_quant import fake_quantize
    >>> @keras.saving.register_keras_serializable("doc")
    ... class Tenths(Quantizer):
    ...     scale = 0.1
    ...
    ...     def fake_quantize(self, x, training=False):
    ...         return fake_quantize(x, self.scale, self.qmin, self.qmax)
    >>> quantizer = Tenths(num_bits=4)
    >>> quantizer.initialize(np.ones(1))
    >>> quantizer.codes(np.float32([-0.31, 0.24, 5.0])).tolist()
    [-3, 2, 7]
    """

    for_weights = True
    for_activations = True
    # What to use instead, for the error about the wrong use.
    role_hint = None
    export_obstacle = None
    num_silent = 0

    def __init__(
        self,
        num_bits=8,
        signed=True,
        narrow_range=False,
        channel_axes=(),
        group_size=None,
        listens=False,
        **kwargs,
    ):
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        # The mask of a tensor is that of its rounded values.
        self.supports_masking = True
        self.granularity = Granularity(channel_axes, group_size)
        self._num_bits = check_bits(num_bits)
        self.signed = signed if signed is None else bool(signed)
        self.narrow_range = bool(narrow_range)
        self.listens = bool(listens)

    @property
    def num_bits(self):
        """Width of the codes."""
        return self._num_bits

    @property
    def channel_axes(self):
        """Axes with a scale per index: negative and ascending."""
        return self.granularity.channel_axes

    @property
    def group_size(self):
        """How many inputs of a kernel share a scale; `None` for all."""
        return self.granularity.group_size

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

    @property
    def code_bits(self):
        """Width of the integer that holds a code: `num_bits` or one more."""
        return self.num_bits

    @property
    def clips_below_zero(self):
        """Whether `quantizer(relu(x))` is `quantizer(x)`, gradients too."""
        return False

    @property
    def scale(self):
        """The positive scale: a scalar, or one value per channel or block.

        It has the shape of the `channel_axes`, in ascending order, or with a
        `group_size` the shape (inputs / group_size, outputs). `scale_for`
        gives it in a shape that broadcasts against the tensor.
        """
        raise NotImplementedError

    def scale_for(self, shape):
        """The scale, to be multiplied with codes of the given shape."""
        return self.granularity.spread_over(self.scale, shape)

    def offset_for(self, shape):
        """What is added to `scale * codes`: zero, unless it is learned."""
        return 0.0

    def build(self, input_shape):
        self.state = self.add_weight(
            name="state",
            shape=(),
            initializer="zeros",
            trainable=False,
            autocast=False,
        )
        self.build_parameters(self.granularity.scale_shape(input_shape))
        if self.listens:
            self.build_listening()

    def build_parameters(self, shape):
        """Adds the variables; `shape` is that of the scale."""

    def build_listening(self):
        """Adds the variables of scales that follow what was silent."""

    @property
    def calibrated(self):
        """Whether the scale has been taken from data."""
        return (
            self.built
            and int(ops.convert_to_numpy(self.state)) != _UNCALIBRATED
        )

    def initialize(self, x, typical=None, behind=None):
        """Takes the scale, and the sign where it is open, from an array.

        Args:
            x: array.
            typical: how large numbers would usually be here, in case that all
                are zero; a number or a function without arguments.
            behind: function that reads what the quantizer makes, by whose
                error a class that can chooses the scale; `None` if any.
        """
        x = ops.convert_to_numpy(x)
        if not x.size:
            raise ValueError(
                "A quantizer takes its scale from at least one value. "
                f"Received: an array of shape {x.shape}"
            )
        check_finite(x)
        if x.dtype == np.float64:
            # Values that only float64 has count as the largest of float32.
            largest = np.finfo("float32").max
            x = np.clip(x, -largest, largest)
        x = x.astype("float32", copy=False)
        if not self.built:
            self.build(x.shape)
        typical = typical() if callable(typical) else typical
        rows = self.granularity.rows(x)
        if self.signed is None:
            # Of silence the sign is open, and codes must serve both.
            is_silent = find_silent(rows, True, typical).all()
            self.signed = bool(is_silent or x.min() < 0)
        silent = find_silent(rows, self.signed, typical)
        self.num_silent = int(silent.sum())
        if self.num_silent:
            rows = stand_in(rows, silent, self.signed, typical)
        self.initialize_parameters(rows)
        self.start_listening(silent)
        if behind is not None and not self.num_silent:
            self.initialize_behind(x, behind)
        self.mark_calibrated()

    def initialize_parameters(self, rows):
        """Sets the variables from data.

        Args:
            rows: float32 array, one row of elements per scale.
        """

    def initialize_behind(self, x, function):
        """Improves the initial scale, where the class can; see `behind`.

        Args:
            x: float32 array.
            function: of a tensor.
        """

    def start_listening(self, silent):
        """Remembers, where the class can, which scales were silent.

        Args:
            silent: boolean array, one value per row of
                `initialize_parameters`.
        """

    def hear(self, x):
        """Lets silent scales follow the data, in training; see `silence`.

        Args:
            x: tensor after `granularity.split`.
        """

    def mark_calibrated(self):
        """Remembers that there is a scale, and whether codes are signed."""
        self.state.assign(_UNSIGNED if self.signed is False else _SIGNED)

    def load_own_variables(self, store):
        super().load_own_variables(store)
        state = int(ops.convert_to_numpy(self.state))
        if self.signed is None and state != _UNCALIBRATED:
            self.signed = state == _SIGNED

    def call(self, x, training=None):
        if is_passing_through():
            return x
        # What is frozen learns nothing, and its noise is off.
        training = training and self.trainable
        if is_calibrating() and not self.calibrated:
            self.initialize(x)
        y = self.granularity.split(x)
        if training and self.listens and self.trainable:
            self.hear(ops.stop_gradient(y))
        y = self.fake_quantize(y, training)
        return self.granularity.join(y, x.shape)

    def fake_quantize(self, x, training=False):
        """Fake-quantizes a float32 tensor, after `granularity.split`."""
        raise NotImplementedError

    def codes(self, x):
        """The integer codes of an array, as NumPy int32.

        They are those of the forward pass outside of training:
        `scale_for(x.shape) * codes(x) + offset_for(x.shape)` is
        `quantizer(x)`.
        """
        x = ops.convert_to_tensor(ops.convert_to_numpy(x), dtype="float32")
        y = self.granularity.split(x)
        y = self.granularity.join(self.fake_quantize(y, False), x.shape)
        y = ops.convert_to_numpy(y) - ops.convert_to_numpy(
            self.offset_for(x.shape)
        )
        scale = ops.convert_to_numpy(self.scale_for(x.shape))
        return np.rint(y / scale).astype("int32")

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = super().get_config()
        config.pop("dtype", None)
        if self.listens:
            config["listens"] = True
        return {
            **config,
            "num_bits": self._num_bits,
            "signed": self.signed,
            "narrow_range": self.narrow_range,
            "channel_axes": list(self.channel_axes),
            "group_size": self.group_size,
        }
