"""Cross-layer equalisation: channels of similar range, the same function.

Between two layers with a positively homogeneous function f between them,
f(s x) = s f(x) for s > 0, each channel can be divided by a number in front and
multiplied by it behind (Nagel et al., arXiv 1906.04721, section 4.1; the
equivalent transformation of SmoothQuant and PassionSR):

    W2 f(W1 x + b1) = (W2 S) f(S^-1 W1 x + S^-1 b1)

The tensor between has one scale for all channels, the second layer's weights
one per output. With the range r of a channel of the tensor and the largest
weight w that reads it, s = sqrt(r / w) makes both as even as they can be; a
depthwise layer has a scale per channel anyway, and there s = r.
"""

import keras
import numpy as np
from keras import ops
from keras import tree

from keras_saq.layers import roles
from keras_saq.models.calibration import first_samples
from keras_saq.models.copy_check import run
from keras_saq.models.graph import is_plain_graph_model
from keras_saq.models.recording import told_of_calls

# A channel is scaled by at most this.
_MOST = 64.0
# With these between, a channel stays a channel and zero stays zero.
_MOVES = {
    "average_pool",
    "global_average",
    "global_max",
    "identity",
    "max_pool",
    "pad",
    "upsampling",
}


def equalize(model, data):
    """Returns a float model of the same function with evener channels.

    Args:
        model: a built Functional or Sequential float model.
        data: inputs, as for `keras_saq.calibrate`.

    Returns:
        `(copy, names)`: the model, to be quantized in place of `model`, and a
        list of the pairs of layers between which channels were scaled.

    Raises:
        ValueError: if the model is no graph of layers, or the data do not fit.

    Example:

    >>> import keras, keras_saq, numpy as np
    >>> from keras_saq.reconstruction import equalize
    >>> model = keras.Sequential([
    ...     keras.Input((8,)),
    ...     keras.layers.Dense(16, activation="relu", name="one"),
    ...     keras.layers.Dense(4, name="two"),
    ... ])
    >>> x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    >>> even, pairs = equalize(model, x)
    >>> pairs, bool(np.allclose(even(x), model(x), atol=1e-5))
    ([('one', 'two')], True)
    """
    if not is_plain_graph_model(model):
        raise ValueError(
            "`equalize` copies Functional and Sequential models. Received: "
            f"'{model.name}' of type {type(model).__name__}"
        )
    inputs = first_samples(model, data)
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    ranges = {}

    def tell(site, _, args, kwargs, made):
        made = ops.convert_to_numpy(tree.flatten(made)[0])
        axes = tuple(range(made.ndim - 1))
        ranges[site.path] = np.abs(made).max(axes) if made.ndim > 1 else None

    with told_of_calls(copy, tell) as graph:
        run(copy, inputs)
    pairs = []
    for first, last, second in _pairs(graph):
        found = ranges.get(last.path)
        reading = _reading_weights(second.operation)
        if found is None or reading.shape[0] != found.shape[0]:
            continue
        if roles.family(second.operation) == "depthwise":
            wanted = found
        else:
            wanted = np.sqrt(found / np.maximum(reading, 1e-12))
        factor = _even(wanted, (found > 0) & (reading > 0))
        _divide_outputs(first.operation, factor)
        _multiply_inputs(second.operation, factor)
        pairs.append((first.operation.name, second.operation.name))
        # The ranges of channels behind are what they were.
        ranges[last.path] = found / factor
    return copy, pairs


def _pairs(graph):
    """`(first, last, second)`: sites of what makes, hands on and reads."""
    for second in graph.sites:
        if not _can_read(second.operation):
            continue
        value = second.inputs[0]
        last = value.producer
        while True:
            site = value.producer
            if site is None or not _is_alone(graph, value, site):
                break
            if _can_be_divided(site.operation):
                yield site, last, second
                break
            if not _is_homogeneous(site.operation):
                break
            value = site.inputs[0]


def _is_alone(graph, value, site):
    return (
        len(graph.consumers(value)) == 1
        and not graph.is_output(value)
        and len(graph.sites_of(site.operation)) == 1
        and len(site.inputs) == 1
    )


def _is_homogeneous(operation):
    if roles.is_relu(operation):
        return roles.activation_of(operation) == "relu"
    # An operation can pad with something else than zeros.
    is_layer = isinstance(operation, keras.layers.Layer)
    return is_layer and roles.family(operation) in _MOVES


def _is_channels_last(operation):
    return getattr(operation, "data_format", None) != "channels_first"


def _can_read(operation):
    family = roles.family(operation)
    if family == "conv" and operation.groups != 1:
        return False
    return family in ("conv", "dense", "depthwise") and _is_channels_last(
        operation
    )


def _can_be_divided(operation):
    family = roles.family(operation)
    if family == "batch_norm":
        rank = len(operation.moving_mean.shape)
        is_last = rank == 1 and operation.axis in (-1, 3)
        return is_last and operation.scale and operation.center
    if family not in ("conv", "dense", "depthwise"):
        return False
    is_homogeneous = roles.activation_of(operation) in ("linear", "relu")
    return is_homogeneous and _is_channels_last(operation)


def _reading_weights(layer):
    """The largest weight that reads each input channel."""
    kernel = np.abs(ops.convert_to_numpy(layer.kernel))
    axes = tuple(i for i in range(kernel.ndim) if i != kernel.ndim - 2)
    return kernel.max(axes)


def _even(wanted, used):
    """The factors, around one; one for channels that nothing is known of."""
    factor = np.ones(wanted.shape, "float64")
    if used.any():
        logs = np.log(wanted[used].astype("float64"))
        logs -= logs.mean()
        most = np.log(_MOST)
        factor[used] = np.exp(np.clip(logs, -most, most))
    return factor.astype("float32")


def _divide_outputs(layer, factor):
    for name in ("gamma", "beta", "bias"):
        variable = getattr(layer, name, None)
        if variable is not None:
            variable.assign(ops.convert_to_numpy(variable) / factor)
    if hasattr(layer, "kernel"):
        kernel = ops.convert_to_numpy(layer.kernel)
        if roles.family(layer) == "depthwise":
            factor = factor.reshape(kernel.shape[-2:])
        layer.kernel.assign(kernel / factor)


def _multiply_inputs(layer, factor):
    kernel = ops.convert_to_numpy(layer.kernel)
    layer.kernel.assign(kernel * factor[:, None])
