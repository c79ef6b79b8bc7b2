"""What the LiteRT format adds to the bytes of weights, scales and biases."""

import math

from keras_saq.layers import kinds
from keras_saq.layers.weights import is_weighted
from keras_saq.layers.weights import weight
from keras_saq.layers.weights import weight_axes

# Of a weight's channel: two int64 zero points, and the scale of its bias.
_PER_CHANNEL = 20
_PER_OPERATOR = 660
_PER_FILE = 1400


def file_overhead(space):
    """Bytes of a file beside `stored_bytes`, an estimate."""
    size = _PER_FILE
    for site in space.plan.graph.sites:
        operation = site.operation
        if is_weighted(operation):
            size += _PER_OPERATOR
            for name, axes in weight_axes(operation).items():
                shape = tuple(weight(operation, name).shape)
                channels = math.prod(shape[axis] for axis in axes)
                size += _PER_CHANNEL * channels
        elif not (kinds.is_batch_norm(operation) or kinds.is_relu(operation)):
            size += _PER_OPERATOR // 2
    return size
