"""The quantizer of a supernet: all candidate bits at once."""

import numpy as np
from keras import ops

from keras_saq.quantizers import Quantizer
from keras_saq.quantizers.initial_scale import initial_scale
from keras_saq.quantizers.initial_scale import oriented_scale
from keras_saq.quantizers.mix import mix
from keras_saq.quantizers.mix import mix_weights


class Mixture(Quantizer):
    """Computes `sum_b p_b Q_b(x)`, each Q_b with a learned scale of its own.

    See `keras_saq.quantizers.mix`. With the probability of one candidate at
    1 it is that candidate's `LSQ`. It lives as long as a search, and is not
    saved with a model.

    Args:
        choice: the `Choice` with the candidates and their probabilities.
        signed: see `Quantizer`.
        narrow_range: see `Quantizer`.
        channel_axes: see `Quantizer`.
        oriented: numbers of bits whose candidates have all codes, with a sign
            per channel; see `LSQ`.
        already: a `Quantizer` that the tensor has passed already, or `None`.
            A candidate of as many bits then leaves the tensor as it is, as
            the quantized model does.
    """

    def __init__(
        self,
        choice,
        signed=True,
        narrow_range=False,
        channel_axes=(),
        oriented=(),
        already=None,
        **kwargs,
    ):
        super().__init__(
            max(choice.bits), signed, narrow_range, channel_axes, **kwargs
        )
        self.choice = choice
        self.oriented = frozenset(oriented)
        # Not a part of this one.
        self.__dict__["_already"] = already

    @property
    def ranges(self):
        """`(qmin, qmax)` of each candidate; `None` where it does nothing."""
        return tuple(self._range(bits) for bits in self.choice.bits)

    def _range(self, bits):
        if self._already is not None and bits >= self._already.num_bits:
            return None
        if self.signed is False:
            return 0, 2**bits - 1
        half = 2 ** (bits - 1)
        is_narrow = self.narrow_range and bits not in self.oriented
        return -half + int(is_narrow), half - 1

    def build_parameters(self, shape):
        self.log_scale = self.add_weight(
            name="log_scale",
            shape=(len(self.choice.bits), *shape),
            initializer="zeros",
            autocast=False,
        )

        if self.oriented:
            self.orientation = self.add_weight(
                name="orientation",
                shape=(len(self.choice.bits), *shape),
                initializer="ones",
                trainable=False,
                autocast=False,
            )

    def initialize_parameters(self, rows):
        shape = self.log_scale.shape[1:]
        scales, signs = [], []
        for bits, limits in zip(self.choice.bits, self.ranges):
            scale, sign = np.ones(shape), np.ones(shape)
            if bits in self.oriented:
                scale, sign = oriented_scale(rows, *limits)
            elif limits is not None:
                scale = initial_scale(rows, *limits)
            scales.append(scale.reshape(shape))
            signs.append(sign.reshape(shape))
        self.log_scale.assign(np.log(np.stack(scales)).astype("float32"))
        if self.oriented:
            self.orientation.assign(np.stack(signs))

    @property
    def scales(self):
        """Tensor of shape `(candidates, *shape of a scale)`."""
        scales = ops.exp(self.log_scale.value)
        if None not in self.ranges:
            return scales
        own = ops.unstack(scales)
        return ops.stack(
            [
                self._already.scale if limits is None else scale
                for limits, scale in zip(self.ranges, own)
            ]
        )

    @property
    def scale(self):
        """The expected scale; of a certain candidate, that candidate's."""
        return ops.tensordot(self.choice.probabilities(), self.scales, 1)

    def fake_quantize(self, x, training=False):
        probabilities = self.choice.probabilities()
        scales = ops.exp(self.log_scale.value)
        if not self.channel_axes:
            return mix(x, scales, probabilities, self.ranges)
        scales = [self.granularity.spread(s) for s in ops.unstack(scales)]
        signs = [None] * len(scales)
        for i, bits in enumerate(self.choice.bits):
            if bits in self.oriented:
                sign = self.orientation.value[i]
                signs[i] = self.granularity.spread(sign)
        return mix_weights(x, scales, probabilities, self.ranges, signs)
