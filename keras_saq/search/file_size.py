"""What the LiteRT format adds to the bytes of weights, scales and biases.

An estimate, fitted to files that `export_litert` wrote: of small networks, of
ResNet-20 and of MobileNetV2 it is within 1000 bytes of, or 2 % of the whole
file, whichever is more. It does not depend on the bits.
"""

import math

from keras_saq.layers import roles
from keras_saq.layers.roles import is_weighted
from keras_saq.layers.roles import weight
from keras_saq.layers.roles import weight_axes

# The scale of a channel's bias.
_PER_CHANNEL = 4
# Names, shapes and options of an operator and its tensors.
_PER_OPERATOR = 255
_PER_FILE = 1600


def file_overhead(space):
    """Bytes of a file beside `stored_bytes`."""
    size = _PER_FILE
    for site in space.plan.graph.sites:
        operation = site.operation
        if is_weighted(operation):
            size += _PER_OPERATOR
            for name, axes in weight_axes(operation).items():
                shape = tuple(weight(operation, name).shape)
                channels = math.prod(shape[axis] for axis in axes)
                size += _PER_CHANNEL * channels
        elif not (roles.is_batch_norm(operation) or roles.is_relu(operation)):
            size += _PER_OPERATOR
    return size
