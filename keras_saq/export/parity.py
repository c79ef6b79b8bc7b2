"""What `verify_litert` found, as data and as text."""

import dataclasses
import json
import math

import numpy as np

from keras_saq.models.comparison import bounded
from keras_saq.plain_text import printable_lines
from keras_saq.table import format_table

# What a file may differ from `model.predict`, whatever the reference says: the
# noise holds a tenth of the power, or the difference is that of roundings.
MIN_SNR_DB = 10.0
FEW_STEPS = 4


@dataclasses.dataclass(frozen=True)
class OutputParity:
    """How one output of a file compares.

    Differences are in steps of that output: multiples of its scale, or of
    1/256 behind a float kernel.

    Attributes:
        name: the output's name.
        step: real value of one step.
        reference_exact: whether it equals the code-domain reference.
        reference_max_lsb: largest difference from the reference.
        max_lsb: largest difference from `model.predict`.
        mean_lsb: mean difference from `model.predict`.
        exact: share of elements that equal `model.predict`.
        top1_agreement: share of samples whose largest element is at the same
            place.
        snr_db: power of `model.predict` over that of the difference from it,
            in decibels.
        float_db: signal-to-noise ratio of the file against the float model,
            where one was given.
    """

    name: str
    step: float
    reference_exact: bool
    reference_max_lsb: float
    max_lsb: float
    mean_lsb: float
    exact: float
    top1_agreement: float
    snr_db: float = math.inf
    float_db: float | None = None

    @property
    def is_near(self):
        """Whether the file is near `model.predict`: `MIN_SNR_DB`, or steps.

        Rounding that goes the other way moves an output by a few steps.
        """
        return self.snr_db >= MIN_SNR_DB or self.max_lsb <= FEW_STEPS


