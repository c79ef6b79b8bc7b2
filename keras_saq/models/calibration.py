"""Scales from data, before the first training step."""

import contextlib

import keras
import numpy as np
from keras import ops
from keras import tree

from keras_saq.layers import Quantized
from keras_saq.models.behind import functions_behind
from keras_saq.models.correct import Correction
from keras_saq.models.eager import eagerly
from keras_saq.models.graph import Graph
from keras_saq.models.silence import warn_of_silence
from keras_saq.quantizers import calibration_scope
from keras_saq.quantizers import pass_through_scope

MAX_SAMPLES = 512


def quantized_layers(model):
    """Every quantized layer of a model, at any depth, each once."""
    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, Quantized)
    ]


def uncalibrated_layers(model):
    """Names of the layers with a quantizer that has no scale yet."""
    return [
        layer.name
        for layer in quantized_layers(model)
        if not all(q.calibrated for q in layer.quantizers)
    ]


def require_calibrated(model, action):
    """Raises if a quantizer of the model has no scale yet."""
    names = uncalibrated_layers(model)
    if names:
        raise ValueError(
            f"The model cannot {action} before its quantizers have scales, "
            f"and {len(names)} of its layers have none yet (the first is "
            f"'{names[0]}'). Give calibration data,\n\n"
            "    q = keras_saq.quantize_model(model, policy, "
            "calibration=x[:256])\n\n"
            "or call `fit` first, which takes the scales from its first batch."
        )


def calibrate(model, data, correct=True):
    """Takes the scale of each quantizer without one from data.

    Where there is one to take, it also gives batch norms and biases back what
    quantization moves on average; see `keras_saq.models.correct`.

    Args:
        model: a quantized model.
        data: inputs of the model: an array, or for several inputs a list or
            dict of arrays; or an iterable of batches `x`, `(x, y)` or
            `(x, y, sample_weight)`, such as a `tf.data.Dataset` or a
            `keras.utils.PyDataset`. At most the first 512 samples are used.
        correct: whether the statistics of batch norms, and the biases of
            layers without one behind them, are corrected.

    Raises:
        ValueError: if there is no data, or it is not finite.

    Example:

    >>> import keras, keras_saq, numpy as np
    >>> inputs = keras.Input((4,))
    >>> model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    >>> q = keras_saq.quantize_model(model, "w4a8")
    >>> keras_saq.calibrate(q, np.eye(4, dtype="float32"))
    >>> all(quantizer.calibrated for quantizer in q.layers[-1].quantizers)
    True
    """
    if not uncalibrated_layers(model):
        return
    take_scales(model, first_samples(model, data), correct)
    warn_of_silence(quantized_layers(model))


def take_scales(model, inputs, correct):
    """Runs a quantized model to calibrate it, and to correct it.

    Args:
        model: a quantized model.
        inputs: what `first_samples` returns.
        correct: see `calibrate`.

    Returns:
        List of `(variable, value before)` of what was corrected.
    """
    graph = Graph(model)
    uncalibrated = _uncalibrated(model)
    correction = Correction(graph, inputs) if correct else None
    if correction is not None and correction.is_empty:
        correction = None
    if correction is None and not uncalibrated:
        return []
    several = quantizers_of_several(graph) & uncalibrated
    scales = calibration_scope(functions_behind(graph), several)
    if correction is None:
        with scales, _states_kept(model):
            _call(model, inputs)
        return []
    # What gets compiled would keep what one of the passes switched on.
    with eagerly(), _states_kept(model):
        # Nothing but the moments is left of the run in float.
        with (
            pass_through_scope(),
            keras.StatelessScope(collect_losses=True),
            correction.learning(),
        ):
            _call(model, correction.inputs)
        if several:
            # They have their scales when all is over.
            with scales:
                _call(model, inputs)
            with correction.applying(correction.inputs):
                _call(model, correction.inputs)
        else:
            with scales, correction.applying(inputs):
                _call(model, inputs)
    return correction.moved()


@contextlib.contextmanager
def _states_kept(model):
    """Recurrent layers with a state between calls have the old one again."""
    states = [
        (state, ops.copy(state.value))
        for layer in model._flatten_layers()
        if getattr(layer, "stateful", False)
        for state in tree.flatten(getattr(layer, "states", None))
        if state is not None
    ]
    yield
    for state, value in states:
        state.assign(value)


def _call(model, inputs):
    """Calls a model, if need be with as many samples as it is made for."""
    batch = fixed_batch(model)
    try:
        model(inputs, training=False)
    except Exception:
        if batch is None or len(tree.flatten(inputs)[0]) == batch:
            raise
        model(first_few(model, inputs, batch), training=False)


