"""Writes an integer program as a LiteRT (`.tflite`) flatbuffer.

The file is built from the schema's own object classes, operator by operator:
no converter guesses at the graph, so nothing can be dropped, reordered or
kept in float without being written here.
"""

import numpy as np

from keras_saq.export import compact
from keras_saq.export.kernels import KERNELS
from keras_saq.export.kernels import dynamic

_SCHEMA_VERSION = 3
_BATCH = 1
# What an open size is until the caller resizes the input: large enough for
# the windows and strides of most networks, since LiteRT plans memory for it.
_OPEN_SIZE = 64
_ACTIVATIONS = {"linear": "NONE", "relu": "RELU", "relu6": "RELU6"}


def to_bytes(program):
    """The file's bytes."""
    return compact.to_bytes(_Writer(program).model)


def pack(codes, num_bits):
    """Codes as bytes; 2- and 4-bit codes packed, the first one lowest.

    >>> import numpy as np
    >>> from keras_saq.export.flatbuffer import pack
    >>> pack(np.array([1, -1, 7]), 4).tolist()
    [241, 7]
    """
    flat = np.asarray(codes, dtype=np.int8).ravel()
    if num_bits == 8:
        return flat.view(np.uint8)
    per_byte = 8 // num_bits
    flat = np.pad(flat, (0, -len(flat) % per_byte))
    fields = (flat.view(np.uint8) & (2**num_bits - 1)).reshape(-1, per_byte)
    shifts = np.arange(per_byte, dtype=np.uint8) * num_bits
    return np.bitwise_or.reduce(fields << shifts, axis=1).astype(np.uint8)


