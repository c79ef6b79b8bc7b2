"""What quantization moves on average, moved back; without labels or training.

Rounded weights and activations change the mean and the spread of what each
channel of a layer makes. On the same samples both are compared with those of
the float network, layer after layer, so that each layer is corrected for what
all those before it, corrected already, hand on. With the moments m_f, v_f of a
channel in float, m_q, v_q in the quantized network, and a batch norm behind
it with moving statistics m, v and epsilon e, these become

    k^2 = (v_q + d) / (v_f + d)
    m'  = m_q - (m_f - m) k
    v'  = (v + e) k^2 - e

so that the output of the batch norm has the mean and the deviation that it
has in float, whatever data m and v were taken from. (Plain re-estimation,
m' = m_q and v' = v_q, forgets that: on a network that was trained with other
crops it costs points even in float.) d = (v + e) / 100 keeps channels quiet
that these samples hardly excite. A layer with a bias and no batch norm behind
it gets the bias b' = b + m_f - m_q ("bias correction", Nagel et al., arXiv
1906.04721, section 4.2, from data).

This is a part of calibration: it moves what describes data, as scales do, of
layers that are not trainable, too. Nothing of it is specific to a backend.
"""

import contextlib

import keras
import numpy as np
from keras import ops
from keras import tree

from keras_saq.layers import Quantized
from keras_saq.layers import roles
from keras_saq.layers.batch_normalization import is_untrained
from keras_saq.layers.hidden import float_class
from keras_saq.layers.roles import has_integer_bias
from keras_saq.models.recording import calls_replaced
from keras_saq.models.recording import told_first

# The spread of a channel is corrected by a factor of at most this.
_LARGEST_FACTOR = 4.0
# Of the batch norm's own variance: what counts as no spread.
_QUIET = 0.01
# As many elements of the inputs are used, and samples.
_MOST_ELEMENTS = 1 << 22
_FEWEST_SAMPLES = 16


def corrected_statistics(mean, variance, epsilon, in_float, quantized):
    """Moving statistics that undo what quantization does to the moments.

    Args:
        mean: moving mean of a batch norm, array of shape (channels,).
        variance: its moving variance.
        epsilon: what the batch norm adds to the variance.
        in_float: `(mean, variance)` of its input in the float network.
        quantized: the same in the quantized network, for the same samples.

    Returns:
        The new `(mean, variance)`.

    Example, a layer that quantization made twice as large:

    >>> import numpy as np
    >>> from keras_saq.models.correct import corrected_statistics
    >>> mean, variance = corrected_statistics(
    ...     np.float32([1.0]), np.float32([4.0]), 0.0, ([1.0], [400.0]),
    ...     ([2.0], [1600.0])
    ... )
    >>> mean.round(2).tolist(), variance.round(1).tolist()
    ([2.0], [16.0])
    """
    quiet = _QUIET * (variance + epsilon)
    factor = np.sqrt((quantized[1] + quiet) / (in_float[1] + quiet))
    factor = np.clip(factor, 1 / _LARGEST_FACTOR, _LARGEST_FACTOR)
    new_mean = quantized[0] - (in_float[0] - mean) * factor
    new_variance = (variance + epsilon) * np.square(factor) - epsilon
    return new_mean, np.maximum(new_variance, 0.0)


