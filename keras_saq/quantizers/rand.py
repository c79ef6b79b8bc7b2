"""RAND: scales that are a function of the outliers."""

import keras
import numpy as np
from keras import ops

from keras_saq.quantizers.base import Quantizer
from keras_saq.quantizers.fake_quant import fake_quantize

_SMALLEST_SCALE = 1e-12


@keras.saving.register_keras_serializable("keras_saq")
class RAND(Quantizer):
    """Scale from a norm of the weights, through which gradients flow.

    Source: RAND, robustness aware norm decay (Qiu et al., 2023, arXiv
    2305.15536). A reconstruction: of the paper we have the abstract, which
    says that accuracy suffers where too little regularization reaches the
    outliers, and makes the scale a function of them. This is what we make of
    it, with the p-norm, which for large p is the largest magnitude while
    several outliers have a part in it:

        s = (sum |x|^p)^(1/p) / qmax
        y = s * round(clip(x / s, qmin, qmax))

    The gradients for x and s are LSQ's, and s passes its own on to the
    weights, most of it to the outliers. `norm_decay` adds the decay of the
    norm itself to the loss.

    The scale follows the weights in training. Outside of it the scale is that
    of the last training step or calibration, so that it can be stored.

    Args:
        order: p.
        norm_decay: this times the sum of the norms is a loss of the
            quantizer.
        **kwargs: see `LSQ`.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_saq.quantizers import RAND
    >>> quantizer = RAND(3, narrow_range=True)
    >>> x = np.float32([-3.0, 0.4, 1.6])
    >>> quantizer.initialize(x)
    >>> round(float(keras.ops.convert_to_numpy(quantizer.scale)), 4)
    1.0
    >>> y = keras.ops.convert_to_numpy(quantizer(x))
    >>> [round(float(v), 4) for v in y]
    [-3.0, 0.0, 2.0]
    """

    for_activations = False
    role_hint = 'RAND regularizes weights. For activations use "lsq".'

    def __init__(self, num_bits=8, order=32, norm_decay=0.0, **kwargs):
        super().__init__(num_bits, **kwargs)
        if not 1 < order < float("inf"):
            raise ValueError(
                "`order` must be finite and greater than 1. "
                f"Received: order={order}"
            )
        self.order = float(order)
        self.norm_decay = float(norm_decay)

    def build_parameters(self, shape):
        self.last_scale = self.add_weight(
            name="last_scale",
            shape=shape,
            initializer="ones",
            trainable=False,
            autocast=False,
            aggregation="mean",
        )

    @property
    def scale(self):
        return ops.convert_to_tensor(self.last_scale.value)

    def initialize_parameters(self, rows):
        rows = np.abs(rows.astype("float64"))
        largest = np.maximum(rows.max(axis=1), np.finfo("float32").tiny)
        parts = (rows / largest[:, None]) ** self.order
        scale = largest * parts.sum(axis=1) ** (1 / self.order) / self.qmax
        scale = np.clip(scale, _SMALLEST_SCALE, 1e30)
        self.last_scale.assign(scale.reshape(self.last_scale.shape))

    def fake_quantize(self, x, training=False):
        scale = self.scale
        if training:
            norm = self._norm(x)
            scale = ops.maximum(norm / self.qmax, _SMALLEST_SCALE)
            self.last_scale.assign(ops.stop_gradient(scale))
            if self.norm_decay:
                self.add_loss(self.norm_decay * ops.sum(norm))
        scale = self.granularity.spread(scale)
        return fake_quantize(x, scale, self.qmin, self.qmax)

    def _norm(self, x):
        magnitude = ops.abs(x)
        largest = self.granularity.reduce(ops.max, magnitude)
        largest = ops.stop_gradient(largest)
        # Zeros have the norm 0, and no direction in which it grows.
        largest = ops.where(largest > 0, largest, 1.0)
        parts = (magnitude / self.granularity.spread(largest)) ** self.order
        total = self.granularity.reduce(ops.sum, parts)
        root = ops.where(total > 0, total, 1.0) ** (1 / self.order)
        return ops.where(total > 0, largest * root, 0.0)

    def get_config(self):
        return {
            **super().get_config(),
            "order": self.order,
            "norm_decay": self.norm_decay,
        }