class _Writer:
    def __init__(self, program):
        from ai_edge_litert import schema_py_generated as schema

        self._schema = schema
        self._single_sample = program.single_sample
        self.subgraphs = []  # behind the first
        self._tensors = []
        self._buffers = [schema.BufferT()]  # buffer 0 is the empty one
        self._codes = {}
        self._index = {}
        self.operators = []
        for tensor in program.inputs:
            self._add_tensor(tensor)
        for op in program.ops:
            self._add_op(op)
        self.model = self._make_model(program)

    def _make_model(self, program):
        schema = self._schema
        graph = schema.SubGraphT()
        graph.name = "main"
        graph.tensors = self._tensors
        graph.operators = self.operators
        graph.inputs = [self._index[id(t)] for t in program.inputs]
        graph.outputs = [self._index[id(t)] for t in program.outputs]
        model = schema.ModelT()
        model.version = _SCHEMA_VERSION
        model.description = "keras_saq"
        model.subgraphs = [graph, *self.subgraphs]
        model.buffers = self._buffers
        model.operatorCodes = list(self._codes.values())
        signature = schema.SignatureDefT()
        signature.signatureKey = "serving_default"
        signature.subgraphIndex = 0
        names = [tensor.name for tensor in program.inputs]
        signature.inputs = self._signature(names, program.inputs)
        names = program.output_names or [t.name for t in program.outputs]
        signature.outputs = self._signature(names, program.outputs)
        model.signatureDefs = [signature]
        return model

    def _signature(self, names, tensors):
        entries = []
        for name, tensor in zip(names, tensors):
            entry = self._schema.TensorMapT()
            entry.name = name
            entry.tensorIndex = self._index[id(tensor)]
            entries.append(entry)
        return entries

    # --- Tensors

    def index_of(self, tensor):
        """Where a tensor is in the file; constants come with their reader."""
        if id(tensor) not in self._index:
            self._add_tensor(tensor)
        return self._index[id(tensor)]

    def _add_tensor(self, tensor):
        sizes = [_OPEN_SIZE if n is None else n for n in tensor.shape]
        shape = (_BATCH * tensor.rows, *sizes)
        data = None
        if tensor.is_static:
            shape = tensor.shape
        if tensor.is_constant:
            data = self._packed(tensor)
        made = self._new_tensor(tensor.name, shape, self._type(tensor), data)
        if not tensor.is_static:
            batch = _BATCH if self._single_sample else -1
            sizes = [-1 if n is None else n for n in tensor.shape]
            made.shapeSignature = [batch, *sizes]
        if tensor.scale is not None:
            scale = np.atleast_1d(tensor.scale)
            points = np.full(len(scale), tensor.zero_point)
            self._set_quantization(made, scale, points, tensor.axis)
        self._index[id(tensor)] = len(self._tensors) - 1
        return self._index[id(tensor)]

    def _type(self, tensor):
        types = self._schema.TensorType
        if tensor.is_float:
            return types.FLOAT32
        if tensor.dtype is not None:
            return getattr(types, tensor.dtype.upper())
        if tensor.is_uint8:
            return types.UINT8
        return {2: types.INT2, 4: types.INT4, 8: types.INT8}[tensor.num_bits]

    @staticmethod
    def _packed(tensor):
        if tensor.is_float:
            return np.asarray(tensor.data, np.float32)
        return pack(tensor.data, tensor.num_bits)

    def _new_tensor(self, name, shape, tensor_type, data=None):
        tensor = self._schema.TensorT()
        tensor.name = name
        tensor.shape = [int(n) for n in shape]
        tensor.type = tensor_type
        tensor.hasRank = True
        tensor.buffer = 0
        if data is not None:
            data = np.ascontiguousarray(data).view(np.uint8).ravel()
            tensor.buffer = self.add_buffer(data)
        self._tensors.append(tensor)
        return tensor

    def add_buffer(self, data):
        """The number of a new buffer with these bytes."""
        buffer = self._schema.BufferT()
        buffer.data = data
        self._buffers.append(buffer)
        return len(self._buffers) - 1

    def knows(self, tensor):
        """Whether a tensor of the program is in the file already."""
        return id(tensor) in self._index

    def add_foreign(self, tensor):
        """The number of a tensor that is the schema's object already."""
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def _set_quantization(self, tensor, scale, zero_point, axis=0):
        quantization = self._schema.QuantizationParametersT()
        quantization.scale = np.asarray(scale, dtype=np.float32)
        quantization.zeroPoint = np.asarray(zero_point, dtype=np.int64)
        quantization.quantizedDimension = axis
        tensor.quantization = quantization

    def _add_constant(self, name, values):
        values = np.asarray(values, dtype=np.int32)
        self._new_tensor(
            name, values.shape, self._schema.TensorType.INT32, values
        )
        return len(self._tensors) - 1

    def _add_weights(self, op):
        types = self._schema.TensorType
        weights, name = op.weights, op.output.name
        tensor_type = {2: types.INT2, 4: types.INT4, 8: types.INT8}
        tensor = self._new_tensor(
            f"{name}/weights",
            weights.codes.shape,
            tensor_type[weights.num_bits],
            pack(weights.codes, weights.num_bits),
        )
        zeros = np.zeros(len(weights.scale), np.int64)
        self._set_quantization(tensor, weights.scale, zeros, weights.axis)
        index = len(self._tensors) - 1
        bias = self._new_tensor(
            f"{name}/bias",
            weights.bias.shape,
            types.INT32,
            weights.bias.astype(np.int32),
        )
        bias_scale = np.float32(op.inputs[0].scale) * weights.scale
        self._set_quantization(bias, bias_scale, zeros)
        return [index, index + 1]

    # --- Operators

    def _add_op(self, op):
        kernel = KERNELS[op.kind]
        if kernel.write is not None:
            kernel.write(self, op)
            return
        inputs = [self.index_of(t) for t in op.inputs]
        if op.weights is not None:
            inputs += self._add_weights(op)
        constants = [
            self._add_constant(f"{op.output.name}/{name}", values)
            for name, values in kernel.constants(op).items()
        ]
        if kernel.operator == "TRANSPOSE_CONV":
            source, weights, *bias = inputs
            inputs = [*constants, weights, source, *bias]
        else:
            inputs += constants
        operator = self._schema.OperatorT()
        operator.inputs = inputs
        operator.outputs = [self._add_tensor(op.output)]
        operator.opcodeIndex = self.code_index(kernel.operator, _version(op))
        options = kernel.options(op, self._schema)
        if options is not None:
            if hasattr(options, "fusedActivationFunction"):
                options.fusedActivationFunction = getattr(
                    self._schema.ActivationFunctionType,
                    _ACTIVATIONS[op.activation],
                )
            kinds = self._schema.BuiltinOptions
            name = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(kinds, name)
            operator.builtinOptions = options
        self.operators.append(operator)

    def copied_code_index(self, code):
        """The number of a code that is the schema's object already."""
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        return self._numbered(number, code.version)

    def code_index(self, name, version):
        """The number of an operator's code; `name` is LiteRT's."""
        number = getattr(self._schema.BuiltinOperator, name)
        return self._numbered(number, version)

    def _numbered(self, number, version):
        key = (number, version)
        if key not in self._codes:
            code = self._schema.OperatorCodeT()
            code.builtinCode = number
            code.deprecatedBuiltinCode = min(number, 127)
            code.version = version
            self._codes[key] = code
        return list(self._codes).index(key)


def _version(op):
    """The version of an operator that has what a call of it uses."""
    weights = op.inputs[1] if op.kind in dynamic.KERNELS else op.weights
    if weights is not None and weights.num_bits < 8:
        # INT4 weights came with version 10, and per-channel ones with 12.
        return 12
    if op.kind == "conv":
        channels = op.inputs[0].shape[-1]
        kernel = op.inputs[1] if op.weights is None else op.weights.codes
        if kernel.shape[3] != channels:
            return 6  # grouped
    return KERNELS[op.kind].version
