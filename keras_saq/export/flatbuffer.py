"""Writes an integer program as a LiteRT (`.tflite`) flatbuffer.

The file is built from the schema's own object classes, operator by operator:
no converter guesses at the graph, so nothing can be dropped, reordered or
kept in float without being written here.
"""

import numpy as np

from keras_saq.export.program import KINDS

_SCHEMA_VERSION = 3
_BATCH = 1
# Versions at which LiteRT's kernels learned what we use, by operator.
_VERSIONS = {
    "ADD": 2,
    "CONCATENATION": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "DEQUANTIZE": 2,
    "FULLY_CONNECTED": 5,
    "LOGISTIC": 1,
    "MAX_POOL_2D": 2,
    "MEAN": 2,
    "PAD": 2,
    "QUANTIZE": 2,
    "RESHAPE": 1,
    "SLICE": 2,
    "SPACE_TO_DEPTH": 2,
    "SOFTMAX": 1,
    "TANH": 1,
}
_ACTIVATIONS = {"linear": "NONE", "relu": "RELU", "relu6": "RELU6"}


def to_bytes(program):
    """The file's bytes."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = _Writer(program).model
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


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
        self._tensors = []
        self._buffers = [schema.BufferT()]  # buffer 0 is the empty one
        self._codes = {}
        self._index = {}
        self._operators = []
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
        graph.operators = self._operators
        graph.inputs = [self._index[id(t)] for t in program.inputs]
        graph.outputs = [self._index[id(t)] for t in program.outputs]
        model = schema.ModelT()
        model.version = _SCHEMA_VERSION
        model.description = "keras_saq"
        model.subgraphs = [graph]
        model.buffers = self._buffers
        model.operatorCodes = list(self._codes.values())
        signature = schema.SignatureDefT()
        signature.signatureKey = "serving_default"
        signature.subgraphIndex = 0
        signature.inputs = self._signature(program.inputs)
        signature.outputs = self._signature(program.outputs)
        model.signatureDefs = [signature]
        return model

    def _signature(self, tensors):
        entries = []
        for tensor in tensors:
            entry = self._schema.TensorMapT()
            entry.name = tensor.name
            entry.tensorIndex = self._index[id(tensor)]
            entries.append(entry)
        return entries

    # --- Tensors

    def _add_tensor(self, tensor):
        types = self._schema.TensorType
        made = self._new_tensor(
            tensor.name,
            (_BATCH, *tensor.shape),
            types.FLOAT32
            if tensor.is_float
            else types.UINT8
            if tensor.is_uint8
            else types.INT8,
        )
        made.shapeSignature = [-1, *tensor.shape]
        if not tensor.is_float:
            self._set_quantization(made, [tensor.scale], [tensor.zero_point])
        self._index[id(tensor)] = len(self._tensors) - 1
        return self._index[id(tensor)]

    def _new_tensor(self, name, shape, tensor_type, data=None):
        tensor = self._schema.TensorT()
        tensor.name = name
        tensor.shape = [int(n) for n in shape]
        tensor.type = tensor_type
        tensor.hasRank = True
        tensor.buffer = 0
        if data is not None:
            buffer = self._schema.BufferT()
            buffer.data = np.ascontiguousarray(data).view(np.uint8).ravel()
            self._buffers.append(buffer)
            tensor.buffer = len(self._buffers) - 1
        self._tensors.append(tensor)
        return tensor

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
        inputs = [self._index[id(t)] for t in op.inputs]
        if op.weights is not None:
            inputs += self._add_weights(op)
        options_type, options = self._options(op)
        if op.kind == "mean":
            inputs.append(self._add_constant(f"{op.output.name}/axes", [1, 2]))
        elif op.kind == "pad":
            pads = [(0, 0), *op.options["padding"], (0, 0)]
            name = f"{op.output.name}/padding"
            inputs.append(self._add_constant(name, pads))
        elif op.kind == "reshape":
            shape = [-1, *op.output.shape]
            name = f"{op.output.name}/shape"
            inputs.append(self._add_constant(name, shape))
        elif op.kind == "slice":
            begin = [0, *op.options["begin"]]
            name = f"{op.output.name}/begin"
            inputs.append(self._add_constant(name, begin))
            size = [-1, *op.output.shape]
            name = f"{op.output.name}/size"
            inputs.append(self._add_constant(name, size))
        operator = self._schema.OperatorT()
        operator.inputs = inputs
        operator.outputs = [self._add_tensor(op.output)]
        operator.opcodeIndex = self._code_index(op)
        if options is not None:
            kinds = self._schema.BuiltinOptions
            operator.builtinOptionsType = getattr(kinds, options_type)
            operator.builtinOptions = options
        self._operators.append(operator)

    def _code_index(self, op):
        name = KINDS[op.kind]
        version = _VERSIONS[name]
        if op.weights is not None and op.weights.num_bits < 8:
            # INT4 weights came with version 10, and per-channel ones with 12.
            version = 12
        elif (
            op.kind == "conv"
            and op.weights.codes.shape[3] != (op.inputs[0].shape[-1])
        ):
            version = 6  # grouped
        key = (name, version)
        if key not in self._codes:
            code = self._schema.OperatorCodeT()
            number = getattr(self._schema.BuiltinOperator, name)
            code.builtinCode = number
            code.deprecatedBuiltinCode = min(number, 127)
            code.version = version
            self._codes[key] = code
        return list(self._codes).index(key)

    def _options(self, op):
        """Name and object of the operator's builtin options."""
        schema = self._schema
        activation = getattr(
            schema.ActivationFunctionType, _ACTIVATIONS[op.activation]
        )
        if op.kind in ("conv", "depthwise"):
            conv = op.kind == "conv"
            name = "Conv2DOptions" if conv else "DepthwiseConv2DOptions"
            options = getattr(schema, f"{name}T")()
            self._set_window(options, op)
            options.dilationHFactor, options.dilationWFactor = op.options[
                "dilation"
            ]
            if not conv:
                options.depthMultiplier = op.options["depth_multiplier"]
        elif op.kind == "max_pool":
            name = "Pool2DOptions"
            options = schema.Pool2DOptionsT()
            self._set_window(options, op)
            options.filterHeight, options.filterWidth = op.options["window"]
        elif op.kind == "fully_connected":
            name = "FullyConnectedOptions"
            options = schema.FullyConnectedOptionsT()
            options.keepNumDims = len(op.output.shape) > 1
        elif op.kind == "add":
            name = "AddOptions"
            options = schema.AddOptionsT()
            options.potScaleInt16 = False
        elif op.kind == "concatenate":
            name = "ConcatenationOptions"
            options = schema.ConcatenationOptionsT()
            options.axis = op.options["axis"]
        elif op.kind == "mean":
            name = "ReducerOptions"
            options = schema.ReducerOptionsT()
            options.keepDims = op.options["keep_dims"]
        elif op.kind == "space_to_depth":
            name = "SpaceToDepthOptions"
            options = schema.SpaceToDepthOptionsT()
            options.blockSize = op.options["block_size"]
        elif op.kind == "softmax":
            name = "SoftmaxOptions"
            options = schema.SoftmaxOptionsT()
            options.beta = 1.0
        else:
            return None, None
        if hasattr(options, "fusedActivationFunction"):
            options.fusedActivationFunction = activation
        return name, options

    def _set_window(self, options, op):
        options.padding = getattr(
            self._schema.Padding, op.options["padding"].upper()
        )
        options.strideH, options.strideW = op.options["strides"]
