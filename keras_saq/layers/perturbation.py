"""The scope through which a training step perturbs quantized weights.

SAQ (arXiv 2111.12273) adds its perturbation *after* quantization, case 3:
L(Q(w) + eps). A quantized layer asks here for the eps of each of its weights
each time it has quantized one. Nothing is stored in the model, so nothing can
be left behind: when the scope ends, however it ends, the weights are clean.
"""

import collections
import threading

from keras import ops

_state = threading.local()


class PerturbationScope:
    """Adds tensors to the quantized weights that are read inside it.

    Entered inside a train step: the stack is local to the thread, and each
    replica of a distribution strategy runs its step in a thread of its own.

    Args:
        perturbations: dict from the `id` of a weight's variable to a tensor
            of the variable's shape.

    Attributes:
        quantized: dict from the `id` of a weight's variable to its quantized
            value, unperturbed, of all weights that were quantized inside.
        reads: counts, per `id` of a variable, how often its value was read.

    Example:

    >>> import keras, keras_saq, numpy as np
    >>> from keras_saq.layers import PerturbationScope
    >>> inputs = keras.Input((2,))
    >>> model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    >>> x = np.eye(2, dtype="float32")
    >>> q = keras_saq.quantize_model(model, "w8", calibration=x)
    >>> kernel = q.layers[-1].kernel
    >>> eps = {id(kernel): np.float32([[0.5], [0.0]])}
    >>> clean = keras.ops.convert_to_numpy(q(x))
    >>> with PerturbationScope(eps):
    ...     moved = keras.ops.convert_to_numpy(q(x))
    >>> bool(np.allclose(moved - clean, [[0.5], [0.0]]))
    True
    """

    def __init__(self, perturbations=None):
        self._perturbations = perturbations or {}
        self.quantized = {}
        self.reads = collections.Counter()

    def __enter__(self):
        self._previous = getattr(_state, "scope", None)
        _state.scope = self
        return self

    def __exit__(self, *args):
        _state.scope = self._previous

    def add_to(self, variable, quantized):
        """`quantized`, plus what the scope holds for its variable."""
        self.quantized[id(variable)] = quantized
        eps = self._perturbations.get(id(variable))
        if eps is None:
            return quantized
        return quantized + ops.cast(eps, quantized.dtype)


def perturbed(variable, quantized):
    """`quantized`, plus the perturbation that the current scope holds."""
    scope = getattr(_state, "scope", None)
    return quantized if scope is None else scope.add_to(variable, quantized)


def note_read(variable):
    """Tells the current scope that the value of a variable was read."""
    scope = getattr(_state, "scope", None)
    if scope is not None:
        scope.reads[id(variable)] += 1
