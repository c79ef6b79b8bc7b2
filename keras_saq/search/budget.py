"""What a policy may cost at most."""

import dataclasses
import math
import re

import numpy as np

from keras_saq.layers.storage import FLOAT_BITS
from keras_saq.search import cost_models
from keras_saq.search.candidates import Candidates
from keras_saq.search.cost_models import CostModel
from keras_saq.search.space import SearchSpace

NAMES = ("bops", "bytes", "activation_bytes", "average_bits", "latency")
_RELATIVE = re.compile(r"(?:([0-9.eE+-]+)\s*x\s*)?(float|w(\d)a(\d))")
_MODELS = {
    "bops": cost_models.bit_operations,
    "bytes": cost_models.file_bytes,
    "activation_bytes": cost_models.activation_bytes,
    "average_bits": cost_models.average_bits,
}


@dataclasses.dataclass(frozen=True)
class Limit:
    """A budget, in numbers, for one search space."""

    cost: CostModel
    limit: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """What a policy may cost at most; all that are given hold together.

    Each is a number, or relative: `"0.25x float"`, to the float model, or
    `"w3a3"`, `"1.1x w4a4"`, to a preset on the same model.

    Attributes:
        bops: bit operations of one inference, as `keras_saq.summary` counts
            them.
        bytes: size of the LiteRT file: `summary`'s stored bytes and what the
            format adds.
        activation_bytes: peak of the tensors that exist at one moment.
        average_bits: bits per quantized weight, on average.
        latency: seconds of one inference by `latency_table`.
        latency_table: a `keras_saq.search.LatencyTable` or its `.json`.

    Raises:
        ValueError: if nothing is limited, if a limit is neither a number
            above 0 nor a relative one, or if `latency` and `latency_table`
            are not given together.

    Example:

    >>> from keras_saq.search import Budget
    >>> Budget(bops="w3a3", bytes=200_000).limits
    {'bops': 'w3a3', 'bytes': 200000}
    """

    bops: float | str | None = None
    bytes: float | str | None = None
    activation_bytes: float | str | None = None
    average_bits: float | str | None = None
    latency: float | str | None = None
    latency_table: object | None = None

    def __post_init__(self):
        if not self.limits:
            raise ValueError(
                "A budget limits at least one cost, such as "
                f"`Budget(bops='w3a3')`. The costs are: {', '.join(NAMES)}."
            )
        for name, value in self.limits.items():
            _check(name, value)
        if (self.latency is None) != (self.latency_table is None):
            raise ValueError(
                "`latency` and `latency_table` belong together. Measure a "
                "table with `keras_saq.search.measure_latency(model)`. "
                f"Received: latency={self.latency!r}, "
                f"latency_table={self.latency_table!r}"
            )

    @property
    def limits(self):
        """Dict from the names of the costs that are limited to the limits."""
        return {
            name: getattr(self, name)
            for name in NAMES
            if getattr(self, name) is not None
        }

    def cost_models(self, space):
        """Dict of the `CostModel`s of a space that this budget limits."""
        return {name: self._model(name, space) for name in self.limits}

    def resolve(self, space):
        """List of `Limit`s: the costs in a space, and numbers for them."""
        found = []
        for name, model in self.cost_models(space).items():
            limit = getattr(self, name)
            if isinstance(limit, str):
                limit = self._relative(name, limit, space)
            found.append(Limit(model, float(limit)))
        return found

    def _model(self, name, space):
        if name == "latency":
            from keras_saq.search.latency import as_table

            return cost_models.latency(space, as_table(self.latency_table))
        return _MODELS[name](space)

    def _relative(self, name, text, space):
        factor, base, weight_bits, input_bits = _RELATIVE.fullmatch(
            text
        ).groups()
        factor = 1.0 if factor is None else float(factor)
        if base == "float":
            value = float_cost(name, space)
        else:
            value = self._preset_cost(name, space, weight_bits, input_bits)
        return factor * value

    def _preset_cost(self, name, space, weight_bits, input_bits):
        preset = SearchSpace(
            space.model,
            Candidates(
                weight_bits=int(weight_bits), activation_bits=int(input_bits)
            ),
            target=space.target,
            kernel_limits=False,
        )
        model = self._model(name, preset)
        return model.value(np.zeros(len(preset.groups), int))


def float_cost(name, space):
    """Cost of the float model, in the terms of a budget."""
    if name == "latency":
        raise ValueError(
            "A latency budget cannot be relative to float: the table has the "
            "integer kernels only. Give seconds, or a preset such as 'w8a8'."
        )
    if name == "average_bits":
        return float(FLOAT_BITS)
    if name == "bops":
        return sum(site.macs * FLOAT_BITS**2 for site in space.sites)
    if name == "bytes":
        return cost_models.float_bytes(space)
    return cost_models.activation_bytes(space, is_float=True).value([])


def _check(name, value):
    if isinstance(value, str):
        match = _RELATIVE.fullmatch(value)
        if match:
            try:
                value = float(match.group(1) or 1)
            except ValueError:
                match = None
        if not match:
            raise ValueError(
                f"`{name}` of a budget must be a number, or relative to "
                "float or a preset such as '0.25x float', 'w3a3' or "
                f"'1.1x w4a4'. Received: {name}={value!r}"
            )
    if isinstance(value, bool) or not 0 < value < math.inf:
        raise ValueError(
            f"`{name}` of a budget must be a finite number above 0. "
            f"Received: {name}={value!r}"
        )
