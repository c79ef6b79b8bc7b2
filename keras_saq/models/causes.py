"""Why a layer's result has the error that it has, and which rule mends it."""

import re

import numpy as np
from keras import ops

# Shares and ratios from which on something is called a cause.
_CLIPPED = 0.01
_OUTLIER = 30.0
_UNLIKE = 50.0


def cause_of(layer, made):
    """The most likely cause, in a few words.

    Args:
        layer: a quantized layer.
        made: array of numbers that it makes in float.
    """
    if not np.any(made):
        return "nothing but zeros"
    bits = min(
        (q.num_bits for q in layer.quantize_config.weights.values()),
        default=8,
    )
    if bits <= 3:
        return f"{bits}-bit weights"
    quantizer = layer.output_quantizer
    if quantizer is not None:
        clipped = _clipped(quantizer, made)
        if clipped > _CLIPPED:
            return f"{clipped:.0%} of its numbers are clipped"
        usual = np.sqrt(np.median(np.square(made[made != 0]))) or 1.0
        largest = np.abs(made).max()
        if np.isfinite(usual) and largest > _OUTLIER * usual:
            ratio = largest / usual
            return f"a few numbers are {ratio:,.0f} times the usual ones"
    unlike = _unlike_channels(layer)
    if unlike > _UNLIKE:
        return f"one weight scale for channels {unlike:,.0f} times apart"
    if bits < 8:
        return f"{bits}-bit weights"
    others = [
        q.num_bits
        for q in layer.quantizers
        if q not in layer.quantize_config.weights.values()
    ]
    if min(others, default=8) < 8:
        return f"{min(others)}-bit activations"
    return "rounding"


def _clipped(quantizer, made):
    scale = np.max(ops.convert_to_numpy(quantizer.scale)) * 1.001
    low, high = quantizer.qmin * scale, quantizer.qmax * scale
    beyond = made > high
    if quantizer.signed:
        beyond |= made < low
    return float(beyond.mean())


def _unlike_channels(layer):
    """Ratio of channels' ranges where one scale serves all of them."""
    ratio = 1.0
    for _, variable, quantizer in layer.quantized_weights():
        if quantizer.channel_axes or len(variable.shape) < 2:
            continue
        weight = np.abs(ops.convert_to_numpy(variable))
        ranges = weight.reshape(-1, weight.shape[-1]).max(axis=0)
        ranges = ranges[ranges > 0]
        if len(ranges):
            ratio = max(ratio, float(ranges.max() / np.median(ranges)))
    return ratio


def mend_of(path, layer):
    """A rule that leaves less error, as code."""
    if min(q.num_bits for q in layer.quantizers) < 8:
        bits = "weight_bits=8, activation_bits=8"
        return f"Rule(path={_escaped(path)!r}, {bits})"
    return f"Rule(path={_escaped(path)!r}, keep_float=True)"


def _escaped(path):
    """A path as a regular expression, as people write it where they can."""
    return re.sub(r"([\\.+*?^$(){}\[\]|])", r"\\\1", path)
