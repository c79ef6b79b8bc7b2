"""Batch normalization whose offset is on the grid of the integer bias.

After folding, y = gamma * (z - mean) / sqrt(var + eps) + beta becomes
y = a * (z + b), with a = gamma / sqrt(var + eps) and b = beta / a - mean, and
the file stores b as an integer multiple of the accumulator's step
g = input scale * weight scale. Rounding b only at export moves every output
by up to g * |a| / 2, which for low-bit weights is many output steps; so the
training forward already computes y = a * (z + g * round(b / g)), with a
straight-through gradient, from batch statistics in training and from the
moving ones in inference.
"""

import keras
from keras import ops

from keras_saq.layers.roles import is_batch_norm
from keras_saq.quantizers import is_calibrating

# A batch norm that follows no convolution is stored as a 1x1 depthwise
# convolution with these codes.
LONE_CODE = 127
# |a| is kept away from zero where it divides.
SMALLEST_SLOPE = 1e-20


def bias_step(layer):
    """Step g of the integer bias, per channel, and the producer's bias.

    Args:
        layer: a quantized batch norm.

    Returns:
        `(g, bias)`: tensors of shape `(channels,)` or scalars; `None` where
        the grid is not known.
    """
    if layer.input_quantizer is not None:
        return layer.input_scale() / LONE_CODE, 0.0
    source = layer.input_source()
    if source is None:
        return None
    if source.output_quantizer is not None:
        return layer.input_scale() / LONE_CODE, 0.0
    step = source.accumulator_step()
    if step is None:
        return None
    bias = source.bias.value if source.use_bias else 0.0
    return step, ops.cast(bias, "float32")


def call_on_bias_grid(layer, inputs, training=None, mask=None):
    """`BatchNormalization.call`, with the bias on its grid where known."""
    grid = bias_step(layer) if layer.quantize_config.bias_grid else None
    is_training = training and layer.trainable
    x = ops.cast(inputs, "float32")
    fused = _fused_kernel(layer, x) if is_training else None
    is_special = mask is not None or getattr(layer, "renorm", False)
    if is_special or (grid is None and fused is None):
        return keras.layers.BatchNormalization.call(
            layer, inputs, training=training, mask=mask
        )
    outputs = None
    if is_training:
        if fused is not None:
            outputs, mean, variance = fused.normalize(
                x, *_gamma_and_beta(layer), layer.epsilon
            )
        else:
            mean, variance = _batch_statistics(layer, x)
        _update(layer.moving_mean, mean, layer.momentum)
        _update(layer.moving_variance, variance, layer.momentum)
    elif is_calibrating() and is_untrained(layer):
        # What training will see; 0 and 1 are nobody's statistics.
        mean, variance = _batch_statistics(layer, x)
    else:
        mean = layer.moving_mean.value
        variance = layer.moving_variance.value
    slope, offset = slope_and_offset(layer, mean, variance)
    rounding = 0.0 if grid is None else _rounding(slope, offset, *grid)
    shape = [1] * len(x.shape)
    shape[_axis(layer, x)] = -1
    if outputs is None:
        outputs = x * ops.reshape(slope, shape)
        outputs = outputs + ops.reshape(offset + rounding, shape)
    elif grid is not None:
        outputs = outputs + ops.reshape(rounding, shape)
    return ops.cast(outputs, layer.compute_dtype)


def _fused_kernel(layer, x):
    """The module of the backend's kernel where it has one, or `None`."""
    if keras.backend.backend() != "tensorflow":
        return None
    from keras_saq.layers import tensorflow_batch_norm as kernel

    return kernel if kernel.supports(layer, x) else None


def slope_and_offset(layer, mean, variance):
    """The batch norm as `slope * x + offset`, per channel."""
    gamma, beta = _gamma_and_beta(layer)
    slope = ops.rsqrt(variance + layer.epsilon)
    if gamma is not None:
        slope = slope * gamma
    offset = -mean * slope
    if beta is not None:
        offset = offset + beta
    return slope, offset


def _gamma_and_beta(layer):
    gamma = layer.gamma.value if layer.scale else None
    beta = layer.beta.value if layer.center else None
    return gamma, beta


def on_grid_beta(layer):
    """The beta that makes a plain batch norm compute the rounded offset.

    Returns:
        A tensor, or `None` where nothing is rounded or there is no beta.
    """
    if not is_batch_norm(layer):
        return None
    grid = bias_step(layer) if layer.quantize_config.bias_grid else None
    if grid is None or not layer.center:
        return None
    moving = layer.moving_mean.value, layer.moving_variance.value
    slope, offset = slope_and_offset(layer, *moving)
    return layer.beta.value + _rounding(slope, offset, *grid)


def _batch_statistics(layer, x):
    axes = [i for i in range(len(x.shape)) if i != _axis(layer, x)]
    return ops.moments(x, axes, synchronized=layer.synchronized)


def is_untrained(layer):
    """Whether the moving statistics are still the initial ones."""
    mean, variance = layer.moving_mean, layer.moving_variance
    return not ops.convert_to_numpy(mean).any() and bool(
        (ops.convert_to_numpy(variance) == 1).all()
    )


def _rounding(slope, offset, step, source_bias):
    """What rounding b to multiples of g adds to the offset; no gradient."""
    slope, offset, step, source_bias = (
        ops.stop_gradient(ops.convert_to_tensor(t))
        for t in (slope, offset, step, source_bias)
    )
    in_steps = bias_in_steps(slope, offset, step, source_bias)
    return ops.stop_gradient(slope * step * (ops.round(in_steps) - in_steps))


def bias_in_steps(slope, offset, step, source_bias):
    """b / g, the real number whose rounding the file stores as the bias."""
    safe = ops.where(ops.abs(slope) < SMALLEST_SLOPE, SMALLEST_SLOPE, slope)
    return (offset / safe + source_bias) / step


def _axis(layer, x):
    return layer.axis % len(x.shape)


def _update(moving, value, momentum):
    moving.assign(moving * momentum + value * (1.0 - momentum))
