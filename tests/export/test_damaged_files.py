"""Files that are no sound models: an error each time, never a crash."""

import functools
import json
import re
import time

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
from keras_saq.export.structure import read_structure
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
    # A tensor that may be left out, of other operators than DEQUANTIZE.
    model.subgraphs[0].operators[-1].inputs[0] = -1
    return packed(model)


def test_a_file_that_crashes_litert_is_an_error(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(crashing())
    model, _, content, x = exported()
    try:
        keras_saq.inspect_litert(path)
    except ValueError as error:
        assert re.search("damaged: LiteRT's interp.*SIGSEGV", str(error))
    else:
        pytest.skip("what is in front of the tensors was readable this time")
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


def _first_graph(model):
    return model.subgraphs[0]


def _loop(model):
    """A list of graphs that says it has more than the file has bytes."""
    model.subgraphs = model.subgraphs * 3
    model.signatureDefs[0].subgraphIndex = 3


CHANGES = {
    "names graph 7": lambda m: setattr(m.signatureDefs[0], "subgraphIndex", 7),
    "names graph 3": _loop,
    "names tensor 999": lambda m: setattr(
        m.signatureDefs[0].inputs[0], "tensorIndex", 999
    ),
    "a tensor that is none": lambda m: (
        _first_graph(m).operators[0].outputs.__setitem__(0, 999)
    ),
    "names operator code 99": lambda m: setattr(
        _first_graph(m).operators[1], "opcodeIndex", 99
    ),
    "names buffer 5000": lambda m: setattr(
        _first_graph(m).tensors[2], "buffer", 5000
    ),
    "bytes are stored|are stored": lambda m: next(
        t for t in _first_graph(m).tensors if t.name.endswith(b"weights")
    ).shape.__setitem__(0, 2**20),
    "shape is none": lambda m: (
        _first_graph(m).tensors[0].shape.__setitem__(1, -8)
    ),
    "negative or not finite": lambda m: (
        _first_graph(m).tensors[1].quantization.scale.__setitem__(0, np.nan)
    ),
    "has no graph": lambda m: setattr(m, "subgraphs", []),
    "unknown type": lambda m: setattr(_first_graph(m).tensors[0], "type", 99),
}


@pytest.mark.parametrize("message", CHANGES)
def test_the_structure_is_checked_before_litert(message, monkeypatch):
    model = parsed(exported()[2])
    CHANGES[message](model)
    monkeypatch.setattr(isolated, "_shared_process", None)  # is not asked
    with pytest.raises(ValueError, match=f"'x' is damaged: .*({message})"):
        read_contents("x", packed(model))


def test_one_table_that_is_pointed_to_without_end():
    """A small file of which every pointer leads to the same large list."""
    import struct

    # 20,000 graphs that are one table, of 20,000 tensors that are one table.
    count = 20_000
    content = bytearray(struct.pack("<I4s", 40, b"TFL3"))
    content += struct.pack("<10H", 20, 8, *[0] * 8)  # of the empty tensor
    content += struct.pack("<4H", 8, 8, 0, 0)
    content += struct.pack("<HH", 0, 0)
    start = len(content)
    assert start == 40
    # Model: a table whose third field is the list of graphs.
    content += struct.pack("<i", 0)  # place of its fields, set below
    content += struct.pack("<I", 0)
    model_fields = len(content)
    content += struct.pack("<6H", 12, 8, 0, 0, 4, 0)
    struct.pack_into("<i", content, start, start - model_fields)
    graphs = len(content)
    struct.pack_into("<I", content, start + 4, graphs - (start + 4))
    content += struct.pack("<I", count) + bytes(4 * count)
    graph = len(content)
    content += struct.pack("<iI", 0, 0)
    graph_fields = len(content)
    content += struct.pack("<4H", 8, 8, 4, 0)
    struct.pack_into("<i", content, graph, graph - graph_fields)
    tensors = len(content)
    struct.pack_into("<I", content, graph + 4, tensors - (graph + 4))
    content += struct.pack("<I", count) + bytes(4 * count)
    tensor = len(content)
    content += struct.pack("<i", 0) + struct.pack("<2H", 4, 4)
    struct.pack_into("<i", content, tensor, -4)
    for i in range(count):
        for table, target in ((graphs, graph), (tensors, tensor)):
            place = table + 4 + 4 * i
            struct.pack_into("<I", content, place, target - place)
    start = time.process_time()
    with pytest.raises(ValueError, match="is damaged: "):
        read_contents("x", bytes(content))
    assert time.process_time() - start < 20


def test_a_loop_without_end_is_stopped(monkeypatch):
    """A file that is sound, and whose condition is always true."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((1, 4), name="x")])
    def function(x):
        return tf.while_loop(
            lambda i, x: i > -1, lambda i, x: (i * 1, x * 1.0), (0, x)
        )[1]

    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function()]
    )
    content = converter.convert()
    assert FileReport(**read_contents("loop", content)).problem is None
    with isolated.IsolatedFile(content) as file:
        with pytest.raises(isolated.FileError, match="processor time") as info:
            file.run([np.ones((1, 4), np.float32)], seconds=1)
        assert info.value.crashed


def test_tensors_that_no_machine_holds_are_not_tried():
    model = parsed(exported()[2])
    graph = _first_graph(model)
    graph.tensors[graph.inputs[0]].shape = [2**16] * 4
    report = FileReport(**read_contents("large", packed(model)))
    assert "bytes of memory" in report.problem


def test_sizes_and_work_of_a_file():
    structure = read_structure(exported()[2])
    layers = exported()[0].layers
    assert structure.multiplications > layers[0].kernel.shape[0]
    assert structure.tensor_bytes > 8 * 8 * 4
    assert [code.name for code in structure.codes][0] == "QUANTIZE"
