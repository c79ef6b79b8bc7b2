"""Is the quantized model near the float one? Asked when it is made."""

import math
import warnings

import numpy as np
from keras import ops
from keras import tree

from keras_saq.layers import roles
from keras_saq.layers.batch_normalization import is_untrained
from keras_saq.models.calibration import first_few
from keras_saq.models.calibration import quantized_layers
from keras_saq.models.calibration import uncalibrated_layers
from keras_saq.models.compare import measure
from keras_saq.models.comparison import output_line
from keras_saq.plain_text import printable_lines

# The least signal-to-noise ratio in dB of an output that passes without a
# warning, by the bits of the model: the fewest of any tensor, and of any
# weights but for a tenth of them, so that one layer of two bits does not excuse
# a model of eight. With fewer bits a model has to be trained before it is
# judged.
LEAST_DB = {8: 20.0, 7: 17.0, 6: 14.0, 5: 9.0, 4: 3.0}
# With 8 bits: of a channel of an output, where the output itself is fine.
_LEAST_CHANNEL_DB = 6.0
_FEW_WEIGHTS = 0.1
# Of indices and decisions: one in ten may fall the other way.
_LEAST_DECISIONS_DB = 10.0
# With 8 bits: of a layer whose neighbours are so much better, where the output
# is not as good as this.
_LEAST_LAYER_DB, _NEIGHBOURS_DB, _FINE_DB = 10.0, 20.0, 30.0
# Samples: as many as have so many input elements together, of these limits.
_ELEMENTS = 2**19
_FEWEST, _MOST = 2, 32


def check_nearness(model, inputs, moved=()):
    """Measures a model that was just calibrated; warns where it is far.

    Args:
        model: a quantized model with the weights of the float one. It gets
            the attribute `comparison`, a `Comparison`.
        inputs: calibration data.
        moved: list of `(variable, value in the float model)` of those that
            have another one by now.
    """
    if uncalibrated_layers(model) or _has_untrained_norms(model):
        return
    arrays = tree.flatten(inputs)
    size = sum(math.prod(array.shape[1:]) for array in arrays)
    number = min(max(_ELEMENTS // max(size, 1), _FEWEST), _MOST)
    some = first_few(model, inputs, number)
    found = measure(None, model, some, layers=False, moved=moved)
    bits = bits_of(model)
    # A few samples say little of a single channel.
    by_channel = bits == 8 and found.num_samples >= _MOST
    far = [row for row in found.outputs if _is_far(row, bits, by_channel)]
    if far and _makes_other_weights(model):
        far = []
    if far or (bits == 8 and found.db < _FINE_DB):
        found = measure(None, model, some, moved=moved)
    model.comparison = found
    if far:
        lines = [
            "The quantized model is far from the float one on the calibration "
            "data:",
            *map(output_line, far),
            "Where the error is made:",
            found.worst(5),
        ]
    elif outliers(found.rows):
        lines = [
            "A layer of the quantized model is much further from the float "
            "one, on the calibration data, than the others are:",
            found.worst(5),
        ]
    else:
        return
    if found.mends():
        lines += [
            "Mend it with rules in front of the policy's, or by training:",
            *(f"    {mend}" for mend in found.mends()),
        ]
    warnings.warn(printable_lines("\n".join(lines)), stacklevel=3)


def _has_untrained_norms(model):
    """Their scales are those of training, which has still to come."""
    return any(
        roles.is_batch_norm(layer) and is_untrained(layer)
        for layer in quantized_layers(model)
    )


def _makes_other_weights(model):
    """Whether some quantizer standardizes its weights: training adapts."""
    for layer in quantized_layers(model):
        for _, variable, quantizer in layer.quantized_weights():
            norms = [
                np.linalg.norm(ops.convert_to_numpy(weight))
                for weight in (quantizer(variable), variable)
            ]
            if norms[1] and not 0.5 < norms[0] / norms[1] < 2.0:
                return True
    return False


def _is_far(row, bits, by_channel):
    least = LEAST_DB.get(bits)
    if least is None:
        return False
    if not row.is_real:
        least = min(least, _LEAST_DECISIONS_DB)
    if not row.db >= least:  # NaN is far, too
        return True
    return by_channel and row.worst_channel_db < _LEAST_CHANNEL_DB


def outliers(rows):
    """Rows that are bad where the middle one is much better."""
    ratios = [row.here_db for row in rows if np.isfinite(row.here_db)]
    if len(ratios) < 3:
        return []
    middle = float(np.median(ratios))
    return [
        row
        for row in rows
        if row.here_db < min(_LEAST_LAYER_DB, middle - _NEIGHBOURS_DB)
        and np.isfinite(row.here_db)
    ]


def bits_of(model):
    """By which number of bits a model is judged; see `LEAST_DB`."""
    weights, others = [], []
    for layer in quantized_layers(model):
        own = set()
        for _, variable, quantizer in layer.quantized_weights():
            own.add(id(quantizer))
            weights.append((quantizer.num_bits, math.prod(variable.shape)))
        others += [q.num_bits for q in layer.quantizers if id(q) not in own]
    few = _FEW_WEIGHTS * sum(size for _, size in weights)
    bits = min(others, default=8)
    for least, size in sorted(weights):
        few -= size
        if few < 0:
            return min(bits, least)
    return bits
