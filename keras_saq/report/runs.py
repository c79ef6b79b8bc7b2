"""Results of several trainings, and their table of means and spreads."""

import dataclasses

import numpy as np

from keras_saq.table import format_table


@dataclasses.dataclass
class Run:
    """One training, exported and verified. Shares are in 0..1.

    Attributes:
        bits: preset, or `"float"`.
        method: `"float"`, `"qat"` or `"saq"`.
        seed: seed of weights, data order and dropout.
        keras_accuracy: of the Keras model on the test set.
        file_accuracy: of the written file on the test set.
        file_bytes: size of the file.
        max_lsb: largest difference of file and `predict`, in output steps.
        exact: share of outputs that are equal.
        top1_agreement: share of samples with the same largest output.
        reference_exact: whether the file equals the code-domain reference.
        resolver: kernels that ran the file.
    """

    bits: str
    method: str
    seed: int
    keras_accuracy: float
    file_accuracy: float | None = None
    file_bytes: int | None = None
    max_lsb: float | None = None
    exact: float | None = None
    top1_agreement: float | None = None
    reference_exact: bool | None = None
    resolver: str | None = None

    @property
    def label(self):
        if self.bits == "float":
            return "float"
        return f"{self.bits} {self.method.upper()}"


class RunTable:
    """Runs grouped by variant, over seeds."""

    HEADER = (
        "model",
        "Keras accuracy",
        "file accuracy",
        "file bytes",
        "largest difference",
        "equal outputs",
        "top-1 agreement",
        "file = reference",
    )

    def __init__(self, runs):
        self.runs = list(runs)
        self.groups = {}
        for run in self.runs:
            self.groups.setdefault(run.label, []).append(run)

    def as_dicts(self):
        """The runs as plain dicts, for JSON."""
        return [dataclasses.asdict(run) for run in self.runs]

    @property
    def resolvers(self):
        """The kernels that ran the files."""
        return sorted({run.resolver for run in self.runs if run.resolver})

    def rows(self):
        """Text cells, one row per variant."""
        return [
            (
                label,
                _percent(run.keras_accuracy for run in runs),
                _percent(run.file_accuracy for run in runs),
                _one(runs, "file_bytes", "{:,.0f}", np.mean),
                _one(runs, "max_lsb", "{:.0f} steps", np.max),
                _one(runs, "exact", "{:.2%}", np.mean),
                _one(runs, "top1_agreement", "{:.2%}", np.mean),
                _all_exact(runs),
            )
            for label, runs in self.groups.items()
        ]

    def __str__(self):
        return format_table(self.HEADER, self.rows())


def _values(runs, name):
    return [v for run in runs if (v := getattr(run, name)) is not None]


def _one(runs, name, text, reduce):
    values = _values(runs, name)
    return text.format(reduce(values)) if values else "-"


def _percent(values):
    values = [v for v in values if v is not None]
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.2%}"
    spread = 100 * np.std(values, ddof=1)
    return f"{100 * np.mean(values):.2f} ± {spread:.2f} %"


def _all_exact(runs):
    values = _values(runs, "reference_exact")
    if not values:
        return "-"
    return "every output" if all(values) else "NO"
