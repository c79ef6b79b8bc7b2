"""Noise tempering: the rounding error comes and goes at random at first."""

import keras
from keras import ops

from keras_saq.quantizers.fake_quant import fake_quantize
from keras_saq.quantizers.learned_scale import LearnedScale


@keras.saving.register_keras_serializable("keras_saq")
class NoiseTempering(LearnedScale):
    """LSQ with noise the size of the rounding error, which decays.

    Source: QNT, Error-aware Quantization through Noise Tempering (Wang et
    al., WACV 2023, arXiv 2212.05603). A reconstruction: of the paper we have
    the abstract, which names exponentially decaying noise that is aware of
    the quantization error, and a learnable scale of the task gradient. This
    is what we make of it. With Q as in LSQ, the step t of training, the decay
    T, noise xi ~ U(-1, 1) per element, and a learned strength a in (0, 2),

        lambda = exp(-t / T)
        r      = clip(x) - Q(x)
        y      = Q(x) + a * lambda * xi * r

        dL/dx  = g * (1 + a * lambda * sign(g) * r / s)

    where g is LSQ's gradient for x. The gradient for the scale is LSQ's, that
    for a follows from the second line, and neither goes through r. The noise
    has mean zero, so y is Q(x) on average and exactly so in the end. Outside
    of training there is no noise.

    Args:
        decay_steps: T, in steps of training.
        seed: of the noise.
        **kwargs: see `LSQ`.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_saq.quantizers import NoiseTempering
    >>> quantizer = NoiseTempering(4, decay_steps=100, seed=0)
    >>> quantizer.build(())
    >>> quantizer.set_scale(1.0)
    >>> x = np.full(1000, 0.4, "float32")
    >>> y = keras.ops.convert_to_numpy(quantizer(x, training=True))
    >>> bool(abs(y).max() <= 0.4), bool(abs(y).max() > 0.3)
    (True, True)
    >>> float(keras.ops.convert_to_numpy(quantizer(x)).max())
    0.0
    """

    def __init__(self, num_bits=8, decay_steps=1000, seed=None, **kwargs):
        super().__init__(num_bits, **kwargs)
        if not decay_steps > 0:
            raise ValueError(
                "`decay_steps` must be positive. "
                f"Received: decay_steps={decay_steps}"
            )
        self.decay_steps = decay_steps
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build_parameters(self, shape):
        super().build_parameters(shape)
        self.strength_logit = self.add_weight(
            name="strength_logit",
            shape=shape,
            initializer="zeros",
            autocast=False,
        )
        self.step = self.add_weight(
            name="step",
            shape=(),
            initializer="zeros",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )

    @property
    def strength(self):
        """The factor a of the noise, between 0 and 2, 1 at first."""
        return 2.0 * ops.sigmoid(self.strength_logit.value)

    @property
    def temperature(self):
        """lambda, which the noise decays with: 1 at first."""
        return ops.exp(-self.step.value / self.decay_steps)

    def fake_quantize(self, x, training=False):
        scale = self.granularity.spread(self.scale)
        if not training:
            return fake_quantize(x, scale, self.qmin, self.qmax)
        temperature = self.temperature
        self.step.assign(self.step.value + 1)
        limits = self.qmin * scale, self.qmax * scale
        quantized = fake_quantize(x, scale, self.qmin, self.qmax)
        error = ops.stop_gradient(ops.clip(x, *limits) - quantized)
        strength = temperature * self.granularity.spread(self.strength)
        bend = ops.stop_gradient(strength * error / scale)
        noise = keras.random.uniform(
            ops.shape(x), -1.0, 1.0, seed=self.seed_generator
        )
        bent = fake_quantize(_bend(x, bend), scale, self.qmin, self.qmax)
        return bent + strength * noise * error

    def get_config(self):
        return {
            **super().get_config(),
            "decay_steps": self.decay_steps,
            "seed": self.seed,
        }


@ops.custom_gradient
def _bend(x, factor):
    """`x`; its gradient g becomes g * (1 + factor * sign(g))."""

    def gradient(*args, upstream=None):
        dy = args[0] if upstream is None else upstream
        return dy + factor * ops.abs(dy), ops.zeros_like(factor)

    return x + 0.0, gradient
