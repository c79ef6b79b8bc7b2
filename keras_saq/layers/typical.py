"""How large numbers would usually be where calibration finds only zeros."""

import math

import numpy as np
from keras import ops
from keras import tree

from keras_saq.layers import roles
from keras_saq.layers.roles import has_integer_bias
from keras_saq.layers.roles import weight
from keras_saq.layers.roles import weight_axes

# A batch norm gives its channels the deviation 1.
_DEVIATIONS = 4.0
# As many samples tell how large numbers are.
_SAMPLES = 8


def typical_weight(layer, name, shape):
    """The bound of He's uniform initializer, for the gain 1.

    Args:
        layer: a layer with weights.
        name: name of one.
        shape: its shape.
    """
    axes = weight_axes(layer).get(name, (-1,))
    num_scales = math.prod(shape[axis] for axis in axes)
    return math.sqrt(3.0 * num_scales / max(math.prod(shape), 1))


def typical_output(layer, inputs):
    """A bound of what a layer would make of its inputs, if they came through.

    Args:
        layer: a layer.
        inputs: the tensors it is called with.
    """
    some = [x[:: max(len(x) // _SAMPLES, 1)] for x in _floats(inputs)]
    largest = max(map(_largest, some), default=0.0) or 1.0
    if roles.is_batch_norm(layer):
        beta = _largest(layer.beta) if layer.center else 0.0
        return _DEVIATIONS + beta
    if not has_integer_bias(layer):
        return largest
    gain = 1.0
    for name, axes in weight_axes(layer).items():
        gain *= _gain(ops.convert_to_numpy(weight(layer, name)), axes)
    bias = getattr(layer, "bias", None)
    return largest * gain + (0.0 if bias is None else _largest(bias))


def _gain(kernel, axes):
    """The largest norm of the weights of a channel; 1 of zeros."""
    kept = {axis % kernel.ndim for axis in axes}
    others = tuple(i for i in range(kernel.ndim) if i not in kept)
    norms = np.sqrt(np.square(kernel, dtype="float32").sum(axis=others))
    return float(norms.max(initial=0.0)) or math.sqrt(3.0)


def _floats(tensors):
    return [
        x
        for x in tree.flatten(tensors)
        if ops.is_tensor(x) and "float" in str(x.dtype) and len(x.shape)
    ]


def _largest(x):
    x = ops.convert_to_numpy(x).astype("float32", copy=False)
    return float(max(x.max(initial=0.0), -x.min(initial=0.0)))
