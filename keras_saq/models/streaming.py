"""A model of sequences, frame by frame: what it must remember is its state.

A causal network makes each frame of its output from the frames so far. What of
them it reads again, it is given and gives back:

* in front of a causal convolution, the last frames that it reads: as many as
  its receptive field has before the present one;
* what a zero padding in front of the time axis puts there, the same way;
* of LSTM, GRU and SimpleRNN their states.

Everything else has to compute frame by frame as it does all at once. Whether
it does is not looked up but measured: the steps have to make what the whole
model makes of a sequence.
"""

import copy

import numpy as np
from keras import ops
from keras import tree

from keras_saq.layers import Quantized
from keras_saq.models.calibration import require_calibrated
from keras_saq.models.compare import decibels
from keras_saq.models.copy_check import run
from keras_saq.models.frames import Steps
from keras_saq.models.frames import refusal
from keras_saq.models.graph import Graph
from keras_saq.models.model import as_quantized_model
from keras_saq.models.recording import told_of_calls
from keras_saq.models.wrapper import inner_model

_CHECKED_STEPS = 24
# Of equal numbers but for codes that a rounding tie decides otherwise.
_LEAST_DB = 30.0


def streaming_model(model, frames=1):
    """A step model: some frames and a state in, frames and new state out.

    The states come after the model's own inputs and outputs, in the same
    order, and start as zeros; see `initial_states` and `stream`. The result
    is quantized as `model` is, and exported and verified in the same way.

    Args:
        model: a quantized or float Functional or Sequential model of one
            input `(batch, time, ...)` that is causal: convolutions with
            `padding="causal"`, or behind a zero padding in front of the time
            axis; recurrent layers that run forward; and what treats every
            frame alike. It is left as it is.
        frames: how many a step takes: a multiple of all strides in time.

    Returns:
        A model of the same kind.

    Raises:
        ValueError: if a layer needs frames that are still to come, or all of
            them; it names the layer.

    Example:

    >>> import keras, keras_saq, numpy as np
    >>> inputs = keras.Input((20, 3))
    >>> x = keras.layers.Conv1D(4, 3, padding="causal")(inputs)
    >>> model = keras.Model(inputs, keras.layers.Dense(2)(x))
    >>> x = np.random.default_rng(0).normal(size=(1, 20, 3))
    >>> q = keras_saq.quantize_model(model, "w8a8", calibration=x)
    >>> step = keras_saq.streaming_model(q)
    >>> [tuple(t.shape) for t in step.inputs]
    [(None, 1, 3), (None, 2, 3)]
    >>> whole = q.predict(x, verbose=0)
    >>> bool(np.allclose(keras_saq.models.stream(step, x), whole, atol=1e-6))
    True
    """
    model = inner_model(model)
    _check(model, frames)
    step = Steps(copy.deepcopy(model), frames).model
    if _is_quantized(model):
        step = as_quantized_model(step)
    _require_equal(model, step, frames)
    return step


def initial_states(step, batch_size=1):
    """The states that a stream begins with: zeros.

    Args:
        step: a model from `streaming_model`.
        batch_size: of the stream.
    """
    return [
        np.zeros((batch_size, *t.shape[1:]), "float32") for t in step.inputs[1:]
    ]


def stream(step, x):
    """Runs a step model over sequences.

    Args:
        step: a model from `streaming_model`.
        x: array `(batch, time, ...)`; time a multiple of the step's frames.

    Returns:
        What the steps make, joined along the time axis; of an output without
        one, what the last step makes. A list where there are several.
    """
    frames = step.inputs[0].shape[1]
    states = initial_states(step, len(x))
    number = len(step.outputs) - len(states)
    made = []
    for start in range(0, x.shape[1], frames):
        part = np.asarray(x[:, start : start + frames], "float32")
        outputs = [
            ops.convert_to_numpy(t)
            for t in tree.flatten(step([part, *states], training=False))
        ]
        made.append(outputs[:number])
        states = outputs[number:]
    joined = [
        np.concatenate(parts, 1) if parts[0].ndim > 2 else parts[-1]
        for parts in zip(*made)
    ]
    return joined[0] if number == 1 else joined


def _check(model, frames):
    if not isinstance(frames, int) or frames < 1:
        raise ValueError(
            "`frames`, of a step, must be an integer of at least 1. "
            f"Received: frames={frames!r}"
        )
    if _is_quantized(model):
        require_calibrated(model, "stream")
    inputs = tree.flatten(getattr(model, "inputs", None) or [])
    if len(inputs) != 1 or len(inputs[0].shape) < 3:
        raise ValueError(
            "A model that streams has one input `(batch, time, features)`. "
            f"Received: inputs {[tuple(t.shape) for t in inputs]}"
        )


def _is_quantized(model):
    return any(isinstance(each, Quantized) for each in model._flatten_layers())


def _require_equal(model, step, frames):
    """Raises where steps make something else than the whole model."""
    shape = tuple(model.inputs[0].shape)
    length = shape[1] or frames * _CHECKED_STEPS
    length -= length % frames
    if shape[1] not in (None, length):
        raise ValueError(
            f"The model takes {shape[1]} frames, which is no multiple of "
            f"{frames}. Choose other `frames`, or an input of any length."
        )
    x = np.random.default_rng(0).normal(size=(2, length, *shape[2:]))
    x = x.astype("float32")
    expected = [
        ops.convert_to_numpy(t) for t in tree.flatten(model(x, training=False))
    ]
    # The first steps are enough, but for outputs that come at the end.
    steps = length
    if all(a.ndim > 2 for a in expected):
        steps = min(length, frames * _CHECKED_STEPS)
    made = stream(step, x[:, :steps])
    made = made if isinstance(made, list) else [made]
    if steps < length:
        expected = [a[:, : b.shape[1]] for a, b in zip(expected, made)]
    if all(map(_is_near, expected, made)):
        return
    site = _first_unequal(model, step, x, steps)
    raise ValueError(
        refusal(site, "it reads frames that are still to come, or all of them")
    )


def _is_near(a, b):
    return a.shape == b.shape and decibels(a, b) > _LEAST_DB


def _first_unequal(model, step, x, steps):
    """The first site whose steps make something else than it does at once."""
    whole, parts = {}, {}

    def keep(site, call, args, kwargs, made):
        arrays = [ops.convert_to_numpy(t) for t in tree.flatten(made)[:1]]
        whole[site.path, call] = site, arrays

    def keep_part(site, call, args, kwargs, made):
        arrays = [ops.convert_to_numpy(t) for t in tree.flatten(made)[:1]]
        parts.setdefault((site.path, call), []).append(arrays)

    with told_of_calls(model, keep):
        run(model, x)
    frames, states = step.inputs[0].shape[1], initial_states(step, len(x))
    length = x.shape[1]
    for start in range(0, steps, frames):
        with told_of_calls(step, keep_part):
            outputs = run(step, [x[:, start : start + frames], *states])
        states = outputs[len(outputs) - len(states) :]
    for key, (site, (array,)) in whole.items():
        made = [part[0] for part in parts.get(key, ())]
        if made and array.ndim > 2:
            made = [np.concatenate(made, 1)]
            array = array[:, : made[0].shape[1]] if steps < length else array
        if not made or not _is_near(array, made[-1]):
            return site
    return Graph(model).sites[-1]
