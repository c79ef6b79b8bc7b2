"""Weights on their grids, and the scales of every quantizer."""

import numpy as np
from keras import ops

from keras_saq.layers import Quantized
from keras_saq.models.wrapper import inner_model
from keras_saq.policy import layer_paths

# Bars of a histogram, and fine steps within a code.
_MOST_BARS = 64
_FINE_STEPS = 5
_FINE_BITS = 4
# Codes that rounding must explain for latent weights to be drawn over them.
_ALIGNED = 0.99


def grids(model):
    """What each quantizer does, in the order of the layers.

    Args:
        model: a Keras model; one without quantizers has none.

    Returns:
        `(weights, activations)`: lists of dicts, one per quantizer.
    """
    weights, activations, seen = [], [], set()
    for path, layer in layer_paths(inner_model(model)):
        if not isinstance(layer, Quantized):
            continue
        for name, variable, quantizer in layer.quantized_weights():
            if id(variable) in seen:
                continue
            seen.add(id(variable))
            weights.append(_weight(path, name, variable, quantizer))
        for role in ("input", "inner", "logits", "output"):
            quantizer = getattr(layer, f"{role}_quantizer")
            if quantizer is None or id(quantizer) in seen:
                continue
            seen.add(id(quantizer))
            activations.append(_activation(path, role, quantizer))
    return weights, activations


def _activation(path, role, quantizer):
    found = {
        "path": path,
        "tensor": role,
        "quantizer": type(quantizer).__name__,
        "bits": int(quantizer.num_bits),
        "signed": quantizer.signed,
        "scale": None,
    }
    if quantizer.calibrated:
        scale = ops.convert_to_numpy(quantizer.scale)
        found["scale"] = float(np.median(scale))
    return found


def _weight(path, name, variable, quantizer):
    found = {
        "path": path,
        "weight": name,
        "quantizer": type(quantizer).__name__,
        "bits": int(quantizer.num_bits),
        "size": int(np.prod(variable.shape)),
        "scale": None,
    }
    if not quantizer.calibrated:
        return found
    values = np.asarray(ops.convert_to_numpy(variable.value), "float64")
    codes = np.asarray(quantizer.codes(variable))
    scales = np.ravel(ops.convert_to_numpy(quantizer.scale)).astype("float64")
    low = min(int(codes.min()), int(quantizer.qmin))
    high = max(int(codes.max()), int(quantizer.qmax))
    found |= {
        "scale": {
            "count": scales.size,
            "min": float(scales.min()),
            "median": float(np.median(scales)),
            "max": float(scales.max()),
        },
        "zero_share": float((codes == 0).mean()),
        "codes": _code_counts(codes, low, high),
    }
    offset = np.asarray(
        ops.convert_to_numpy(quantizer.offset_for(values.shape))
    )
    scale = ops.convert_to_numpy(quantizer.scale_for(values.shape))
    latent = (values - offset) / scale
    rounded = np.clip(np.rint(latent), low, high)
    if (rounded == codes).mean() >= _ALIGNED:
        clipped = (latent > high + 0.5) | (latent < low - 0.5)
        found["clipped_share"] = float(clipped.mean())
        if quantizer.num_bits <= _FINE_BITS:
            found["latent"] = _fine_counts(latent, low, high)
    return found


def _code_counts(codes, low, high):
    """Counts per code, or per few codes where there are many."""
    width = -(-(high - low + 1) // _MOST_BARS)
    first = low if width == 1 else -(-low // width) * width - width
    count = (high - first) // width + 1
    index = (codes.ravel() - first) // width
    counts = np.bincount(index, minlength=count)
    return {"first": first, "width": width, "counts": counts.tolist()}


def _fine_counts(latent, low, high):
    """Counts of weights / scale in parts of a code, a code beyond the ends."""
    start, stop = low - 1.5, high + 1.5
    count = round((stop - start) * _FINE_STEPS)
    inside = np.clip(latent.ravel(), start, stop)
    counts, _ = np.histogram(inside, count, (start, stop))
    return {"start": start, "step": 1 / _FINE_STEPS, "counts": counts.tolist()}
