"""How far a quantized model is from the float one, layer by layer."""

import contextlib

import numpy as np
from keras import ops
from keras import tree

from keras_saq.layers import Quantized
from keras_saq.layers import roles
from keras_saq.layers.observation import observed_by
from keras_saq.models.calibration import first_few
from keras_saq.models.calibration import first_samples
from keras_saq.models.calibration import quantized_layers
from keras_saq.models.calibration import require_calibrated
from keras_saq.models.causes import cause_of
from keras_saq.models.causes import mend_of
from keras_saq.models.comparison import Comparison
from keras_saq.models.comparison import LayerRow
from keras_saq.models.comparison import OutputRow
from keras_saq.models.copy_check import run
from keras_saq.models.graph import Graph
from keras_saq.models.recording import told_of_calls
from keras_saq.models.wrapper import inner_model
from keras_saq.quantizers import pass_through_scope

MAX_SAMPLES = 64
# As many elements of a tensor say what it is like.
_MAX_ELEMENTS = 2**16


def compare(float_model, q, x):
    """Measures how far a quantized model is from the float one.

    The signal-to-noise ratio of each output, and of what each layer makes: of
    the layer given the float model's tensors (the error made here), and of
    the layer inside of the quantized model (what was passed on, too). 20 dB
    is a noise of a tenth of the signal, 40 dB of a hundredth.

    Args:
        float_model: the model that `q` was made from.
        q: a model from `keras_saq.quantize_model`, or a `SAQModel`.
        x: inputs, as for `predict`, or batches, as for `calibrate`; the first
            64 samples are used.

    Returns:
        A `Comparison`; printed, a table with the worst layers first, likely
        causes, and rules that mend them.

    Raises:
        ValueError: if `q` is not a quantized model with scales, the data do
            not fit, or the models have other outputs.

    Example:

    >>> import keras, keras_saq, numpy as np
    >>> inputs = keras.Input((16,))
    >>> x = keras.layers.Dense(32, activation="relu", name="wide")(inputs)
    >>> model = keras.Model(inputs, keras.layers.Dense(4, name="head")(x))
    >>> x = np.random.default_rng(0).normal(size=(64, 16)).astype("float32")
    >>> q = keras_saq.quantize_model(model, "w2a8", calibration=x)
    >>> comparison = keras_saq.compare(model, q, x)
    >>> comparison.db < 40, sorted(row.path for row in comparison.rows)
    (True, ['head', 'wide'])
    """
    q = inner_model(q)
    if not quantized_layers(q):
        raise ValueError(
            f"`compare` needs a quantized model. Received: '{q.name}', which "
            "has no quantized layer. Call it as "
            "`keras_saq.compare(float_model, q, x)`."
        )
    require_calibrated(q, "be compared")
    inputs = first_few(q, first_samples(q, x), MAX_SAMPLES)
    return measure(float_model, q, inputs)


def measure(float_model, q, inputs, layers=True, moved=()):
    """`compare`, of inputs that were checked.

    Args:
        float_model: the float model; `None`: what `q` computes with every
            quantizer off.
        q: the quantized model.
        inputs: samples in the structure of the model's inputs.
        layers: whether to measure layer by layer, too.
        moved: without `float_model`: see `check_nearness`.
    """
    if not layers:
        with _floating(float_model, moved):
            expected = run(float_model or q, inputs)
        return Comparison(
            _output_rows(q, expected, run(q, inputs)), (), _count(inputs)
        )
    floats, heres, passed = {}, {}, {}
    graph = Graph(q)
    places = {site.path: site.operation for site in graph.sites}

    def keep_float(site, call, args, kwargs, made):
        if not _is_one_real(site):
            return
        layer = places.get(site.path)
        floats[site.path, call] = _sample(made)
        if isinstance(layer, Quantized):
            with pass_through_scope(False), observed_by(None):
                heres[site.path, call] = _sample(layer(*args, **kwargs))

    def keep(site, call, args, kwargs, made):
        if (site.path, call) in heres:
            passed[site.path, call] = _sample(made)

    model = float_model or q
    with _floating(float_model, moved), told_of_calls(model, keep_float):
        expected = run(model, inputs)
    with told_of_calls(q, keep):
        made = run(q, inputs)
    rows = []
    for key, here in heres.items():
        path, call = key
        layer = places[path]
        if key not in passed or not layer.quantizers:
            continue
        several = (path, 1) in heres
        rows.append(
            LayerRow(
                f"{path} (call {call + 1})" if several else path,
                type(roles.unwrap(layer)).__name__.removeprefix("Quantized"),
                decibels(floats[key], here),
                decibels(floats[key], passed[key]),
                cause_of(layer, floats[key]),
                mend_of(path, layer),
            )
        )
    rows.sort(key=lambda row: row.here_db)
    return Comparison(
        _output_rows(q, expected, made), tuple(rows), _count(inputs)
    )


