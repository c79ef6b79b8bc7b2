"""`export_litert`: writes a quantized model as an integer LiteRT file."""

import dataclasses
import os
import pathlib

from keras_saq.export.dynamic import require_dynamic
from keras_saq.export.flatbuffer import to_bytes
from keras_saq.export.guards import with_size_guards
from keras_saq.export.input_shapes import input_shapes_of
from keras_saq.export.io_types import with_io_types
from keras_saq.export.lower import lower_model
from keras_saq.export.padding import with_fused_padding
from keras_saq.export.patches import with_packed_convolutions
from keras_saq.export.report import export_report
from keras_saq.models.wrapper import inner_model
from keras_saq.whole_file import replaced
from keras_saq.whole_file import target


def export_litert(
    model,
    filepath,
    input_type="float32",
    output_type="float32",
    verify=None,
    require_exact=False,
    storage="exact",
    dynamic_range=False,
    input_shape=None,
):
    """Writes a quantized model as an integer `.tflite` file.

    Batch normalization is folded into the scales, biases are the integers of
    the training forward, Dense and 1x1 convolution weights of at most 4 bits
    are stored packed (INT4, INT2), and every other weight as INT8. The file
    takes any batch size. It appears whole or not at all.

    A model with quantized weights alone (presets `"w8"`, `"w4"`) becomes a
    file that computes in float, from weights that are stored as codes.

    Args:
        model: a model from `keras_saq.quantize_model` with the `"litert"`
            scheme, or a `SAQModel` around one.
        filepath: where the file goes; ends in `.tflite`.
        input_type: `"float32"`, `"int8"` or `"uint8"`.
        output_type: `"float32"`, `"int8"` or `"uint8"`.
        verify: inputs as for `predict`, or `None`. The file is compared with
            the code-domain reference and the model on them, as by
            `keras_saq.verify_litert`, and the report says how.
        require_exact: whether an export with `verify` fails, and leaves no
            file, where an operator computes something else than the
            reference says it does.
        storage: `"exact"`: weights are packed where the kernel that reads
            them is exact and fast, Dense and 1x1 convolutions. `"small"`:
            those of larger convolutions too, which are then computed as
            Dense on patches, exactly and more slowly, and those that are
            stored for float kernels. `"int8"`: one byte per code.
        dynamic_range: of a model with quantized weights alone, whether Dense
            and convolution kernels read the codes, and round their input to
            8 bits in the range of each sample; integer arithmetic, with an
            error that training has not seen.
        input_shape: sizes for what is `None` in the shapes of the model's
            inputs, such as height and width: a shape without the batch axis,
            or a list or dict of shapes. Without it they stay open.

    Returns:
        An `ExportReport`.

    Raises:
        ValueError: if the model is not quantized or not calibrated, if a
            layer has no integer form, if the path cannot be written, if
            LiteRT does not load the file, or if `require_exact` is not met.
        OSError: if writing fails, on a full disk for example; an older file
            stays.

    Example:

    >>> import keras, keras_saq, numpy as np, tempfile
    >>> inputs = keras.Input((16,))
    >>> model = keras.Model(inputs, keras.layers.Dense(4)(inputs))
    >>> x = np.linspace(-1, 1, 64, dtype="float32").reshape(4, 16)
    >>> q = keras_saq.quantize_model(model, "w4a8", calibration=x)
    >>> path = tempfile.mkdtemp() + "/m.tflite"
    >>> keras_saq.export_litert(q, path).operators
    {'QUANTIZE': 1, 'FULLY_CONNECTED': 1, 'DEQUANTIZE': 1}
    """
    path = _check_path(filepath)
    if require_exact and verify is None:
        raise ValueError(
            "`require_exact=True` needs data to compare on: pass inputs of "
            "the model as `verify=x`."
        )
    shapes = input_shapes_of(model, input_shape)
    program = lower_model(model, storage, dynamic_range, shapes)
    if dynamic_range:
        require_dynamic(program)
    program = with_size_guards(with_fused_padding(program))
    if storage == "small":
        program = with_packed_convolutions(program)
    program = with_io_types(program, input_type, output_type)
    content = to_bytes(program)
    report = export_report(path, content, program, inner_model(model))
    if verify is not None:
        program = lower_model(
            model, dynamic_range=dynamic_range, input_shapes=shapes
        )
        report = _verified(
            report, content, model, program, verify, require_exact
        )
    _write_whole(path, content)
    return report


def _verified(report, content, model, program, x, require_exact):
    """The report with a comparison of file and model on `x`."""
    from keras_saq.export.verify import verify_content

    parity = verify_content(content, report.path, model, program, x)
    if require_exact and not parity.within_bounds:
        raise ValueError(
            f"'{report.path}' was not written, because the file does not "
            f"compute what it should:\n{parity}"
        )
    return dataclasses.replace(report, parity=parity)


def _check_path(filepath):
    path = pathlib.Path(filepath)
    if path.suffix != ".tflite":
        raise ValueError(
            "The file name of a LiteRT model must end in '.tflite'. "
            f"Received: {filepath}"
        )
    if path.is_dir():
        raise ValueError(f"'{filepath}' is not a writable path.")
    folder = target(path).parent
    if not folder.is_dir():
        raise ValueError(
            f"The folder '{folder}' does not exist. Create it first. "
            f"Received: {filepath}"
        )
    if not os.access(folder, os.W_OK):
        raise ValueError(f"'{filepath}' is not a writable path.")
    return path


def _write_whole(path, content):
    with replaced(path) as file:
        file.write(content)