@dataclasses.dataclass(frozen=True)
class LayerParity:
    """How one tensor inside of a file compares, in its own steps.

    Attributes:
        name: the tensor's name in the file: the layer's path.
        operator: the LiteRT operator that makes it.
        reference_max_lsb: largest difference between the file and what the
            reference makes of the file's own inputs of that operator.
        bound: by how much the two may differ; 0 for an exact operator.
        max_lsb: largest difference from the Keras layer's output; `None`
            where no Keras layer has this tensor as its output.
        mean_lsb: mean of that difference, or `None`.
        exact: share of elements that equal the Keras layer's, or `None`.
    """

    name: str
    operator: str
    reference_max_lsb: float
    bound: float
    max_lsb: float | None
    mean_lsb: float | None
    exact: float | None

    @property
    def deviates(self):
        """Whether the operator computes something else than it should."""
        return self.reference_max_lsb > self.bound


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """How a file's outputs compare, over every output of every sample.

    Differences are in output steps: multiples of the output's scale.

    Attributes:
        num_samples: samples that were run.
        num_outputs: elements that were compared.
        reference_exact: whether the file equals the code-domain reference on
            every output.
        reference_max_lsb: largest difference from the reference.
        within_bounds: whether every operator computes what it should, given
            its inputs in the file: exactly, or, for the few that the export
            report names, within their bound; and whether every output is
            near `model.predict`: at least 10 dB, or at most 4 steps off.
        max_lsb: largest difference from `model.predict`.
        mean_lsb: mean difference from `model.predict`.
        exact: share of outputs that equal `model.predict`.
        top1_agreement: share of samples whose largest output is the same as
            that of `model.predict`.
        resolver: the kernels that ran.
        undelegated: operators that the delegate did not take, in order.
        per_output: an `OutputParity` for each output of the model.
        layers: a `LayerParity` for each tensor inside of the file, where
            they were asked for or an operator deviates.
        outputs: the file's real-valued outputs, one array per model output.
        predicted: those of `model.predict`.
    """

    num_samples: int
    num_outputs: int
    reference_exact: bool
    reference_max_lsb: float
    within_bounds: bool
    max_lsb: float
    mean_lsb: float
    exact: float
    top1_agreement: float
    resolver: str
    undelegated: tuple
    per_output: tuple
    layers: tuple = ()
    outputs: list = dataclasses.field(default_factory=list, repr=False)
    predicted: list = dataclasses.field(default_factory=list, repr=False)

    @property
    def first_deviation(self):
        """Name of the first layer whose operator deviates, or `None`."""
        return next((r.name for r in self.layers if r.deviates), None)

    def __str__(self):
        verdict = "equal on all" if self.reference_exact else "NOT equal on all"
        lines = [
            f"file and code-domain reference: {verdict} {self.num_outputs:,} "
            f"outputs of {self.num_samples:,} samples, largest difference "
            f"{self.reference_max_lsb:g} steps ({self.resolver})",
            f"file and model.predict: largest difference {self.max_lsb:.0f} "
            f"steps, mean {self.mean_lsb:.4f}, {self.exact:.3%} equal, "
            f"top-1 agreement {self.top1_agreement:.2%}",
        ]
        if not self.reference_exact and self.within_bounds:
            lines.append(
                "every operator is within its stated bound, given its inputs"
            )
        for row in self.per_output:
            if not row.is_near:
                lines.append(
                    f"far from model.predict: {row.name}, {row.snr_db:.1f} dB"
                )
        for row in self.per_output:
            if row.float_db is not None:
                lines.append(
                    f"file and float model: {row.name}, {row.float_db:.1f} dB "
                    "signal to noise"
                )
        if self.undelegated:
            names = ", ".join(dict.fromkeys(self.undelegated))
            lines.append(
                f"not delegated: {len(self.undelegated)} operators ({names})"
            )
        if self.first_deviation is not None:
            lines.append(f"first layer that deviates: {self.first_deviation}")
        if len(self.per_output) > 1:
            lines += ["", _output_table(self.per_output)]
        if self.layers:
            lines += ["", _layer_table(self.layers)]
        return printable_lines("\n".join(lines))

    def to_dict(self):
        """Everything but the arrays, of types that JSON has."""
        fields = {f.name: getattr(self, f.name) for f in _fields(self)}
        fields["per_output"] = [
            dataclasses.asdict(r)
            | {"snr_db": bounded(r.snr_db)}
            | {"float_db": None if r.float_db is None else bounded(r.float_db)}
            for r in self.per_output
        ]
        fields["layers"] = [
            dataclasses.asdict(r) | {"deviates": r.deviates}
            for r in self.layers
        ]
        return fields | {"first_deviation": self.first_deviation}

    def to_json(self):
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2)


def _fields(report):
    arrays = ("outputs", "predicted")
    return [f for f in dataclasses.fields(report) if f.name not in arrays]


def _output_table(rows):
    header = ("output", "= reference", "max", "mean", "equal", "top-1")
    cells = [
        (
            r.name,
            "yes" if r.reference_exact else f"NO, {r.reference_max_lsb:g}",
            f"{r.max_lsb:.0f}",
            f"{r.mean_lsb:.4f}",
            f"{r.exact:.2%}",
            f"{r.top1_agreement:.2%}",
        )
        for r in rows
    ]
    return format_table(header, cells)


def _layer_table(rows):
    header = ("layer", "operator", "= reference", "max", "mean", "equal")
    return format_table(header, [_layer_cells(r) for r in rows], num_left=2)


def _layer_cells(row):
    verdict = "yes"
    if row.reference_max_lsb:
        difference = np.format_float_positional(row.reference_max_lsb, 3)
        verdict = f"{'NO' if row.deviates else 'bound'}, {difference}"
    if row.max_lsb is None:
        return row.name, row.operator, verdict, "", "", ""
    return (
        row.name,
        row.operator,
        verdict,
        f"{row.max_lsb:.0f}",
        f"{row.mean_lsb:.4f}",
        f"{row.exact:.2%}",
    )
