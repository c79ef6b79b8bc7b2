"""How much of SAQ's second pass is computed, and how often.

| strategy | cost in plain steps | source |
| --- | --- | --- |
| `"full"` | 2 | SAM, SAQ |
| `"late"` | 1 + (1 - start) | arXiv 2410.10373 for SAM, see `Late` |
| `"mesa"` | 4/3 | MESA, arXiv 2205.14083 |
| `"periodic"` | 1 + 1/k | reconstruction, see `Periodic` |
| `"looksam"` | 1 + 1/k | LookSAM, arXiv 2203.02714 |
| `"esam"` | 4/3 + gamma | ESAM, arXiv 2110.03141 |
| `"half_batch"` | 1 + fraction | reconstruction, see `HalfBatch` |
| `"momentum"` | 1 | MSAM, arXiv 2401.12033 |
| `"none"` | 1 | plain training |

The efficient strategy that the SAQ paper mentions was not available; these
are the published ones for SAM, and two obvious ones.
"""

from keras_saq.sharpness.strategies.base import Full
from keras_saq.sharpness.strategies.base import Plain
from keras_saq.sharpness.strategies.base import Strategy
from keras_saq.sharpness.strategies.esam import ESAM
from keras_saq.sharpness.strategies.half_batch import HalfBatch
from keras_saq.sharpness.strategies.late import Late
from keras_saq.sharpness.strategies.looksam import LookSAM
from keras_saq.sharpness.strategies.mesa import MESA
from keras_saq.sharpness.strategies.momentum import Momentum
from keras_saq.sharpness.strategies.periodic import Periodic

STRATEGIES = {
    "full": Full,
    "late": Late,
    "mesa": MESA,
    "periodic": Periodic,
    "looksam": LookSAM,
    "esam": ESAM,
    "half_batch": HalfBatch,
    "momentum": Momentum,
    "none": Plain,
}

__all__ = [
    "ESAM",
    "Full",
    "HalfBatch",
    "Late",
    "LookSAM",
    "MESA",
    "Momentum",
    "Periodic",
    "Plain",
    "STRATEGIES",
    "Strategy",
    "get",
]


def get(identifier):
    """A strategy from its name, its configuration, or itself.

    Args:
        identifier: a `Strategy`, a key of `STRATEGIES`, or a serialized
            strategy.

    Returns:
        A `Strategy`.

    Raises:
        ValueError: if there is none of that name.

    Example:

    >>> from keras_saq.sharpness import strategies
    >>> strategies.get("periodic").k
    5
    """
    if isinstance(identifier, Strategy):
        return identifier
    if isinstance(identifier, dict):
        import keras

        return keras.saving.deserialize_keras_object(identifier)
    if isinstance(identifier, str) and identifier in STRATEGIES:
        return STRATEGIES[identifier]()
    raise ValueError(
        f"`strategy` must be one of {sorted(STRATEGIES)} or a "
        "`keras_saq.sharpness.strategies.Strategy`. "
        f"Received: strategy={identifier!r}"
    )
