"""From sites to a fragment, by TensorFlow's converter.

The converter is asked for float graphs only: it is good at those, and knows
hundreds of operations. Where Keras runs on another backend, the sites go to a
process that has TensorFlow.
"""

import keras

from keras_saq.export.fragments.fragment import ConversionError
from keras_saq.export.fragments.fragment import Fragment
from keras_saq.export.fragments.quiet import quiet
from keras_saq.export.fragments.run import run
from keras_saq.export.fragments.substitutes import substituted
from keras_saq.models import randomness
from keras_saq.quantizers import composed_kernels


def convert(sites, inputs, outputs):
    """The fragment that computes values from others.

    Args:
        sites: list of `Site`, producers first.
        inputs: the `Value`s that come in, in order.
        outputs: the `Value`s that go out, in order.

    Returns:
        A `Fragment` whose inputs and outputs are these, in order: float32,
        int32, uint8 or bool.

    Raises:
        ConversionError: if LiteRT has no operator for something in it.
    """
    if keras.backend.backend() != "tensorflow":
        from keras_saq.export.fragments.elsewhere import convert_elsewhere

        return convert_elsewhere(sites, inputs, outputs)
    errors = []
    for single_sample in (False, True):
        try:
            content = _convert(sites, inputs, outputs, single_sample)
        except ConversionError as error:
            errors.append(error)
            continue
        return Fragment(content, _operators(content), single_sample)
    raise errors[0]


def file_dtype(dtype):
    """In which type a file has values of a Keras dtype."""
    if dtype in ("bool", "uint8"):
        return dtype
    return "int32" if "int" in dtype else "float32"


def _convert(sites, inputs, outputs, single_sample):
    import tensorflow as tf

    batch = 1 if single_sample else None

    def compute(*tensors):
        given = {
            value: tf.cast(tensor, value.dtype)
            for value, tensor in zip(inputs, tensors)
        }
        with composed_kernels(), substituted():
            made = run(sites, given)
        # Each output is a tensor of its own, even one that is an input.
        return [
            tf.identity(tf.cast(made[value], file_dtype(value.dtype)))
            for value in outputs
        ]

    specs = [
        tf.TensorSpec((batch, *value.shape[1:]), file_dtype(value.dtype))
        for value in inputs
    ]
    with randomness.noticed() as drawn:
        try:
            with quiet():
                content = _convert_function(tf, compute, specs)
        except Exception as error:  # whatever a `call` may raise
            cause = randomness.RANDOM if drawn else _cause(error)
            raise ConversionError(cause) from error
    if drawn:
        raise ConversionError(randomness.RANDOM)
    return content


def _convert_function(tf, compute, specs):
    from tensorflow.python.framework import convert_to_constants

    function = tf.function(compute, input_signature=specs, autograph=False)
    frozen = convert_to_constants.convert_variables_to_constants_v2(
        function.get_concrete_function(), lower_control_flow=False
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    return _with_sizes(converter.convert())


def _with_sizes(content):
    """The file, with sizes that LiteRT reads.

    The converter leaves some open sizes as -1 where only `shapeSignature` can
    have them.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    changed = False
    for tensor in [t for graph in model.subgraphs for t in graph.tensors]:
        sizes = [] if tensor.shape is None else list(tensor.shape)
        if min(sizes, default=0) < 0:
            tensor.shapeSignature = sizes
            tensor.shape = [max(size, 1) for size in sizes]
            changed = True
    if not changed:
        return content
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _cause(error):
    """The line of a converter's report that says what is missing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for line in lines:
        for mark in ("TF Select ops:", "Custom ops:"):
            if line.startswith(mark):
                return f"LiteRT has no {line.removeprefix(mark).strip()}"
    for line in lines:
        if "error:" in line:
            return line.rpartition("error:")[2].strip()
    return lines[0] if lines else type(error).__name__


def _operators(content):
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    names = {v: k for k, v in vars(schema.BuiltinOperator).items()}
    return tuple(
        names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        for graph in model.subgraphs
        for operator in ([] if graph.operators is None else graph.operators)
        for code in [model.operatorCodes[operator.opcodeIndex]]
    )
