"""Inputs for calibration when there is no data.

A network with batch norm remembers what its training data were like: the mean
and the variance of each channel in front of each batch norm. Inputs are made
that agree with it (the distilled data of ZeroQ, arXiv 2001.00281, equation 4).
From smooth noise x, by gradient descent on

    L(x) = sum over batch norms of  mean ((m(x) - m)^2 / v)
                                  + mean (log (v(x) / v))^2

with the moments m(x), v(x) over a batch and the moving statistics m, v. In
these units every layer counts the same. The noise starts with the mean and
the deviation that have the least L, so that inputs of 0 to 255 are found, too.
"""

import keras
import numpy as np
from keras import ops

from keras_saq.layers import roles
from keras_saq.models.eager import eagerly
from keras_saq.models.recording import calls_replaced
from keras_saq.models.recording import told_first
from keras_saq.reconstruction.adam import adam
from keras_saq.reconstruction.compiled import compiled
from keras_saq.reconstruction.compiled import gradients_of

# Deviations that are tried, and means in units of them.
_DEVIATIONS = 2.0 ** np.arange(-4, 9)
_MEANS = (0.0, 0.5, 1.0, 2.0)
# Of the deviation: the first step of each element.
_RATE = 0.1


def data_free(
    model, num_samples=256, steps=300, batch_size=64, seed=0, verbose=1
):
    """Makes inputs from a float model alone, for where there is no data.

    They serve `quantize_model(calibration=...)` and `reconstruct`. Real data,
    if only some dozen samples, are better.

    Args:
        model: a trained float model with batch norms and one input of real
            numbers.
        num_samples: how many inputs to make.
        steps: steps of gradient descent per batch.
        batch_size: inputs that are made together.
        seed: of the noise that it starts from.
        verbose: 0 for silence, 1 for a progress bar.

    Returns:
        A float32 array of shape `(num_samples, *input shape)`.

    Raises:
        ValueError: if the model has no batch norm with statistics, or an
            input that is not one array of real numbers of known size.

    Example:

    >>> import keras, keras_saq
    >>> inputs = keras.Input((8, 8, 3))
    >>> x = keras.layers.Conv2D(4, 3)(inputs)
    >>> norm = keras.layers.BatchNormalization()
    >>> model = keras.Model(inputs, keras.layers.ReLU()(norm(x)))
    >>> _ = norm.moving_variance.assign([1.0, 2.0, 1.0, 0.5])
    >>> x = keras_saq.data_free(model, num_samples=16, steps=5, verbose=0)
    >>> x.shape
    (16, 8, 8, 3)
    """
    norms = batch_norms(model)
    shape = input_shape(model)
    if not norms:
        raise ValueError(
            "`data_free` takes what inputs are like from the statistics of "
            f"batch norms, and the model '{model.name}' has none. Calibrate "
            "with some samples of real data."
        )
    random = np.random.default_rng(seed)
    loss = _loss(model, norms)
    count = min(batch_size, num_samples)
    mean, deviation = _start(loss, _noise(random, count, shape))
    num_batches = -(-num_samples // count)
    bar = keras.utils.Progbar(
        num_batches * steps, verbose=verbose, unit_name="step"
    )
    step = compiled(_step(loss, _RATE * deviation))
    made = []
    for _ in range(num_batches):
        x = mean + deviation * _noise(random, count, shape)
        state = [ops.convert_to_tensor(x, dtype="float32")]
        state += [ops.zeros_like(state[0]) for _ in range(2)]
        for i in range(steps):
            decay = 0.5 + 0.5 * np.cos(np.pi * i / steps)
            state = step(*state, np.float32([i + 1, decay]))
            bar.add(1)
        made.append(np.asarray(ops.convert_to_numpy(state[0])))
    made = np.concatenate(made)[:num_samples]
    if not np.isfinite(made).all():
        raise ValueError(
            f"The statistics of the model '{model.name}' lead to inputs that "
            "are not finite. Calibrate with some samples of real data."
        )
    return made


def statistics_loss(seen, norms):
    """L: how far moments are from the statistics of batch norms.

    Args:
        seen: list of `(mean, variance)`, one for each batch norm.
        norms: the batch norms.
    """
    total = 0.0
    for (mean, variance), norm in zip(seen, norms):
        expected = ops.convert_to_tensor(norm.moving_variance) + norm.epsilon
        distance = ops.square(mean - norm.moving_mean) / expected
        ratio = ops.log((variance + norm.epsilon) / expected)
        total += ops.mean(distance) + ops.mean(ops.square(ratio))
    return total


def seen(model, norms, x):
    """What a model makes of inputs, and what its batch norms read.

    Args:
        model: a Keras model.
        norms: batch norms of it.
        x: a tensor.

    Returns:
        `(outputs, moments, met)`: `(mean, variance)` of each batch norm that
        was met, and the list of these.
    """
    found = {}

    def see(layer, values):
        axis = layer.axis % len(values.shape)
        axes = [i for i in range(len(values.shape)) if i != axis]
        found.setdefault(id(layer), ops.moments(values, axes))

    calls = [(norm, told_first(see, norm, norm.call)) for norm in norms]
    with calls_replaced(calls):
        outputs = model(x, training=False)
    met = [layer for layer in norms if id(layer) in found]
    return outputs, [found[id(layer)] for layer in met], met


def batch_norms(model):
    """The batch norms of a model that have statistics."""
    return [
        layer
        for layer in model._flatten_layers()
        if roles.is_batch_norm(layer)
        and isinstance(layer, keras.layers.BatchNormalization)
    ]


def _loss(model, norms):
    def loss(x):
        with keras.StatelessScope(collect_losses=True):
            _, moments, met = seen(model, norms, x)
        return statistics_loss(moments, met)

    return loss


def _start(loss, noise):
    """The mean and deviation of noise that agree best with the statistics."""
    best, found = np.inf, (0.0, 1.0)
    noise = noise[:16]
    with eagerly():
        for deviation in _DEVIATIONS:
            for mean in _MEANS:
                x = (deviation * (mean + noise)).astype("float32")
                value = float(loss(ops.convert_to_tensor(x)))
                if value < best:
                    best, found = value, (deviation * mean, deviation)
    return found


def _noise(random, count, shape):
    """Noise of deviation 1; of images, with coarse structures in it."""
    noise = random.normal(size=(count, *shape))
    if len(shape) == 3 and min(shape[:2]) >= 8:
        coarse = [-(-size // 4) for size in shape[:2]]
        rough = random.normal(size=(count, *coarse, shape[2]))
        rough = rough.repeat(4, 1).repeat(4, 2)[:, : shape[0], : shape[1]]
        noise = 0.5 * noise + np.sqrt(0.75) * rough
    return noise.astype("float32")


def _step(loss, rate):
    """One step of Adam on the inputs."""

    def step(x, mean, square, numbers):
        (gradient,) = gradients_of(lambda points: loss(points[0]), [x])
        count, decay = numbers[0], numbers[1]
        return adam(x, mean, square, gradient, count, float(rate) * decay)

    return step


def input_shape(model):
    """The shape of a sample of the one input of a model, or raises."""
    inputs = getattr(model, "inputs", None) or []
    shape = tuple(inputs[0].shape[1:]) if len(inputs) == 1 else (None,)
    if None in shape or "float" not in inputs[0].dtype:
        raise ValueError(
            "`data_free` makes one array of real numbers of a known size per "
            "model. Received: inputs "
            f"{[(t.shape, t.dtype) for t in inputs]}"
        )
    return shape
