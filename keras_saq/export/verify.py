"""`verify_litert`: does the file compute what the Keras model computes?"""

import dataclasses
import pathlib
import time

import numpy as np
from keras import ops
from keras import tree

from keras_saq.export import reference
from keras_saq.export.dynamic import program_of
from keras_saq.export.isolated import OPEN_SECONDS
from keras_saq.export.isolated import FileError
from keras_saq.export.isolated import IsolatedFile
from keras_saq.export.layerwise import compare_layers
from keras_saq.export.parity import OutputParity
from keras_saq.export.parity import ParityReport
from keras_saq.export.steps import in_steps
from keras_saq.export.steps import step_of
from keras_saq.export.steps import tolerance_of
from keras_saq.integers import as_type
from keras_saq.models.compare import decibels
from keras_saq.models.wrapper import inner_model

_BATCH_SIZE = 256
# LiteRT's plain kernels beside TensorFlow's, and a busy machine.
_SLOWER_THAN_REFERENCE = 100
# Layer by layer, every tensor of a sample is held at once.
_LAYER_SAMPLES = 32


def verify_litert(filepath, model, x, per_layer=False, float_model=None):
    """Runs a file, the code-domain reference and the model on the same data.

    The reference is what the integer kernels are specified to compute
    (`keras_saq.export.reference`); the file must equal it exactly. The
    difference from `model.predict`, which computes in float32, is measured.
    Where the file differs from the reference, the operators are compared one
    by one, which finds the first that deviates. The file runs in a process
    of its own: a damaged one that makes LiteRT crash is an error here.

    Args:
        filepath: a file that `export_litert` wrote.
        model: the model it was written from.
        x: inputs: an array, or a list or dict of arrays, as for `predict`.
        per_layer: whether to compare every tensor inside of the file too, on
            the first 32 samples: with the reference, and with what the Keras
            layer of the same path makes.
        float_model: the float model, to measure how far from it the file is.

    Returns:
        A `ParityReport`; printed, it is two lines and what there is to say
        beyond them.

    Raises:
        ValueError: if the file cannot be read or is not of this model.

    Example:

    >>> import keras, keras_saq, numpy as np, tempfile
    >>> inputs = keras.Input((16,))
    >>> model = keras.Model(inputs, keras.layers.Dense(4)(inputs))
    >>> x = np.linspace(-1, 1, 64, dtype="float32").reshape(4, 16)
    >>> q = keras_saq.quantize_model(model, "w4a8", calibration=x)
    >>> path = tempfile.mkdtemp() + "/m.tflite"
    >>> report = keras_saq.export_litert(q, path)
    >>> keras_saq.verify_litert(path, q, x).reference_exact
    True
    """
    try:
        content = pathlib.Path(filepath).read_bytes()
    except OSError as error:
        raise ValueError(
            f"'{filepath}' is not a readable LiteRT file: {error}"
        ) from error
    program = program_of(filepath, content, model)
    report = verify_content(content, filepath, model, program, x, per_layer)
    if float_model is None:
        return report
    return _beside_float(report, float_model, x)


def _beside_float(report, float_model, x):
    """The report, with each output's distance from the float model's."""
    floats = tree.flatten(
        float_model.predict(x, batch_size=_BATCH_SIZE, verbose=0)
    )
    shapes = [np.shape(a) for a in floats], [a.shape for a in report.outputs]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "`float_model` has other outputs than the file. Expected: shapes "
            f"{shapes[1]}. Received: {shapes[0]}."
        )
    rows = tuple(
        dataclasses.replace(row, float_db=decibels(expected, made))
        for row, made, expected in zip(
            report.per_output, report.outputs, floats
        )
    )
    return dataclasses.replace(report, per_output=rows)


def verify_content(content, filepath, model, program, x, per_layer=False):
    """`verify_litert` of a file's bytes; `filepath` is what errors call it.

    Args:
        content: the bytes.
        filepath: the file they are of.
        model: the model it was written from.
        program: the model's float-in, float-out program.
        x: inputs, as for `predict`.
        per_layer: whether to compare every tensor.
    """
    arrays = _as_arrays(model, program, x)
    try:
        with IsolatedFile(content) as file:
            inputs = _matched_inputs(filepath, file, program)
            expected, seconds = _timed_reference(program, arrays)
            outputs = _run_file(program, file, inputs, arrays, seconds)
            resolver = "XNNPACK"
            if not file.has_delegate:
                resolver = "built-in kernels, no delegate"
            undelegated = tuple(node.name for node in file.undelegated)
    except FileError as error:
        raise ValueError(
            f"'{filepath}' is not a readable LiteRT file: {error}"
        ) from error
    predicted = tree.flatten(
        inner_model(model).predict(x, batch_size=_BATCH_SIZE, verbose=0)
    )
    rows, steps, reference_steps = [], [], []
    for i, tensor in enumerate(program.outputs):
        scale = program.output_scales[i]
        references = in_steps(outputs[i], expected[i], scale)
        differences = in_steps(outputs[i], predicted[i], scale)
        rows.append(
            OutputParity(
                name=tensor.name,
                step=step_of(scale),
                reference_exact=bool(references.max() <= tolerance_of(scale)),
                reference_max_lsb=float(references.max()),
                max_lsb=float(np.rint(differences.max())),
                mean_lsb=float(differences.mean()),
                exact=float((differences < 0.5).mean()),
                top1_agreement=_top1_agreement(outputs[i], predicted[i]),
                snr_db=decibels(predicted[i], outputs[i]),
            )
        )
        steps.append(differences.ravel())
        reference_steps.append(references)
    is_exact = all(row.reference_exact for row in rows)
    layers, within_bounds = (), is_exact
    if per_layer or not is_exact:
        chosen = _worst_samples(reference_steps)
        if program.single_sample:
            chosen = chosen[:1]
        some = [a[chosen] for a in arrays]
        layers, given = compare_layers(
            content,
            program,
            inner_model(model),
            tree.map_structure(lambda a: ops.convert_to_numpy(a)[chosen], x),
            some,
            _fed(inputs, some),
        )
        within_bounds = is_exact or not (
            any(row.deviates for row in layers)
            or any(
                in_steps(a[chosen], b, scale).max() > tolerance_of(scale)
                for a, b, scale in zip(outputs, given, program.output_scales)
            )
        )
    steps = np.concatenate(steps)
    return ParityReport(
        num_samples=len(arrays[0]),
        num_outputs=steps.size,
        reference_exact=is_exact,
        reference_max_lsb=max(row.reference_max_lsb for row in rows),
        within_bounds=within_bounds and all(row.is_near for row in rows),
        max_lsb=max(row.max_lsb for row in rows),
        mean_lsb=float(steps.mean()),
        exact=float((steps < 0.5).mean()),
        top1_agreement=float(np.mean([row.top1_agreement for row in rows])),
        resolver=resolver,
        undelegated=undelegated,
        per_output=tuple(rows),
        layers=tuple(layers),
        outputs=outputs,
        predicted=predicted,
    )


