"""`to_native`: a model of Keras's own int8 and int4 layers, with our codes.

Keras quantizes Dense, EinsumDense and Embedding by itself, after training:
codes and scales from the largest weight of a channel. Here the same layers get
the codes and scales that training learned. Such a model is served by Keras
alone, on any backend; its other layers compute in float.
"""

import dataclasses

import keras
import numpy as np
from keras import ops
from keras import tree

from keras_saq.export.parity import OutputParity
from keras_saq.layers import Quantized
from keras_saq.layers import roles
from keras_saq.layers.roles import is_weighted
from keras_saq.models import require_calibrated
from keras_saq.models import strip
from keras_saq.models.wrapper import inner_model
from keras_saq.policy import layer_paths
from keras_saq.table import format_table

ACTIVATIONS = ("static", "float")
# Family: its weight, and where Keras keeps codes and scales.
_NATIVE = {
    "dense": ("kernel", "_kernel", "kernel_scale"),
    "einsum_dense": ("kernel", "_kernel", "kernel_scale"),
    "embedding": ("embeddings", "_embeddings", "embeddings_scale"),
}


@keras.saving.register_keras_serializable("keras_saq")
class StaticQuantizer(keras.quantizers.Quantizer):
    """Quantizes a layer's inputs with a scale that was learned.

    Keras's own quantizer of activations looks at each row of each batch; this
    one always has the same scale, as an integer kernel does.

    Args:
        scale: real value of one step.
        qmin: smallest code.
        qmax: largest code. Codes beyond int8 stay float32, in which the
            layer's sums of integers are exact below 2**24.
    """

    def __init__(self, scale, qmin, qmax):
        fits = qmin >= -128 and qmax <= 127
        super().__init__(output_dtype="int8" if fits else "float32")
        self.scale, self.qmin, self.qmax = float(scale), int(qmin), int(qmax)

    def __call__(self, x, axis=None, **kwargs):
        codes = ops.round(ops.clip(x / self.scale, self.qmin, self.qmax))
        inverse = ops.full((1,) * len(x.shape), 1.0 / self.scale, x.dtype)
        return ops.cast(codes, self.output_dtype), inverse

    def get_config(self):
        return {"scale": self.scale, "qmin": self.qmin, "qmax": self.qmax}


@dataclasses.dataclass(frozen=True)
class NativeModel:
    """What `to_native` made; printed, a table and how it compares.

    Attributes:
        model: the Keras model.
        modes: path of each quantized layer -> `"int8"` or `"int4"`.
        activations: path -> type of the codes that its inputs are rounded
            to, or `"float"`.
        parity: an `OutputParity` per output, against the quantized model, or
            empty where no data was given. `reference_exact` and
            `reference_max_lsb` say the same as `max_lsb`: there is no other
            reference.
    """

    model: keras.Model
    modes: dict
    activations: dict
    parity: tuple = ()

    def __str__(self):
        rows = [
            (path, mode, self.activations[path])
            for path, mode in self.modes.items()
        ]
        lines = [format_table(("layer", "weights", "inputs"), rows, 3)]
        for row in self.parity:
            lines.append(
                f"{row.name}: largest difference from the quantized model "
                f"{row.max_lsb:.0f} steps of {row.step:g}, mean "
                f"{row.mean_lsb:.4f}, {row.exact:.2%} within half a step, "
                f"top-1 agreement {row.top1_agreement:.2%}"
            )
        return "\n".join(lines)


def to_native(model, activations="static", verify=None):
    """A model whose layers are Keras's own int8 and int4 ones.

    Dense, EinsumDense and Embedding layers hold the learned codes, in int8 or,
    for at most 4 bits, packed int4, and the learned scales. Quantizers of
    tensors that no such layer reads (sums, model outputs) are dropped, so that
    outputs differ from the quantized model's by their rounding.

    Args:
        model: a calibrated model from `keras_saq.quantize_model`, or a
            `SAQModel` around one. All of its quantized layers must be among
            the three kinds. It is not changed.
        activations: `"static"`: the inputs of Dense and EinsumDense layers
            are rounded with the learned scales; loading the saved model then
            needs `import keras_saq`. `"float"`: weights alone are quantized.
        verify: inputs as for `predict`, on which the difference from the
            quantized model is measured, or `None`.

    Returns:
        A `NativeModel`, whose `.model` can be saved and served.

    Raises:
        ValueError: if the model is not quantized, or a quantized layer has
            no such form; names all of them.

    Example:

    >>> import keras, keras_saq, numpy as np
    >>> inputs = keras.Input((16,))
    >>> model = keras.Model(inputs, keras.layers.Dense(4)(inputs))
    >>> x = np.linspace(-1, 1, 64, dtype="float32").reshape(4, 16)
    >>> policy = keras_saq.QuantizePolicy.preset("w4a8", first_last_bits=None)
    >>> q = keras_saq.quantize_model(model, policy, calibration=x)
    >>> native = keras_saq.to_native(q, verify=x)
    >>> native.model.layers[-1].dtype_policy.quantization_mode
    'int4'
    >>> native.parity[0].max_lsb <= 1
    True
    """
    if activations not in ACTIVATIONS:
        raise ValueError(
            f"`activations` must be one of {list(ACTIVATIONS)}. "
            f"Received: activations={activations!r}"
        )
    model = inner_model(model)
    native = strip(model)
    require_calibrated(model, "become a native Keras model")
    sources = dict(layer_paths(model))
    targets = dict(layer_paths(native))
    quantized = {
        path: layer
        for path, layer in sources.items()
        if isinstance(layer, Quantized)
        and is_weighted(layer)
        and layer.quantize_config.weights
    }
    _refuse(quantized, targets)
    modes, inputs = {}, {}
    for path, layer in quantized.items():
        quantizer = None
        if activations == "static" and not roles.is_lookup(layer):
            quantizer = _static(layer)
        modes[path] = _convert(targets[path], layer, quantizer)
        inputs[path] = "float" if quantizer is None else quantizer.output_dtype
    parity = ()
    if verify is not None:
        parity = _compare(native, model, verify)
    return NativeModel(native, modes, inputs, parity)


