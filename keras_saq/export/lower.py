"""From a quantized Keras model to an integer program.

Walks the model's graph once. Layers that one kernel computes are collected
(`Pending`) until a quantizer gives the output its scale. Whatever cannot be
an integer kernel is refused by name, or becomes a declared float island.
"""

import numpy as np
from keras import layers
from keras import ops

from keras_saq.export.pending import Pending
from keras_saq.export.program import Op
from keras_saq.export.program import Program
from keras_saq.export.program import Tensor
from keras_saq.export.refusals import ISLANDS
from keras_saq.export.refusals import check_inputs
from keras_saq.export.refusals import refuse_unsupported
from keras_saq.layers import Quantized
from keras_saq.layers import kinds
from keras_saq.layers.batch_normalization import LONE_CODE
from keras_saq.layers.batch_normalization import bias_in_steps
from keras_saq.layers.batch_normalization import slope_and_offset
from keras_saq.layers.storage import is_packable
from keras_saq.layers.storage import storage_bits
from keras_saq.layers.weights import is_weighted
from keras_saq.models.graph import Graph

_INT8_MIN, _INT8_MAX = -128, 127


def lower(model):
    """The integer program of a calibrated quantized model.

    Args:
        model: a model from `keras_saq.quantize_model`.

    Returns:
        A `Program` whose inputs and outputs are float.

    Raises:
        ValueError: if a layer has no integer kernel; names all of them.
    """
    return _Lowering(Graph(model)).program


