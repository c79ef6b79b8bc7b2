"""Does the copy compute what the model computes, to the last bit?

With every quantizer switched off it must. What does not survive being made
again from a configuration and variables (an attribute that is in neither, a
table that no asset holds) shows here, before it becomes a wrong result.
"""

import keras
import numpy as np
from keras import ops
from keras import tree

from keras_saq.models.calibration import first_few
from keras_saq.models.descent import input_structure
from keras_saq.models.eager import eagerly
from keras_saq.models.graph import functional
from keras_saq.models.graph import is_graph_model
from keras_saq.models.recording import told_of_calls
from keras_saq.quantizers import pass_through_scope

# More samples show nothing that these do not.
NUM_SAMPLES = 2
# Sizes that a model leaves open, by the rank of its input.
_OPEN_SIZE = {4: 32, 5: 16}
_DEFAULT_SIZE = 8


class CopyCheck:
    """Compares a model with what became of it, on a few samples.

    Made before the model is quantized: in place there is none afterwards.

    Args:
        model: the float model.
        inputs: inputs of it, in its own structure; `None` for random ones.
    """

    def __init__(self, model, inputs=None):
        self._model = model
        self._is_given = inputs is not None
        self._inputs = (
            random_inputs(model)
            if inputs is None
            else first_few(model, inputs, NUM_SAMPLES)
        )
        self._expected = None
        if self._inputs is not None:
            self._expected = self._run_float()

    def require_equal(self, quantized):
        """Raises if the quantized model, switched off, is another one.

        What draws random numbers in a call starts from the same seeds in
        both. A model that does not repeat itself even so, because it draws
        them past Keras, or because a GPU adds up in any order, cannot be
        compared, and is not.

        Raises:
            ValueError: naming the first layer that differs.
        """
        if self._expected is None:
            return
        with pass_through_scope():
            made = run(quantized, self._inputs)
        if _are_equal(self._expected, made):
            return
        in_place = quantized is self._model
        if in_place or not _are_equal(self._expected, self._run_float()):
            # In place there is nothing left to compare with.
            return
        raise ValueError(
            f"The copy of the model '{quantized.name}' does not compute what "
            "the model computes: with every quantizer switched off, "
            f"{self._first_difference(quantized)} What it holds is lost when "
            "it is made again from its configuration and its variables, and "
            "would be lost in a saved file, too. Let its `get_config` return "
            "all that makes it, or its `save_own_variables` and "
            "`load_own_variables` keep the rest; or quantize the model itself "
            "instead of a copy:\n\n"
            "    q = keras_saq.quantize_model(model, policy, inplace=True)"
        )

    def _run_float(self):
        try:
            return run(self._model, self._inputs)
        except Exception:
            if self._is_given:
                raise
            # Random inputs need not make sense to a model.
            return None

    def _first_difference(self, quantized):
        graph, expected = _record(self._model, self._inputs)
        with pass_through_scope():
            _, made = _record(quantized, self._inputs)
        for site in graph.sites:
            pair = expected.get(site.path), made.get(site.path)
            if None not in pair and not _are_equal(*pair):
                kind = type(site.operation).__name__
                return (
                    f"the first layer that differs is '{site.path}' ({kind}), "
                    f"{_difference(*pair)}."
                )
        return "its outputs differ, and no layer alone does."


def run(model, inputs):
    """Outputs of a model in inference, as a flat list of arrays.

    Nothing is left behind in the model: no state moves, no loss is added,
    and what it says itself is to be compiled is run as it is written.
    """
    with eagerly(), keras.StatelessScope(collect_losses=True):
        inputs = tree.map_structure(ops.convert_to_tensor, inputs)
        made = model(inputs, training=False)
    return _arrays(made)


def _arrays(structure):
    return [
        np.asarray(ops.convert_to_numpy(a))
        for a in tree.flatten(structure)
        if a is not None
    ]


def random_inputs(model):
    """Inputs of the shapes and dtypes that a model asks for, or `None`.

    Integers are 0 and 1, which are indices of any table; strings "" and "a".
    """
    random = np.random.default_rng(0)

    def draw(tensor):
        if tensor is None:
            return None
        open_size = _OPEN_SIZE.get(len(tensor.shape), _DEFAULT_SIZE)
        shape = [
            size or (NUM_SAMPLES if axis == 0 else open_size)
            for axis, size in enumerate(tensor.shape)
        ]
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        if dtype == "string":
            return random.choice(np.array(["", "a"]), shape)
        if "float" in dtype:
            values = random.normal(size=shape).astype("float32")
            return ops.convert_to_numpy(ops.cast(values, dtype))
        return random.integers(0, 2, shape).astype(dtype)

    if is_graph_model(model):
        return tree.map_structure(draw, functional(model)._inputs_struct)
    call = input_structure(model)
    if len(call.args) == 1 and not call.kwargs:
        return tree.map_structure(draw, call.args[0])
    return None  # several arguments, which are no inputs of `predict`


def _record(model, inputs):
    """Path of each site -> what it made, as a list of arrays."""
    found = {}

    def tell(site, _, args, kwargs, made):
        found[site.path] = _arrays(made)

    with told_of_calls(model, tell) as graph:
        run(model, inputs)
    return graph, found


def _are_equal(expected, made):
    return len(expected) == len(made) and all(
        a.dtype == b.dtype and a.shape == b.shape and _same(a, b)
        for a, b in zip(expected, made)
    )


def _same(a, b):
    if a.dtype.kind in "fc":
        return np.array_equal(a, b, equal_nan=True)
    return np.array_equal(a, b)


def _difference(expected, made):
    for a, b in zip(expected, made):
        if a.shape != b.shape or a.dtype != b.dtype:
            return (
                f"of which {a.dtype} {a.shape} was expected and {b.dtype} "
                f"{b.shape} received"
            )
        if not _same(a, b) and a.dtype.kind in "fiu":
            largest = np.abs(a.astype("float64") - b.astype("float64")).max()
            return f"by up to {largest:.3g}"
    return "in what it makes"
