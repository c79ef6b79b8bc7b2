"""The integer file: its size, what computes in float, and the proof."""

import pathlib

from keras_saq.export import ExportReport
from keras_saq.export.dynamic import program_of
from keras_saq.export.padding import with_fused_padding
from keras_saq.export.report import export_report
from keras_saq.export.verify import verify_content
from keras_saq.models.wrapper import inner_model


def read(file, model, x, parity):
    """Inspects a file and, where there is data, verifies it.

    Args:
        file: path of a `.tflite` file, or an `ExportReport`; or `None`.
        model: the Keras model that it was written from.
        x: inputs to verify it on, or `None`.
        parity: a `ParityReport` that was made before, or `None`.

    Returns:
        `(ExportReport or None, ParityReport or None)`.

    Raises:
        ValueError: if the file cannot be read or is not of this model.
    """
    if file is None or isinstance(file, ExportReport):
        if parity is None and file is not None:
            parity = file.parity
        return file, parity
    try:
        content = pathlib.Path(file).read_bytes()
    except OSError as error:
        raise ValueError(
            f"'{file}' cannot be read: {error.strerror or error}"
        ) from error
    program = program_of(file, content, model)
    report = export_report(
        file, content, with_fused_padding(program), inner_model(model)
    )
    _check_inputs(file, report, program)
    if parity is None and x is not None:
        parity = verify_content(content, file, model, program, x, True)
    return report, parity


def _check_inputs(file, report, program):
    there = sorted(t.name for t in report.inputs)
    here = sorted(t.name for t in program.inputs)
    if there != here or len(report.outputs) != len(program.outputs):
        raise ValueError(
            f"The file '{file}' has the inputs {there} and "
            f"{len(report.outputs)} outputs; the model has {here} and "
            f"{len(program.outputs)}. It was written from another model."
        )


def describe(report):
    """Dict: an `ExportReport` without its path and its parity."""
    found = report.to_dict()
    del found["parity"]
    found["name"] = pathlib.Path(found.pop("path")).name
    return found