class _Lowering:
    def __init__(self, graph):
        self._graph = graph
        self._ops = []
        self._values = {}
        self._islands = []
        self._names = set()
        refuse_unsupported(graph)
        inputs = []
        for value in graph.inputs:
            self._values[value] = self._tensor(value.name, value.shape[1:])
            inputs.append(self._values[value])
        for site in graph.sites:
            self._values[site.outputs[0]] = self._lower(site)
        outputs, scales = [], []
        for value in graph.outputs:
            tensor = self._values[value]
            if isinstance(tensor, Pending) or (
                tensor.is_float and value.producer is None
            ):
                raise ValueError(
                    f"The output '{value.name}' of the model is not made by "
                    "a quantized layer, so it has no integer form."
                )
            scales.append(tensor.scale)
            outputs.append(self._dequantized(tensor))
        self.program = Program(
            inputs, outputs, self._ops, scales, self._islands
        )

    # --- Layers

    def _lower(self, site):
        layer = site.operation
        inputs = [self._values[v] for v in site.inputs]
        if isinstance(layer, Quantized) and layer.input_quantizer is not None:
            inputs = [
                self._on_grid(t, layer.input_quantizer, f"{site.path}/input")
                for t in inputs
            ]
        if isinstance(layer, layers.Concatenate):
            return self._concatenate(site, inputs)
        check_inputs(site, inputs)
        result = self._apply(site, layer, inputs)
        if isinstance(layer, Quantized) and layer.logits_quantizer is not None:
            logits = self._finish(result, layer.logits_quantizer, site.path)
            return self._island(site, layer._float_activation, logits)
        if isinstance(layer, Quantized) and layer.output_quantizer is not None:
            return self._on_grid(result, layer.output_quantizer, site.path)
        return result

    def _apply(self, site, layer, inputs):
        """What a layer makes of its inputs, before its output quantizer."""
        if is_weighted(layer):
            return self._weighted(site, layer, inputs[0])
        if kinds.is_batch_norm(layer):
            return self._batch_norm(site, layer, inputs[0])
        if kinds.is_relu(layer):
            return self._relu(site, layer, inputs[0])
        if kinds.is_add(layer):
            shape = site.outputs[0].shape[1:]
            return Pending("add", inputs, shape, site.path)
        if kinds.is_average(layer):
            return self._average(site, layer, inputs[0])
        if kinds.is_transparent(layer):
            return self._transparent(site, layer, inputs[0])
        return self._island(site, layer.activation, inputs[0])

    def _weighted(self, site, layer, source):
        (quantizer,) = layer.quantize_config.weights.values()
        codes = quantizer.codes(layer.kernel)
        scale = ops.convert_to_numpy(quantizer.scale).reshape(-1)
        options = {}
        if isinstance(layer, layers.DepthwiseConv2D):
            kind, axis = "depthwise", 3
            codes = codes.reshape(1, *codes.shape[:2], -1)
            options["depth_multiplier"] = layer.depth_multiplier
        elif is_packable(layer):
            kind, axis = "fully_connected", 0
            codes = codes.reshape(-1, codes.shape[-1]).T
        else:
            kind, axis = "conv", 0
            codes = codes.transpose(3, 0, 1, 2)
        if kind != "fully_connected":
            options |= {
                "strides": tuple(layer.strides),
                "padding": layer.padding,
                "dilation": tuple(layer.dilation_rate),
            }
        bias = np.zeros_like(scale)
        if layer.use_bias:
            bias = ops.convert_to_numpy(layer.bias)
        activation = kinds.activation_of(layer)
        return Pending(
            kind=kind,
            inputs=[source],
            shape=site.outputs[0].shape[1:],
            path=site.path,
            codes=codes,
            axis=axis,
            num_bits=storage_bits(layer, quantizer.code_bits),
            weight_scale=scale,
            bias=bias,
            offset=bias,
            bias_in_steps=bias / (np.float32(source.scale) * scale),
            slope=np.ones_like(scale),
            activation="linear" if activation == "other" else activation,
            options=options,
        )

    def _batch_norm(self, site, layer, source):
        moving = layer.moving_mean.value, layer.moving_variance.value
        slope, offset = map(
            ops.convert_to_numpy, slope_and_offset(layer, *moving)
        )
        if isinstance(source, Tensor):
            source = self._identity(source, site)
        source.bias_in_steps = ops.convert_to_numpy(
            bias_in_steps(slope, offset, source.step, source.bias)
        )
        source.slope = slope
        source.offset = offset + slope * source.bias
        return source

    def _relu(self, site, layer, source):
        if isinstance(source, Tensor):
            source = self._identity(source, site)
        source.activation = kinds.activation_of(layer)
        return source

    def _average(self, site, layer, source):
        is_global = isinstance(layer, layers.GlobalAveragePooling2D)
        if is_global or tuple(layer.pool_size) == source.shape[:2]:
            return Pending(
                "mean",
                [source],
                site.outputs[0].shape[1:],
                site.path,
                options={"keep_dims": not is_global or layer.keepdims},
            )
        # AVERAGE_POOL_2D rounds halves away from zero in the shifted codes;
        # a depthwise convolution with codes 1 rounds as training does.
        window = tuple(layer.pool_size)
        channels = source.shape[-1]
        return Pending(
            "depthwise",
            [source],
            site.outputs[0].shape[1:],
            site.path,
            codes=np.ones((1, *window, channels), np.int32),
            axis=3,
            weight_scale=np.full(
                channels, 1.0 / (window[0] * window[1]), np.float32
            ),
            bias_in_steps=np.zeros(channels, np.float32),
            slope=np.ones(channels, np.float32),
            options=_window_options(layer.strides, "valid"),
        )

    def _transparent(self, site, layer, source):
        shape = site.outputs[0].shape[1:]
        options = {}
        if isinstance(layer, layers.ZeroPadding2D):
            kind, options["padding"] = "pad", layer.padding
        elif isinstance(layer, layers.MaxPooling2D):
            kind = "max_pool"
            options = _window_options(layer.strides, layer.padding)
            options["window"] = tuple(layer.pool_size)
        elif isinstance(layer, layers.GlobalMaxPooling2D):
            options = _window_options((1, 1), "valid")
            options["window"] = source.shape[:2]
            pooled = self._like(source, site.path, (1, 1, source.shape[-1]))
            self._emit("max_pool", [source], pooled, site.path, options)
            source, kind = pooled, "reshape"
        elif isinstance(layer, (layers.Flatten, layers.Reshape)):
            kind = "reshape"
        else:
            return source  # Dropout, Identity
        if kind == "reshape" and source.shape == shape:
            return source
        output = self._like(source, site.path, shape)
        return self._emit(kind, [source], output, site.path, options)

    def _concatenate(self, site, inputs):
        layer = site.operation
        quantizer = layer.output_quantizer
        parts = [
            self._on_grid(t, quantizer, f"{site.path}/{i}")
            for i, t in enumerate(inputs)
        ]
        shape = site.outputs[0].shape
        output = self._like(parts[0], site.path, shape[1:])
        options = {"axis": layer.axis % len(shape)}
        return self._emit("concatenate", parts, output, site.path, options)

    def _island(self, site, activation, source):
        kind = ISLANDS[activation]
        self._islands.append((site.path, f"{kind} is computed in float"))
        output = self._tensor(site.path, site.outputs[0].shape[1:])
        source = self._dequantized(source)
        return self._emit(kind, [source], output, site.path)

    # --- Scales

    def _on_grid(self, source, quantizer, name):
        """The integers that `quantizer` makes of a value of any kind."""
        if isinstance(source, Pending):
            return self._finish(source, quantizer, name)
        if source.is_float:
            return self._quantize_float(source, quantizer, name)
        scale, stages = _stages(quantizer, clips_below=source.is_unsigned)
        if source.scale == scale and stages == [source.zero_point]:
            return source
        pending = self._identity(source, None, name)
        return self._finish(pending, quantizer, name)

    def _finish(self, pending, quantizer, name):
        """Emits a pending kernel with the scale of its output's quantizer."""
        clips_below = True
        if pending.kind == "mean":
            clips_below = pending.inputs[0].is_unsigned
        elif quantizer.qmin == 0 and pending.activation == "linear":
            pending.activation = "relu"
        scale, stages = _stages(quantizer, clips_below)
        shape = pending.shape
        if pending.options.pop("as_image", False):
            pending.shape = (1, 1, shape[-1])
        output = self._tensor(name, pending.shape, scale, stages[0])
        output.is_unsigned = quantizer.qmin == 0
        self._ops.append(pending.to_op(output))
        output = self._restage(output, stages[1:], name)
        if shape != output.shape:
            flat = self._like(output, name, shape)
            output = self._emit("reshape", [output], flat, name)
        return output

    def _quantize_float(self, source, quantizer, name):
        scale, stages = _stages(quantizer, clips_below=False)
        output = self._tensor(name, source.shape, scale, stages[0])
        self._emit("quantize", [source], output, name)
        output.is_unsigned = quantizer.qmin == 0
        return self._restage(output, stages[1:], name)

    def _restage(self, source, zero_points, name):
        """Clips by the saturation of int8 under other zero points."""
        for zero_point in zero_points:
            output = self._like(source, name, source.shape)
            output.zero_point = zero_point
            source = self._emit("requantize", [source], output, name)
        return source

    def _identity(self, source, site, name=None):
        """A depthwise kernel that multiplies by one.

        LiteRT's QUANTIZE from int8 to int8 multiplies by a number of 8 bits;
        this one rounds once and exactly.
        """
        channels = source.shape[-1]
        path = name or site.path
        options = _window_options((1, 1), "valid")
        shape = source.shape
        if len(shape) != 3:
            image = self._like(source, path, (1, 1, channels))
            source = self._emit("reshape", [source], image, path)
            options["as_image"] = True
        return Pending(
            "depthwise",
            [source],
            shape,
            path,
            codes=np.full((1, 1, 1, channels), LONE_CODE, np.int32),
            axis=3,
            weight_scale=np.full(channels, 1.0 / LONE_CODE, np.float32),
            bias_in_steps=np.zeros(channels, np.float32),
            slope=np.ones(channels, np.float32),
            options=options,
        )

    # --- Tensors and ops

    def _dequantized(self, tensor):
        if tensor.is_float:
            return tensor
        output = self._tensor(f"{tensor.name}/float", tensor.shape)
        return self._emit("dequantize", [tensor], output, tensor.name)

    def _emit(self, kind, inputs, output, path, options=None):
        self._ops.append(
            Op(kind, inputs, output, path=path, options=options or {})
        )
        return output

    def _like(self, tensor, name, shape):
        output = self._tensor(name, shape, tensor.scale, tensor.zero_point)
        output.is_unsigned = tensor.is_unsigned
        return output

    def _tensor(self, name, shape, scale=None, zero_point=0):
        unique, number = name, 1
        while unique in self._names:
            unique, number = f"{name}_{number}", number + 1
        self._names.add(unique)
        if None in shape:
            raise ValueError(
                f"The tensor '{name}' has no static shape: {shape}. Build the "
                "model with a fixed input size to export it."
            )
        return Tensor(unique, tuple(shape), scale, int(zero_point))


def _stages(quantizer, clips_below):
    """Scale, and the zero points whose saturation clips to the code range.

    An int8 tensor clips at -128 and 127 whatever its zero point is. Fewer
    than 256 codes are clipped above by the zero point 127 - qmax, and below,
    where the kernel has not done that, by a second one, -128 - qmin.

    Args:
        quantizer: of the tensor.
        clips_below: whether no negative real value can arrive.
    """
    scale = np.float32(ops.convert_to_numpy(quantizer.scale))
    stages = [_INT8_MAX - quantizer.qmax]
    below = _INT8_MIN - quantizer.qmin
    if below != stages[0] and not (clips_below and quantizer.qmin == 0):
        stages.append(below)
    return scale, stages


def _window_options(strides, padding):
    return {
        "strides": tuple(strides),
        "padding": padding,
        "dilation": (1, 1),
        "depth_multiplier": 1,
    }
