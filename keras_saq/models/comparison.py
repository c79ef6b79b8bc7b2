"""What a comparison with the float model found, and how it is shown."""

import dataclasses

import numpy as np

from keras_saq.plain_text import printable
from keras_saq.table import format_table

_LISTED = 8
# Layers with more have nothing that needs a mend.
_MENDED_DB = 30.0


@dataclasses.dataclass(frozen=True)
class OutputRow:
    """How near one output of the model is.

    Attributes:
        name: of the output.
        db: signal-to-noise ratio in dB: 10 log10 of the float output's energy
            over that of the difference.
        worst_channel: index on the last axis of the channel that is worst.
        worst_channel_db: its ratio.
        is_real: whether it has real numbers. Of indices and decisions the
            ratio is 10 log10 of 1 over the share that differs.
    """

    name: str
    db: float
    worst_channel: int = 0
    worst_channel_db: float = np.inf
    is_real: bool = True


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """What quantizing does to the result of one layer.

    Attributes:
        path: of the layer, and which call of it where there are several.
        layer_type: its class.
        here_db: signal-to-noise ratio of the quantized layer, given what it
            reads in the float model: the error made here.
        passed_db: that of the layer inside of the quantized model: the error
            made here and all that is passed on to it.
        cause: what most likely makes the error.
        mend: a rule, as code, that makes it smaller.
    """

    path: str
    layer_type: str
    here_db: float
    passed_db: float
    cause: str = ""
    mend: str = ""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What `compare` found; printed, tables.

    Attributes:
        outputs: an `OutputRow` for each output of the model, in order.
        rows: a `LayerRow` for each layer that computes with quantized numbers
            and makes real ones, the largest error made first.
        num_samples: samples that were compared.
    """

    outputs: tuple
    rows: tuple
    num_samples: int

    @property
    def db(self):
        """The ratio of the output that is worst."""
        return min(row.db for row in self.outputs)

    @classmethod
    def from_dict(cls, data):
        """The `Comparison` that `to_dict` made plain data of."""
        return cls(
            tuple(OutputRow(**row) for row in data["outputs"]),
            tuple(LayerRow(**row) for row in data["rows"]),
            data["num_samples"],
        )

    def to_dict(self):
        """Everything, of types that JSON has; no ratio is larger than 999."""

        def plain(row):
            return {
                key: bounded(value) if isinstance(value, float) else value
                for key, value in dataclasses.asdict(row).items()
            }

        return {
            "num_samples": self.num_samples,
            "outputs": [plain(row) for row in self.outputs],
            "rows": [plain(row) for row in self.rows],
        }

    def worst(self, number=_LISTED):
        """The rows of the largest errors, as a table."""
        return format_table(
            ("layer", "type", "dB here", "dB so far", "likely cause"),
            [
                (
                    row.path,
                    row.layer_type,
                    _shown(row.here_db),
                    _shown(row.passed_db),
                    row.cause,
                )
                for row in self.rows[:number]
            ],
        )

    def mends(self, number=3):
        """The rules that help most, as code."""
        mends = [row.mend for row in self.rows if row.here_db < _MENDED_DB]
        return list(dict.fromkeys(mends))[:number]

    def __str__(self):
        lines = [
            f"quantized against float, {self.num_samples} samples, "
            "signal to noise:",
            *map(output_line, self.outputs),
            "",
            self.worst(),
        ]
        if len(self.rows) > _LISTED:
            lines.append(f"and {len(self.rows) - _LISTED} more")
        if self.mends():
            lines += [
                "",
                "Where that is too little, rules in front of the policy's:",
                *(f"    {mend}" for mend in self.mends()),
            ]
        return "\n".join(lines)


def output_line(row):
    line = f"  output {printable(row.name)}: {_shown(row.db)} dB"
    if row.worst_channel_db < row.db - 20:
        line += (
            f"; its channel {row.worst_channel}: "
            f"{_shown(row.worst_channel_db)} dB"
        )
    return line


def bounded(db):
    """A ratio that JSON can hold."""
    return float(np.clip(np.nan_to_num(db, nan=-999.0), -999.0, 999.0))


def _shown(db):
    return f"{db:.1f}" if np.isfinite(db) else ("exact" if db > 0 else "none")
