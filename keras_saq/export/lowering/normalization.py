"""Normalizations: of batches, folded; of the elements of a sample, in float."""

import numpy as np
from keras import ops

from keras_saq.export.pending import Pending
from keras_saq.layers import roles
from keras_saq.layers.batch_normalization import bias_in_steps
from keras_saq.layers.batch_normalization import slope_and_offset


def lower_batch_norm(builder, site, inputs):
    """Folds into the kernel before it, or is a kernel of its own."""
    layer, (source,) = site.operation, inputs
    moving = layer.moving_mean.value, layer.moving_variance.value
    # The bias is that of the training forward, integer by integer; the scale
    # is folded in float64 and rounded once.
    trained_slope, trained_offset = slope_and_offset(layer, *moving)
    slope, offset = _exact_slope_and_offset(layer)
    if not isinstance(source, Pending):
        if source.is_float:
            return _in_float(site, source, slope, offset)
        source = builder.identity(source, site.path)
    elif not source.is_weighted or source.activation != "linear":
        return _in_float(
            site, builder.in_float(source, site.path), slope, offset
        )
    source.bias_in_steps = ops.convert_to_numpy(
        bias_in_steps(trained_slope, trained_offset, source.step, source.bias)
    )
    source.slope = slope
    source.offset = offset + slope * source.bias
    return source


def _exact_slope_and_offset(layer):
    mean, variance = (
        ops.convert_to_numpy(v).astype(np.float64)
        for v in (layer.moving_mean, layer.moving_variance)
    )
    slope = 1.0 / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        slope = slope * ops.convert_to_numpy(layer.gamma)
    offset = -mean * slope
    if layer.center:
        offset = offset + ops.convert_to_numpy(layer.beta)
    return slope, offset


def _in_float(site, source, slope, offset):
    def build(builder, inputs):
        (x,) = inputs
        for kind, values in (("multiply", slope), ("add", offset)):
            values = values.astype(np.float32)
            values = builder.constant(f"{site.path}/{kind}", values)
            x = builder.compute(kind, [x, values], site.path)
        return x

    return Pending(
        "float",
        [source],
        tuple(source.shape),
        site.path,
        build=build,
        what="batch normalization",
    )


def layer_norm_obstacle(layer, rank):
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    if [axis % rank for axis in axes] != [rank - 1]:
        return "only normalization over the last axis has a float form here"
    return None


def lower_layer_norm(builder, site, inputs):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, in float."""
    layer, path = site.operation, site.path
    (source,) = inputs
    shape = tuple(source.shape)
    is_rms = roles.family(layer) == "rms_norm"
    gamma = getattr(layer, "scale" if is_rms else "gamma", None)
    is_rms = is_rms or getattr(layer, "rms_scaling", False)
    beta = getattr(layer, "beta", None)

    def constant(builder, name, value):
        value = np.asarray(ops.convert_to_numpy(value), np.float32)
        return builder.constant(f"{path}/{name}", value.reshape(-1))

    def mean(builder, x):
        options = {"axes": (len(shape),), "keep_dims": True}
        return builder.compute(
            "float_mean", [x], path, (*shape[:-1], 1), options
        )

    def build(builder, inputs):
        x = builder.in_float(inputs[0], path)
        if not is_rms:
            x = builder.compute("subtract", [x, mean(builder, x)], path)
        square = builder.compute("multiply", [x, x], path)
        variance = mean(builder, square)
        epsilon = constant(builder, "epsilon", layer.epsilon)
        variance = builder.compute("add", [variance, epsilon], path)
        factor = builder.compute("rsqrt", [variance], path)
        x = builder.compute("multiply", [x, factor], path)
        for kind, value in (("multiply", gamma), ("add", beta)):
            if value is not None:
                value = constant(builder, kind, value)
                x = builder.compute(kind, [x, value], path)
        return x

    what = getattr(layer, "_float_class", type(layer)).__name__
    return Pending("float", [source], shape, path, build=build, what=what)