def decibels(signal, received):
    """Signal-to-noise ratio; infinite where nothing differs.

    Of whole numbers, which are indices or decisions, a number that differs is
    noise, however near it is: one in ten that do is 10 dB.

    Args:
        signal: array.
        received: array of the same shape.
    """
    # NumPy has no kind for bfloat16.
    if np.asarray(signal).dtype.kind not in "fV":
        share = np.mean(np.asarray(signal) != np.asarray(received))
        return float("inf") if not share else float(-10 * np.log10(share))
    signal = np.asarray(signal, "float64").ravel()
    noise = np.square(signal - np.asarray(received, "float64").ravel()).sum()
    energy = np.square(signal).sum()
    if noise == 0:
        return float("inf")
    if energy == 0:
        return float("-inf")
    return float(10 * np.log10(energy / noise))


def _output_rows(q, expected, made):
    names = Graph(q).output_names
    if [a.shape for a in expected] != [a.shape for a in made]:
        raise ValueError(
            "The models have other outputs. Expected, as of the float model: "
            f"shapes {[a.shape for a in expected]}. Received, of the "
            f"quantized one: {[a.shape for a in made]}."
        )
    rows = []
    for name, signal, received in zip(names, expected, made):
        db = decibels(signal, received)
        channels = [db]
        is_real = signal.dtype.kind in "fV"
        if is_real and signal.ndim > 1 and not _are_probabilities(signal):
            pairs = zip(*(np.moveaxis(a, -1, 0) for a in (signal, received)))
            channels = [decibels(*pair) for pair in pairs]
        worst = int(np.argmin(channels))
        rows.append(OutputRow(name, db, worst, channels[worst], is_real))
    return tuple(rows)


def _are_probabilities(array):
    """Then one that is next to zero for all samples is no loss."""
    array = array.astype("float32")
    return array.min() >= 0 and np.allclose(array.sum(axis=-1), 1.0, atol=1e-3)


def _is_one_real(site):
    return len(site.outputs) == 1 and site.outputs[0].is_real


def _sample(made):
    """At most so many elements, the same ones of equal shapes."""
    flat = np.ravel(ops.convert_to_numpy(tree.flatten(made)[0]))
    step = -(-len(flat) // _MAX_ELEMENTS)
    # An odd step meets every channel.
    return flat[:: step | 1].astype("float32")


@contextlib.contextmanager
def _floating(float_model, moved):
    """Inside, `q` computes what the float model does, if there is none."""
    if float_model is not None:
        yield
        return
    # Copies: on torch the array would be the variable.
    kept = [np.copy(ops.convert_to_numpy(v)) for v, _ in moved]
    try:
        for variable, before in moved:
            variable.assign(before)
        with pass_through_scope():
            yield
    finally:
        for (variable, _), value in zip(moved, kept):
            variable.assign(value)


def _count(inputs):
    return len(tree.flatten(inputs)[0])