def _refuse(quantized, targets):
    rows = [
        f"  {path} ({type(targets.get(path)).__name__}): {reason}"
        for path, layer in quantized.items()
        if (reason := _why_not(layer, targets.get(path)))
    ]
    if rows or not quantized:
        raise ValueError(
            "These layers have no native int8 or int4 form in Keras:\n"
            + ("\n".join(rows) or "  the model has no layer with weights")
            + "\nLeave them in float with a rule `Rule(path=..., "
            "keep_float=True)`, or use `keras_saq.export_litert`."
        )


def _why_not(layer, target):
    family = roles.family(target)
    if family not in _NATIVE:
        return "only Dense, EinsumDense and Embedding have one"
    name, _, _ = _NATIVE[family]
    quantizer = layer.weight_quantizer(name)
    if quantizer.export_obstacle is not None:
        return quantizer.export_obstacle
    if quantizer.group_size is not None:
        return "its scales are per group"
    if quantizer.code_bits > 8:
        return f"a code of its weights takes {quantizer.code_bits} bits"
    scale = _inverse_scale(layer, name, quantizer)
    if roles.is_lookup(target) and not _is_constant(scale, 1):
        return "its scales are not per row"
    return None


def _is_constant(values, axis):
    return np.array_equal(
        values, np.broadcast_to(values.take([0], axis), values.shape)
    )


def _inverse_scale(layer, name, quantizer):
    """Steps per unit, of the shape of the weights."""
    shape = tuple(getattr(layer, name).shape)
    scale = ops.convert_to_numpy(quantizer.scale_for(shape))
    return np.broadcast_to(1.0 / scale, shape).astype(np.float32)


def _static(layer):
    """The quantizer of a layer's inputs in the form Keras calls."""
    quantizer = layer.input_quantizer
    source = layer.input_source()
    if quantizer is None and source is not None:
        quantizer = source.output_quantizer
    if quantizer is None or quantizer.export_obstacle is not None:
        return None
    scale = ops.convert_to_numpy(quantizer.scale)
    return StaticQuantizer(scale.item(), quantizer.qmin, quantizer.qmax)


def _convert(target, layer, activation_quantizer):
    """Quantizes a float layer in place with the codes of a quantized one."""
    name, place, scale_place = _NATIVE[roles.family(target)]
    quantizer = layer.weight_quantizer(name)
    codes = quantizer.codes(getattr(layer, name)).astype(np.int8)
    inverse = _inverse_scale(layer, name, quantizer)
    is_einsum = roles.family(target) == "einsum_dense"
    reduced = (0,)
    if roles.is_lookup(target):
        reduced = (1,)
    elif is_einsum:
        target._set_quantization_info()
        reduced = tuple(target._kernel_reduced_axes)
    mode = "int4" if quantizer.code_bits <= 4 else "int8"
    if is_einsum and reduced != tuple(range(len(reduced))):
        mode = "int8"  # Keras packs 4-bit codes row by row of summed axes
    if mode == "int4":
        config = keras.quantizers.Int4QuantizationConfig(
            activation_quantizer=activation_quantizer, block_size=None
        )
    else:
        config = keras.quantizers.Int8QuantizationConfig(
            activation_quantizer=activation_quantizer
        )
    target.quantize(mode, config=config)
    for axis in reduced:
        inverse = inverse.take([0], axis)
    if is_einsum and mode == "int8":
        inverse = target._adjust_scale_for_quant(inverse, "kernel")
    if mode == "int4":
        if is_einsum:
            rows = int(np.prod([codes.shape[axis] for axis in reduced]))
            codes = codes.reshape(rows, -1)
        codes, _, _ = keras.quantizers.pack_int4(codes, axis=-1)
    scale = getattr(target, scale_place)
    getattr(target, place).assign(codes)
    scale.assign(ops.reshape(inverse, scale.shape))
    return mode


def _compare(native, model, x):
    expected = tree.flatten(model.predict(x, verbose=0))
    made = tree.flatten(native.predict(x, verbose=0))
    rows = []
    for name, a, b in zip(native.output_names, made, expected):
        step = float(np.abs(b).max()) / 127 or 1.0
        steps = np.abs(a.astype(np.float64) - b) / step
        agreement = np.mean(a.argmax(axis=-1) == b.argmax(axis=-1))
        rows.append(
            OutputParity(
                name=name,
                step=step,
                reference_exact=bool(steps.max() < 0.5),
                reference_max_lsb=float(steps.max()),
                max_lsb=float(np.rint(steps.max())),
                mean_lsb=float(steps.mean()),
                exact=float((steps < 0.5).mean()),
                top1_agreement=float(agreement),
            )
        )
    return tuple(rows)