class Correction:
    """Corrects a quantized model while it is run for the second time.

    Args:
        graph: the `Graph` of a quantized model.
        inputs: what it will be called with.

    Attributes:
        inputs: the samples with which the moments are taken in float.
    """

    def __init__(self, graph, inputs):
        self._layers = list(graph.model._flatten_layers())
        self._norms = [
            layer
            for layer in self._layers
            if roles.is_batch_norm(layer)
            and not getattr(layer, "renorm", False)
            and _has_statistics(layer)
        ]
        self._biased = _biased_layers(graph, self._layers)
        if any(map(is_untrained, self._norms)):
            # It will be trained; until then its statistics are nobody's.
            self._norms, self._biased = [], []
        self._used = self._total = _num_used(inputs)
        self.inputs = tree.map_structure(lambda a: a[: self._used], inputs)
        self._in_float = {}
        self._before = {
            id(v): np.copy(ops.convert_to_numpy(v)) for v in self._variables()
        }

    @property
    def is_empty(self):
        """Whether there is nothing that could be corrected."""
        return not (self._norms or self._biased)

    def moved(self):
        """List of `(variable, value before)` of what can be corrected."""
        return [(v, self._before[id(v)]) for v in self._variables()]

    def _variables(self):
        for layer in self._norms:
            yield from (layer.moving_mean, layer.moving_variance)
        for layer in self._biased:
            yield layer.bias

    @contextlib.contextmanager
    def learning(self):
        """Inside, the model is called once, in float, with `inputs`."""
        self._in_float = {}

        def see_norm(layer, x):
            axis = _channel_axis(layer, x)
            self._note(layer, x.shape, _moments(x, axis))

        def see_output(layer, x):
            self._note(layer, x.shape, (_mean_to(x, layer), None))
            return x

        with self._hooked(see_norm, see_output):
            yield

    def _note(self, layer, shape, moments):
        self._in_float.setdefault(id(layer), []).append((shape, moments))

    @contextlib.contextmanager
    def applying(self, inputs):
        """Inside, the quantized model is called once, with `inputs`.

        Args:
            inputs: what the attribute `inputs` is the beginning of, or it.
        """
        self._total = _num_samples(inputs)
        with self._hooked(self._correct_norm, self._correct_bias):
            yield

    def _expected(self, layer, x):
        """What the layer saw in float, and the same samples of it now."""
        seen = self._in_float.get(id(layer), ())
        if len(seen) != 1:
            return None  # of several calls, none is typical
        shape, moments = seen[0]
        # Some layers see several rows per sample: windows, or steps.
        count = len(x) * self._used // self._total
        part = x[:count]
        if tuple(part.shape) != tuple(shape):
            return None  # the samples are along another axis
        return moments, part

    def _correct_norm(self, layer, x):
        found = self._expected(layer, x)
        if found is None:
            return
        in_float, part = found
        quantized = _moments(part, _channel_axis(layer, part))
        moving = layer.moving_mean, layer.moving_variance
        new = corrected_statistics(
            *(self._before[id(v)] for v in moving),
            layer.epsilon,
            in_float,
            quantized,
        )
        for variable, value in zip(moving, new):
            if np.isfinite(value).all():
                variable.assign(value.astype("float32"))

    def _correct_bias(self, layer, x):
        found = self._expected(layer, x)
        if found is None:
            return x
        (in_float, _), part = found
        change = (in_float - _mean_to(part, layer)).astype("float32")
        if not np.isfinite(change).all():
            return x
        layer.bias.assign(self._before[id(layer.bias)] + change)
        return x + ops.cast(ops.reshape(change, _shape_in(layer, x)), x.dtype)

    @contextlib.contextmanager
    def _hooked(self, norm, output):
        """Inside, functions are told what a layer reads or makes.

        What a layer makes is seen in front of its activation, and goes on as
        what the function returns.
        """
        kept = []
        calls = [(x, told_first(norm, x, x.call)) for x in self._norms]
        for layer in self._biased:
            for name in ("activation", "_float_activation"):
                function = layer.__dict__.get(name)
                if function is not None:
                    kept.append((layer, name, function))
                    layer.__dict__[name] = _fed(output, layer, function)
        try:
            with calls_replaced(calls):
                yield
        finally:
            for layer, name, function in kept:
                layer.__dict__[name] = function


def _fed(function, layer, activation):
    return lambda x: activation(function(layer, x))


def _biased_layers(graph, layers):
    """Layers with a bias of their own, and no batch norm that corrects."""
    users = {}
    for layer in layers:
        bias = getattr(layer, "bias", None)
        if bias is not None:
            users[id(bias)] = users.get(id(bias), 0) + 1
    found = []
    for layer in layers:
        if not isinstance(layer, Quantized) or not has_integer_bias(layer):
            continue
        if not roles.activation_is_last(layer):
            continue
        if layer.__dict__.get("activation") is None:
            continue
        bias = getattr(layer, "bias", None)
        if bias is None or users[id(bias)] > 1:
            continue
        readers = [
            reader.operation
            for site in graph.sites_of(layer)
            for value in site.outputs
            for reader in graph.consumers(value)
        ]
        if not (readers and all(map(roles.is_batch_norm, readers))):
            found.append(layer)
    return found


def _has_statistics(layer):
    return issubclass(float_class(type(layer)), keras.layers.BatchNormalization)


def _num_samples(inputs):
    return len(tree.flatten(inputs)[0])


def _num_used(inputs):
    sizes = [int(np.prod(a.shape[1:])) for a in tree.flatten(inputs)]
    wanted = _MOST_ELEMENTS // max(1, sum(sizes))
    return min(_num_samples(inputs), max(_FEWEST_SAMPLES, wanted))


def _channel_axis(layer, x):
    return layer.axis % len(x.shape)


def _moments(x, axis):
    """Mean and variance of each channel, as float32 arrays."""
    axes = [i for i in range(len(x.shape)) if i != axis]
    mean, variance = ops.moments(x, axes)
    return ops.convert_to_numpy(mean), ops.convert_to_numpy(variance)


def _mean_to(x, layer):
    """The mean of what a layer makes, in the shape of its bias."""
    shape = _shape_in(layer, x)
    x = ops.cast(x, "float32")
    axes = tuple(i for i, size in enumerate(shape) if size == 1)
    mean = ops.mean(x, axis=axes) if axes else x
    return np.reshape(ops.convert_to_numpy(mean), layer.bias.shape)


def _shape_in(layer, x):
    """The shape in which a layer's bias is added to what it makes."""
    shape = tuple(layer.bias.shape)
    rank = len(x.shape)
    if getattr(layer, "data_format", None) == "channels_first":
        return (1, *shape, *(1,) * (rank - 1 - len(shape)))
    return (1,) * (rank - len(shape)) + shape