def _top1_agreement(a, b):
    return float(np.mean(a.argmax(axis=-1) == b.argmax(axis=-1)))


def _worst_samples(reference_steps):
    """Numbers of the samples that are compared layer by layer."""
    worst = np.max(
        [d.reshape(len(d), -1).max(axis=1) for d in reference_steps], axis=0
    )
    return np.sort(np.argsort(-worst, kind="stable")[:_LAYER_SAMPLES])


def _as_arrays(model, program, x):
    if isinstance(x, dict):
        x = [x[t.name] for t in program.inputs]
    flat = [ops.convert_to_numpy(a) for a in tree.flatten(x)]
    if not flat or not len(flat[0]):
        raise ValueError("Verification needs at least one sample.")
    if len(flat) != len(program.inputs):
        raise ValueError(
            f"The model has {len(program.inputs)} inputs; "
            f"{len(flat)} arrays were given."
        )
    return [
        as_type(a, t.dtype or np.float32, f"the input '{t.name}'")
        for a, t in zip(flat, program.inputs)
    ]


def _batches(program, arrays):
    size = 1 if program.single_sample else _BATCH_SIZE
    for start in range(0, len(arrays[0]), size):
        yield [a[start : start + size] for a in arrays]


def _run_reference(program, arrays):
    made = [
        reference.run(program, batch) for batch in _batches(program, arrays)
    ]
    return [np.concatenate(parts) for parts in zip(*made)]


def _matched_inputs(filepath, file, program):
    """The file's inputs, and the program's input that each one is."""
    numbers = {t.name: i for i, t in enumerate(program.inputs)}
    names = [endpoint.name for endpoint in file.inputs]
    if len(names) == len(numbers) == 1:
        (endpoint,), (tensor,) = file.inputs, program.inputs
        if _is_shape(endpoint.shape[1:], tensor.shape):
            # Some models name an input anew when they are loaded.
            numbers = {endpoint.name: 0}
    if (
        sorted(names) != sorted(numbers)
        or len(file.outputs) != len(program.outputs)
        or any(
            not _is_shape(endpoint.shape[1:], tensor.shape)
            for endpoint, tensor in zip(file.outputs, program.outputs)
        )
    ):
        raise ValueError(
            f"The file '{filepath}' has the inputs {sorted(names)} and "
            f"{_shapes(file.outputs)} as outputs; the model has "
            f"{sorted(numbers)} and {_shapes(program.outputs, (1,))}. It was "
            "written from another model."
        )
    return [(endpoint, numbers[endpoint.name]) for endpoint in file.inputs]


def _is_shape(sizes, shape):
    """Whether sizes are a shape, in which some can be open."""
    return len(sizes) == len(shape) and all(
        b in (None, a) for a, b in zip(sizes, shape)
    )


def _shapes(tensors, batch=()):
    return [[*batch, *tensor.shape] for tensor in tensors]


def _fed(inputs, arrays):
    """What a caller feeds to the file's inputs, of their types."""
    return [_quantized(endpoint, arrays[i]) for endpoint, i in inputs]


def _timed_reference(program, arrays):
    """What the reference makes, and how long the file may take for a batch.

    A file is not much slower than its reference, so one that is was damaged:
    in a size, or in the condition of a loop.
    """
    start = time.perf_counter()
    expected = _run_reference(program, arrays)
    taken = time.perf_counter() - start
    return expected, OPEN_SECONDS + _SLOWER_THAN_REFERENCE * taken


def _run_file(program, file, inputs, arrays, seconds):
    """The file's real-valued outputs, in the order of the model's."""
    made = [
        file.run(_fed(inputs, batch), seconds)
        for batch in _batches(program, arrays)
    ]
    return [
        _dequantized(endpoint, np.concatenate(parts))
        for endpoint, parts in zip(file.outputs, zip(*made))
    ]


def _quantized(endpoint, array):
    if endpoint.type in ("float32", array.dtype.name):
        return array.astype(endpoint.type)
    codes = np.rint(array * (np.float32(1.0) / np.float32(endpoint.scale)))
    limits = np.iinfo(endpoint.type)
    codes = np.clip(codes + endpoint.zero_point, limits.min, limits.max)
    return codes.astype(endpoint.type)


def _dequantized(endpoint, array):
    if array.dtype == np.float32 or not endpoint.scale:
        return array  # real numbers; indices, which no grid has made
    codes = array.astype(np.int32) - endpoint.zero_point
    return codes * np.float32(endpoint.scale)
