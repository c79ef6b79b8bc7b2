"""Gives tensors their scales, and collects what stays in float."""

import numpy as np
from keras import ops

from keras_saq.export.kernels import dynamic
from keras_saq.export.kernels.functions import TABLES
from keras_saq.export.lowering.op_list import OpList
from keras_saq.export.lowering.ties import away_from_ties
from keras_saq.export.lowering.ties import table_distance
from keras_saq.export.pending import Pending
from keras_saq.layers.batch_normalization import LONE_CODE
from keras_saq.layers.storage import PACKED_BITS

_INT8_MIN, _INT8_MAX = -128, 127
IN_FLOAT = "is computed in float"
MAY_DIFFER = "a code may differ from the reference's by 1 step"


class Builder(OpList):
    """The ops so far, on grids or in float, and the islands.

    Args:
        graph: the `Graph` that is lowered.
        storage: `"exact"`, `"small"` or `"int8"`, see `export_litert`.
        dynamic_range: see `export_litert`.

    Attributes:
        islands: list of `(path, reason)`.
    """

    def __init__(self, graph, storage="exact", dynamic_range=False):
        super().__init__()
        self.graph = graph
        self.islands = []
        self.storage = storage
        self.dynamic_range = dynamic_range
        self._dequantized = {}

    def compute(self, kind, inputs, path, shape=None, options=None, **kwargs):
        """A float kernel; integer inputs are dequantized first."""
        inputs = [self.in_float(t, path) for t in inputs]
        if shape is None:
            shape = _broadcast([t.shape for t in inputs])
        output = self.tensor(f"{path}/{kind}", shape)
        return self.emit(kind, inputs, output, path, options, **kwargs)

    # --- Scales

    def on_grid(self, source, quantizer, name):
        """The integers that `quantizer` makes of a value of any kind."""
        if isinstance(source, Pending):
            if source.is_integer and self._is_sure(source, quantizer):
                return self.finish(source, quantizer, name)
            return self._finish_float(source, quantizer, name)
        if source.is_float:
            return self.quantize(source, quantizer, name)
        scale, stages = _stages(quantizer, clips_below=source.is_unsigned)
        if source.scale == scale and stages == [source.zero_point]:
            return source
        return self.finish(self.identity(source, name), quantizer, name)

    @staticmethod
    def _is_sure(pending, quantizer):
        """Whether no value of an integer kernel's table is next to a tie."""
        if pending.kind not in TABLES:
            return True
        (source,), (scale, _) = pending.inputs, _stages(quantizer, False)
        return table_distance(pending.kind, source, float(scale)) is not None

    def finish(self, pending, quantizer, name):
        """Emits a pending kernel with the scale of its output's quantizer."""
        clips_below = pending.clips_below
        if pending.can_clip:
            clips_below = True
            if quantizer.qmin == 0 and pending.activation == "linear":
                pending.activation = "relu"
        scale, stages = _stages(quantizer, clips_below)
        made = pending.made or pending.shape
        output = self.tensor(name, made, scale, stages[0])
        output.is_unsigned = quantizer.qmin == 0
        output.rows = _rows(pending)
        self.append(pending.to_op(output))
        return self._arranged(
            pending, self._restage(output, stages[1:], name), name
        )

    def _arranged(self, pending, output, name):
        if pending.moves is not None:
            return pending.moves(self, output)
        return self.reshape(output, pending.shape, name)

    def quantize(self, source, quantizer, name):
        """Quantizes a float tensor."""
        scale, stages = _stages(quantizer, clips_below=False)
        output = self.tensor(name, source.shape, scale, stages[0])
        output.rows = source.rows
        self.emit("quantize", [source], output, name)
        output.is_unsigned = quantizer.qmin == 0
        return self._restage(output, stages[1:], name)

    def _finish_float(self, pending, quantizer, name):
        """Computes in float, between integers: an island."""
        start = len(self.ops)
        for source in pending.inputs:
            # Computed anew, so that all of the island is in one place.
            self._dequantized.pop(id(source), None)
        result = self.realize(pending)
        reason = self._why_in_float(pending)
        if result.is_exact:
            reason += ", exactly: each element is rounded as IEEE 754 says"
        else:
            scale, _ = _stages(quantizer, clips_below=False)
            found = None
            source = pending.inputs[0]
            if len(pending.inputs) == 1 and not source.is_float:
                found = away_from_ties(
                    source, self.ops[start:], result, float(scale)
                )
            if found is None:
                reason += f"; {MAY_DIFFER}"
            else:
                result = self._shifted(result, found[1] * scale, name)
                reason += (
                    ", exactly: of its 256 values none is nearer than "
                    f"{found[0]:.1g} steps to a rounding tie"
                )
        if pending.what:
            self.islands.append((pending.path, reason))
        return self.quantize(result, quantizer, name)

    def _shifted(self, result, shift, name):
        """A result of which each code is sure, given the codes it is of."""
        if shift:
            shift = np.full(1, shift, np.float32)
            shift = self.constant(f"{name}/shift", shift)
            result = self.compute("add", [result, shift], name)
        result.is_exact = True
        return result

    def plain(self, value, path):
        """A tensor; what has no scale yet is computed in float."""
        if isinstance(value, Pending):
            return self.in_float(value, path)
        return value

    def in_float(self, value, path):
        """A value as a float tensor."""
        if isinstance(value, Pending):
            if value.what:
                self.islands.append((value.path, self._why_in_float(value)))
            return self.realize(value)
        if value.is_float:
            return value
        if id(value) not in self._dequantized:
            output = self.tensor(f"{value.name}/float", value.shape)
            output.rows, output.is_static = value.rows, value.is_static
            self._dequantized[id(value)] = self.emit(
                "dequantize", [value], output, path
            )
        return self._dequantized[id(value)]

    def _why_in_float(self, pending):
        reason = f"{pending.what} {IN_FLOAT}"
        if self._is_dynamic(pending):
            reason += ", from its input in 8 bits of each sample's own range"
        return reason

    def _is_dynamic(self, pending):
        """Whether the kernel on a float input reads codes of weights."""
        return (
            self.dynamic_range
            and pending.is_weighted
            and f"{dynamic.PREFIX}{pending.kind}" in dynamic.KERNELS
            and np.issubdtype(pending.codes.dtype, np.integer)
        )

    def realize(self, pending):
        """Computes a pending result in float."""
        if pending.build is not None:
            return pending.build(self, pending.inputs)
        if pending.is_weighted:
            return self._weighted_in_float(pending)
        kind = {"mean": "float_mean"}.get(pending.kind, pending.kind)
        made = self.compute(
            kind,
            pending.inputs,
            pending.path,
            pending.made or pending.shape,
            pending.options,
            activation=pending.activation,
        )
        return self._arranged(pending, made, pending.path)

    def _weighted_in_float(self, pending):
        (source,) = pending.inputs
        if not source.is_float:
            raise ValueError(
                f"The output of '{pending.path}' has no integer scale, "
                "because no quantized layer reads it. Quantize the model "
                "with the scheme 'litert' (the presets do), which gives "
                "every tensor between integer kernels a scale."
            )
        codes, scale, bias = pending.in_float()
        path, kind = pending.path, pending.kind
        if np.issubdtype(codes.dtype, np.integer):
            is_dynamic = self._is_dynamic(pending)
            bits = pending.num_bits if is_dynamic else self._stored_bits(codes)
            kernel = self.constant(
                f"{path}/weights",
                codes,
                scale,
                num_bits=bits,
                axis=pending.axis,
            )
            if is_dynamic:
                kind = f"{dynamic.PREFIX}{kind}"
            else:
                kernel = self.in_float(kernel, path)
        else:
            shape = [1] * codes.ndim
            shape[pending.axis] = -1
            kernel = codes.astype(np.float32) * scale.reshape(shape)
            kernel = self.constant(f"{path}/weights", kernel)
        made = self.tensor(path, pending.made or pending.shape)
        made.rows = _rows(pending)
        inputs = [source, kernel, self.constant(f"{path}/bias", bias)]
        made = self.emit(
            kind,
            inputs,
            made,
            path,
            pending.options,
            activation=pending.activation,
        )
        return self._arranged(pending, made, path)

    def _stored_bits(self, codes):
        """Of codes that a DEQUANTIZE reads, which LiteRT unpacks itself."""
        if self.storage != "small":
            return 8
        largest = np.abs(codes).max(initial=0)
        return next(b for b in PACKED_BITS if largest < 2 ** (b - 1))

    def with_relu(self, source, activation, path):
        """A ReLU or ReLU6, in the kernel before it where that is pending."""
        if isinstance(source, Pending):
            if source.can_clip and source.activation == "linear":
                source.activation = activation
                return source
            source = self.in_float(source, path)
        if source.is_float:
            return self._float_relu(source, activation, path)
        pending = self.identity(source, path)
        pending.activation = activation
        # Where no integers are wanted.
        pending.what = activation
        pending.build = lambda builder, _: builder._float_relu(
            source, activation, path
        )
        return pending

    def _float_relu(self, source, activation, path):
        source = self.compute("relu", [source], path)
        if activation == "relu6":
            six = self.constant(f"{path}/six", np.full(1, 6.0, np.float32))
            source = self.compute("minimum", [source, six], path)
        return source

    def _restage(self, source, zero_points, name):
        """Clips by the saturation of int8 under other zero points."""
        for zero_point in zero_points:
            source = self.with_zero_point(source, zero_point, name)
        return source

    def with_zero_point(self, source, zero_point, name):
        if source.zero_point == zero_point:
            return source
        output = self.like(source, name, source.shape)
        output.zero_point, output.rows = zero_point, source.rows
        return self.emit("requantize", [source], output, name)

    def identity(self, source, path):
        """A depthwise kernel that multiplies by one.

        LiteRT's QUANTIZE from int8 to int8 multiplies by a number of 8 bits;
        this one rounds once and exactly.
        """
        channels = source.shape[-1] if source.shape else 1
        shape = source.shape
        if len(shape) != 3:
            source = self.reshape(source, (1, 1, channels), path)
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
            options=window_options(),
            made=source.shape,
        )


def _broadcast(shapes):
    """The shape of what is computed element by element; `None` is open."""
    if not any(None in shape for shape in shapes):
        return np.broadcast_shapes(*shapes)
    rank = max(map(len, shapes))
    shapes = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(
        next((n for n in sizes if n != 1), 1) for sizes in zip(*shapes)
    )


def _rows(pending):
    """Elements of the first axis per sample of what a kernel makes."""
    for tensor in pending.inputs:
        if tensor.rows != 1:
            return tensor.rows
    return 1


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


def window_options(strides=(1, 1), padding="valid", dilation=(1, 1)):
    """Options of a kernel that looks at windows of an image."""
    return {
        "strides": tuple(strides),
        "padding": padding,
        "dilation": tuple(dilation),
        "depth_multiplier": 1,
    }
