"""Plain data for JSON: no NumPy, no NaN."""

import math

import numpy as np


def plain(value):
    """The same data in types that JSON has; what is not finite is `None`.

    Example:

    >>> import numpy as np
    >>> from keras_saq.report.evidence.plain import plain
    >>> plain({"a": np.float32(0.5), "b": (1, float("nan"))})
    {'a': 0.5, 'b': [1, None]}
    """
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)
