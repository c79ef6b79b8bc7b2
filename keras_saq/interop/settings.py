"""A learned-scale quantizer as plain data, without any framework."""

import dataclasses

import numpy as np

from keras_saq import quantizers
from keras_saq.quantizers.granularity import Granularity
from keras_saq.quantizers.initial_scale import initial_scale
from keras_saq.quantizers.silence import find_silent
from keras_saq.quantizers.silence import stand_in

# The state of a quantizer: whether it has a scale, and for which sign.
UNCALIBRATED, UNSIGNED, SIGNED = 0, 1, 2
# Until there is data the range is that of TFMOT's own quantizers.
_FIRST_RANGE = 6.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """What there is to know of a `keras_saq.quantizers.LSQ`.

    Attributes:
        num_bits: width of the codes.
        signed: whether codes can be negative; `None`: the data decide.
        narrow_range: whether the most negative code is left out.
        channel_axes: axes with a scale per index, counted from the last one.
        initial_scale: the rule that takes the scale from data.
        scale: the scale, nested lists, where the quantizer has one already.
    """

    num_bits: int
    signed: bool | None
    narrow_range: bool
    channel_axes: tuple[int, ...]
    initial_scale: str
    scale: float | list | None = None

    def __post_init__(self):
        object.__setattr__(self, "channel_axes", tuple(self.channel_axes))

    @classmethod
    def of(cls, quantizer, where):
        """The settings of a quantizer.

        Args:
            quantizer: a `keras_saq.quantizers.LSQ`.
            where: what it quantizes, for the message.
        """
        is_lsq = type(quantizer) is quantizers.LSQ
        if not is_lsq or quantizer.group_size is not None:
            raise ValueError(
                f"The quantizer of {where} has no equivalent in TFMOT here. "
                "Expected a `keras_saq.quantizers.LSQ` without `group_size`. "
                f"Received: {quantizer!r} of type {type(quantizer).__name__}"
            )
        scale = None
        if quantizer.calibrated:
            scale = np.asarray(quantizer.scale).tolist()
        return cls(
            num_bits=quantizer.num_bits,
            signed=quantizer.signed,
            narrow_range=quantizer.narrow_range,
            channel_axes=quantizer.channel_axes,
            initial_scale=quantizer.initial_scale,
            scale=scale,
        )

    def code_range(self, signed):
        """Smallest and largest code."""
        if not signed:
            return 0, 2**self.num_bits - 1
        half = 2 ** (self.num_bits - 1)
        return -half + int(self.narrow_range), half - 1

    def scale_shape(self, shape):
        """Shape of the scales of a tensor."""
        return Granularity(self.channel_axes).scale_shape(shape)

    def broadcast_shape(self, shape):
        """The shape in which scales broadcast against a tensor."""
        rank = max((-axis for axis in self.channel_axes), default=0)
        return [
            shape[axis] if axis in self.channel_axes else 1
            for axis in range(-rank, 0)
        ]

    def first(self, shape):
        """Log of the scale, and the state, before there is data."""
        if self.scale is not None:
            state = UNSIGNED if self.signed is False else SIGNED
            return np.log(np.float32(self.scale)), np.float32(state)
        _, qmax = self.code_range(self.signed is not False)
        log_scale = np.log(np.float32(_FIRST_RANGE / qmax))
        shape = self.scale_shape(shape)
        return np.full(shape, log_scale), np.float32(UNCALIBRATED)

    def taken_from(self, x):
        """Log of the scale, and the state, from an array."""
        x = np.asarray(x, "float32")
        rows = Granularity(self.channel_axes).rows(x)
        signed = self.signed
        if signed is None:
            signed = bool(find_silent(rows, True).all() or x.min() < 0)
        silent = find_silent(rows, signed)
        if silent.any():
            rows = stand_in(rows, silent, signed)
        scale = initial_scale(
            rows, *self.code_range(signed), self.initial_scale
        )
        log_scale = np.log(scale).reshape(self.scale_shape(x.shape))
        return log_scale, np.float32(SIGNED if signed else UNSIGNED)

    def as_data(self):
        """The settings as a dict that JSON can hold."""
        return dataclasses.asdict(self) | {
            "channel_axes": list(self.channel_axes)
        }
