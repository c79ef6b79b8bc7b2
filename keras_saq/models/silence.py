"""One warning about what was all zero when its scale was to be taken."""

import warnings


def warn_of_silence(layers, stacklevel=3):
    """Names the tensors and weights whose scales are stand-ins; each once.

    Args:
        layers: the quantized layers of a model.
        stacklevel: of the warning.
    """
    rows = []
    for layer in layers:
        config = layer.quantize_config
        for quantizer in layer.quantizers:
            count = quantizer.num_silent
            if not count:
                continue
            quantizer.num_silent = 0
            rows.append(f"  {layer.name}: {_what(config, quantizer, count)}")
    if rows:
        warnings.warn(
            "These hold nothing but zeros, or next to nothing, so that their "
            "scales are set to what is usual there; in training they follow "
            "the first numbers that are not zero. If that is not meant, look "
            "at the calibration data and at the weights:\n" + "\n".join(rows),
            stacklevel=stacklevel,
        )


def _what(config, quantizer, count):
    for name, candidate in config.weights.items():
        if candidate is quantizer:
            num_scales = max(1, _size(quantizer))
            if num_scales == 1:
                return name
            return f"{count} of {num_scales} channels of {name}"
    names = {"inputs": "input", "outputs": "output", "logits": "logits"}
    for field, name in names.items():
        if getattr(config, field) is quantizer:
            return f"its {name}"
    return "a tensor inside of it"


def _size(quantizer):
    size = 1
    for length in quantizer.scale.shape:
        size *= int(length)
    return size
