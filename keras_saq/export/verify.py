"""`verify_litert`: does the file compute what the Keras model computes?"""

import dataclasses

import numpy as np
from keras import ops
from keras import tree

from keras_saq.export import reference
from keras_saq.export.litert import inner_model
from keras_saq.export.litert import lower_model

_BATCH_SIZE = 256
# Islands are float kernels; theirs and NumPy's exponential differ by this.
_ISLAND_TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """How a file's outputs compare, over every output of every sample.

    Differences are in output steps: multiples of the output's scale.

    Attributes:
        num_samples: samples that were run.
        num_outputs: outputs that were compared.
        reference_exact: whether the file equals the code-domain reference on
            every output.
        reference_max_lsb: largest difference from the reference.
        max_lsb: largest difference from `model.predict`.
        mean_lsb: mean difference from `model.predict`.
        exact: share of outputs that equal `model.predict`.
        top1_agreement: share of samples whose largest output is the same as
            that of `model.predict`.
        resolver: the kernels that ran.
        outputs: the file's real-valued outputs, one array per model output.
        predicted: those of `model.predict`.
    """

    num_samples: int
    num_outputs: int
    reference_exact: bool
    reference_max_lsb: float
    max_lsb: float
    mean_lsb: float
    exact: float
    top1_agreement: float
    resolver: str
    outputs: list = dataclasses.field(repr=False)
    predicted: list = dataclasses.field(repr=False)

    def __str__(self):
        verdict = "equal on all" if self.reference_exact else "NOT equal on all"
        return (
            f"file and code-domain reference: {verdict} {self.num_outputs:,} "
            f"outputs of {self.num_samples:,} samples, largest difference "
            f"{self.reference_max_lsb:g} steps ({self.resolver})\n"
            f"file and model.predict: largest difference {self.max_lsb:.0f} "
            f"steps, mean {self.mean_lsb:.4f}, {self.exact:.3%} equal, "
            f"top-1 agreement {self.top1_agreement:.2%}"
        )


def verify_litert(filepath, model, x):
    """Runs a file, the code-domain reference and the model on the same data.

    The reference is what the integer kernels are specified to compute
    (`keras_saq.export.reference`); the file must equal it exactly. The
    difference from `model.predict`, which computes in float32, is measured.

    Args:
        filepath: a file that `export_litert` wrote.
        model: the model it was written from.
        x: inputs: an array, or a list or dict of arrays, as for `predict`.

    Returns:
        A `ParityReport`; printed, it is two lines.

    Raises:
        ValueError: if the file cannot be read or is not of this model.
    """
    program = lower_model(model)
    arrays = _as_arrays(model, x)
    outputs, resolver = _run_file(filepath, program, arrays)
    expected = _run_reference(program, arrays)
    predicted = tree.flatten(
        inner_model(model).predict(x, batch_size=_BATCH_SIZE, verbose=0)
    )
    scales = [_step(scale) for scale in program.output_scales]
    reference_steps = _in_steps(outputs, expected, scales)
    steps = _in_steps(outputs, predicted, scales)
    tolerance = max(
        0.0 if scale is not None else _ISLAND_TOLERANCE / _step(None)
        for scale in program.output_scales
    )
    agreement = [
        np.mean(a.argmax(axis=-1) == b.argmax(axis=-1))
        for a, b in zip(outputs, predicted)
    ]
    return ParityReport(
        num_samples=len(arrays[0]),
        num_outputs=steps.size,
        reference_exact=bool(reference_steps.max() <= tolerance),
        reference_max_lsb=float(reference_steps.max()),
        max_lsb=float(np.rint(steps.max())),
        mean_lsb=float(steps.mean()),
        exact=float((steps < 0.5).mean()),
        top1_agreement=float(np.mean(agreement)),
        resolver=resolver,
        outputs=outputs,
        predicted=predicted,
    )


def _step(scale):
    """The unit of differences: 8 bits of [0, 1] for a float island."""
    return 1.0 / 256 if scale is None else float(scale)


def _in_steps(a, b, scales):
    """Absolute differences in steps, of all outputs in one array.

    Both come as float: integers times the scale, whose quotient is an integer
    again but for the last bit of float32, which is rounded away.
    """
    differences = [
        np.abs(p.astype(np.float64) - q.astype(np.float64)) / s
        for p, q, s in zip(a, b, scales)
    ]
    return np.concatenate([d.round(3).ravel() for d in differences])


def _as_arrays(model, x):
    if isinstance(x, dict):
        x = [x[t.name] for t in tree.flatten(model.inputs)]
    arrays = [
        np.asarray(ops.convert_to_numpy(a), np.float32) for a in tree.flatten(x)
    ]
    if not arrays or not len(arrays[0]):
        raise ValueError("Verification needs at least one sample.")
    return arrays


def _run_reference(program, arrays):
    batches = [
        reference.run(program, [a[i : i + _BATCH_SIZE] for a in arrays])
        for i in range(0, len(arrays[0]), _BATCH_SIZE)
    ]
    return [np.concatenate(parts) for parts in zip(*batches)]


def _run_file(filepath, program, arrays):
    """The file's real-valued outputs, and the kernels that made them."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_path=str(filepath))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"'{filepath}' is not a readable LiteRT file: {error}"
        ) from error
    runner = interpreter.get_signature_runner()
    inputs, outputs = runner.get_input_details(), runner.get_output_details()
    names = [t.name for t in program.inputs]
    if sorted(inputs) != sorted(names) or len(outputs) != len(program.outputs):
        raise ValueError(
            f"The file '{filepath}' has the inputs {sorted(inputs)} and "
            f"{len(outputs)} outputs; the model has {sorted(names)} and "
            f"{len(program.outputs)}. It was written from another model."
        )
    made = {t.name: [] for t in program.outputs}
    renamed = dict(zip(outputs, made)) if set(outputs) != set(made) else {}
    for start in range(0, len(arrays[0]), _BATCH_SIZE):
        batch = {
            name: _quantized(inputs[name], array[start : start + _BATCH_SIZE])
            for name, array in zip(names, arrays)
        }
        for name, value in runner(**batch).items():
            value = _dequantized(outputs[name], value)
            made[renamed.get(name, name)].append(value)
    delegated = any(
        op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details()
    )
    resolver = "XNNPACK" if delegated else "built-in kernels, no delegate"
    return [np.concatenate(parts) for parts in made.values()], resolver


def _quantized(details, array):
    """What a caller feeds to an input of the file's type."""
    dtype = details["dtype"]
    if dtype == np.float32:
        return array
    scale, zero_point = details["quantization"]
    codes = np.rint(array * (np.float32(1.0) / np.float32(scale))) + zero_point
    limits = np.iinfo(dtype)
    return np.clip(codes, limits.min, limits.max).astype(dtype)


def _dequantized(details, array):
    if array.dtype == np.float32:
        return array
    scale, zero_point = details["quantization"]
    return (array.astype(np.int32) - zero_point) * np.float32(scale)
