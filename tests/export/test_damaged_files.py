"""Files that are no sound models: an error each time, never a crash."""

import functools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

import keras_saq
from keras_saq.export import isolated
from keras_saq.export.contents import read_contents
from keras_saq.export.file_report import FileReport
from keras_saq.export.lower import lower_model
from keras_saq.export.verify import verify_content
from tests import networks


@functools.cache
def exported():
    """Model, its program, its file's bytes and inputs."""
    import pathlib
    import tempfile

    x, _ = networks.images(4)
    model = keras_saq.quantize_model(
        networks.sequential_network(), "w4a8", calibration=x
    )
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "m.tflite"
        keras_saq.export_litert(model, path)
        return model, lower_model(model), path.read_bytes(), x


def parsed(content):
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model_from_bytearray(bytearray(content))


def packed(model):
    from ai_edge_litert.tools import flatbuffer_utils

    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


places = st.integers(0, 2**31)
flips = st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=9)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(flips=flips, end=st.one_of(st.none(), st.none(), places))
def test_flipped_bytes_and_truncations(flips, end):
    model, program, content, x = exported()
    damaged = bytearray(content)
    for place, value in flips:
        damaged[place % len(damaged)] = value
    if end is not None:
        damaged = damaged[: end % len(damaged)]
    try:
        report = FileReport(**read_contents("damaged", bytes(damaged)))
        json.loads(report.to_json())
        assert str(report).startswith("damaged: ")
    except ValueError as error:
        assert "'damaged' is" in str(error)
    try:
        parity = verify_content(bytes(damaged), "damaged", model, program, x)
        assert isinstance(parity.within_bounds, bool)
    except ValueError as error:
        assert "'damaged'" in str(error)


def crashing():
    """A file on which the interpreter itself ends with a signal."""
    model = parsed(exported()[2])
    model.signatureDefs[0].subgraphIndex = 7
    return packed(model)


def test_a_file_that_crashes_litert_is_an_error(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(crashing())
    model, _, content, x = exported()
    with pytest.raises(ValueError, match="damaged: LiteRT's interp.*SIGSEGV"):
        keras_saq.inspect_litert(path)
    with pytest.raises(ValueError, match="not a readable .*crashed on it"):
        keras_saq.verify_litert(path, model, x)
    # The next file finds a fresh process.
    path.write_bytes(content)
    assert keras_saq.verify_litert(path, model, x).reference_exact


def test_a_file_that_does_not_end_is_an_error():
    content = np.frombuffer(exported()[2], np.uint8)
    process = isolated.Process()
    request = {"request": "time", "num_threads": 1, "delegate": True}
    with pytest.raises(isolated.FileError, match="finish within 1 sec") as info:
        process.ask(
            {**request, "rounds": 10**8, "warmup": 1}, [content], timeout=1
        )
    assert info.value.crashed and not process.is_running


def test_a_file_with_operators_that_litert_lacks_is_read_all_the_same():
    from ai_edge_litert import schema_py_generated as schema

    model = parsed(exported()[2])
    code = next(
        c
        for c in model.operatorCodes
        if c.builtinCode == schema.BuiltinOperator.MAX_POOL_2D
    )
    code.builtinCode = code.deprecatedBuiltinCode = (
        schema.BuiltinOperator.CUSTOM
    )
    code.customCode = "MyPool"
    report = FileReport(**read_contents("custom", packed(model)))
    assert "MyPool" in report.problem and report.operators["MyPool"] == 2
    assert {o.is_delegated for o in report.operations} == {None}
    assert "LiteRT does not load it here" in str(report)


def test_a_foreign_file_is_read(tmp_path):
    import tensorflow as tf

    weights = tf.constant(np.eye(6, 4, dtype="float32"))

    @tf.function(input_signature=[tf.TensorSpec((1, 6), name="x")])
    def function(x):
        return tf.nn.softmax(tf.nn.relu(x @ weights))

    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function()]
    )
    path = tmp_path / "foreign.tflite"
    path.write_bytes(converter.convert())
    report = keras_saq.inspect_litert(path)
    assert report.operators == {"FULLY_CONNECTED": 1, "SOFTMAX": 1}
    assert report.float_operators == ("FULLY_CONNECTED", "SOFTMAX")
    assert report.undelegated == () and report.problem is None
    (source,) = report.inputs
    assert source.shape == (1, 6) and source.type == "FLOAT32"
    assert any(t.num_bytes == 6 * 4 * 4 for t in report.tensors)
    assert report.file_bytes == path.stat().st_size
    with pytest.raises(ValueError, match="written from another model"):
        keras_saq.verify_litert(path, exported()[0], np.zeros((1, 6)))


def test_a_file_with_two_graphs_is_read():
    """A loop: the body is a graph of its own."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((1, 4), name="x")])
    def function(x):
        return tf.while_loop(
            lambda i, x: i < 3, lambda i, x: (i + 1, x * 2.0), (0, x)
        )[1]

    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function()]
    )
    content = converter.convert()
    report = FileReport(**read_contents("loop", content))
    assert report.num_subgraphs == 3 and report.operators["WHILE"] == 1
    assert report.operators["MUL"] == 1
    assert "WHILE" in str(report)