def quantizers_of_several(graph):
    """Ids of the quantizers of tensors that see more than one of them."""
    found = set()
    for site in graph.sites:
        layer = site.operation
        if not isinstance(layer, Quantized):
            continue
        config = layer.quantize_config
        quantizers = [config.inputs]
        if len(graph.sites_of(layer)) > 1:
            quantizers += [config.inner, config.logits, config.outputs]
        elif len(site.inputs) < 2:
            continue
        found.update(id(q) for q in quantizers if q is not None)
    return found


def _uncalibrated(model):
    return {
        id(quantizer)
        for layer in quantized_layers(model)
        for quantizer in layer.quantizers
        if not quantizer.calibrated
    }


def fixed_batch(model):
    """The batch size that a model's inputs are made for, `None` if any."""
    inputs = _symbolic_inputs(model)
    return inputs[0].shape[0] if inputs else None


def first_few(model, inputs, number):
    """So many samples, or as many as the model is made for."""
    number = fixed_batch(model) or number
    return tree.map_structure(lambda a: a[:number], inputs)


def calibrate_from_fit_data(model, x):
    """Calibrates with the first batch of what `fit` received.

    Returns:
        What `fit` shall go on with: `x`, or an equal generator where looking
        at the first batch has consumed it.
    """
    if not uncalibrated_layers(model) or x is None:
        return x
    if hasattr(x, "__next__"):
        first = next(x, None)
        if first is None:
            return x
        calibrate(model, [first], correct=False)
        return _put_back(first, x)
    # Training moves statistics and biases by itself.
    calibrate(model, x, correct=False)
    return x


def _put_back(first, rest):
    # A generator: Keras takes no other iterator.
    yield first
    yield from rest


def first_samples(model, data):
    """At most 512 samples of data as `calibrate` takes it, checked.

    Returns:
        Inputs in the structure that the model is called with.
    """
    if _is_array_structure(model, data):
        samples = tree.map_structure(lambda a: a[:MAX_SAMPLES], data)
    else:
        batches, count = [], 0
        for batch in _batches(data):
            batch = _inputs_of(batch)
            batches.append(tree.map_structure(ops.convert_to_numpy, batch))
            count += len(tree.flatten(batches[-1])[0])
            if count >= MAX_SAMPLES // 2:
                break
        if not batches:
            raise ValueError(
                "Calibration needs at least one batch of data. "
                f"Received an empty {type(data).__name__}."
            )
        samples = tree.map_structure(
            lambda *a: np.concatenate(a)[:MAX_SAMPLES], *batches
        )
    arrays = [
        np.asarray(ops.convert_to_numpy(a)) for a in tree.flatten(samples)
    ]
    for array in arrays:
        if not len(array):
            raise ValueError(
                "Calibration needs at least one sample. "
                f"Received an array of shape {array.shape}."
            )
        if (
            np.issubdtype(array.dtype, np.floating)
            and not np.isfinite(array).all()
        ):
            raise ValueError(
                "Calibration data must be finite. Received NaN or infinite "
                "values. Check the preprocessing of the data."
            )
    _check_shapes(model, arrays)
    return samples


def _check_shapes(model, arrays):
    if _symbolic_inputs(model) is None:
        return
    # Of a model for batches of one size, any number of samples is accepted.
    expected = [(None, *t.shape[1:]) for t in _symbolic_inputs(model)]
    received = [array.shape for array in arrays]
    if len(expected) != len(received) or not all(
        len(e) == len(r) and all(a in (None, b) for a, b in zip(e, r))
        for e, r in zip(expected, received)
    ):
        raise ValueError(
            "Calibration data must have the shapes of the model's inputs. "
            f"Expected: {expected}. Received: {received}."
        )


def _is_array_structure(model, data):
    """Whether data is the model's inputs themselves, and no batches."""
    if isinstance(data, dict):
        return all(hasattr(v, "shape") for v in data.values())
    if isinstance(data, (list, tuple)):
        # One input: a list of arrays is a list of batches.
        inputs = _symbolic_inputs(model)
        num_inputs = len(data) if inputs is None else len(inputs)
        return num_inputs == len(data) > 1 and all(
            hasattr(v, "shape") for v in data
        )
    return hasattr(data, "shape")


def _symbolic_inputs(model):
    """Flat list of the model's inputs; `None` of a subclassed model."""
    inputs = getattr(model, "inputs", None)
    return None if inputs is None else tree.flatten(inputs)


def _batches(data):
    if isinstance(data, keras.utils.PyDataset):
        return (data[i] for i in range(data.num_batches))
    if not hasattr(data, "__iter__"):
        raise ValueError(
            "Calibration data must be an array, a dict of arrays, or an "
            f"iterable of batches. Received: {data!r} of type "
            f"{type(data).__name__}"
        )
    return iter(data)


def _inputs_of(batch):
    return batch[0] if isinstance(batch, tuple) else batch
