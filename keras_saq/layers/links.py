"""Which quantizer made the tensor that a layer reads.

A bias is stored on the grid `input scale * weight scale`, so a layer has to
know the scale of its input, which its producer owns. The producer is found
where the layer is called with symbolic tensors: when `quantize_model`
builds the model, and again when Keras rebuilds it from a file, in
`clone_model`, or in any other graph made of its layers.
"""

import contextlib
import threading

from keras_saq.layers import roles
from keras_saq.layers.roles import is_weighted

_state = threading.local()


@contextlib.contextmanager
def links_kept():
    """Inside, symbolic calls of layers do not change who reads from whom.

    For calls that only ask what a layer does.
    """
    previous = are_kept()
    _state.kept = True
    try:
        yield
    finally:
        _state.kept = previous


def are_kept():
    """Whether this thread is inside of `links_kept`."""
    return getattr(_state, "kept", False)


def find_source(tensor):
    """The nearest quantizing or weighted layer behind a symbolic tensor.

    Walks back over layers that keep the grid, and into nested models.

    Args:
        tensor: a `KerasTensor`.

    Returns:
        A quantized layer (`keras_saq.layers.Quantized`), or `None`.
    """
    outside = []  # nested models that the walk is inside of, with their inputs
    while True:
        history = getattr(tensor, "_keras_history", None)
        if history is None or history.operation is None:
            return None
        operation, node_index, tensor_index = history
        node = operation._inbound_nodes[node_index]
        if node.is_input:
            if not outside:
                return None
            inner_inputs, outer_tensors = outside.pop()
            index = [id(t) for t in inner_inputs].index(id(tensor))
            tensor = outer_tensors[index]
        elif hasattr(operation, "output_quantizer"):
            if operation.output_quantizer is not None:
                return operation
            if operation.quantized_parts is not None:
                return operation.output_source(tensor_index)
            if is_weighted(operation):
                return operation
            if not roles.keeps_grid(operation):
                return None
            tensor = node.input_tensors[0]
        elif hasattr(operation, "outputs") and hasattr(operation, "layers"):
            outside.append((operation.inputs, node.input_tensors))
            tensor = operation.outputs[tensor_index]
        elif roles.keeps_grid(operation):
            tensor = node.input_tensors[0]
        else:
            return None
