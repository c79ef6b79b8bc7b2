"""`keras_saq.summary`: a table per layer, and the totals."""

import dataclasses

from keras_saq.layers.storage import FLOAT_BITS
from keras_saq.models import Comparison
from keras_saq.models import FloatLayer
from keras_saq.models.comparison import output_line
from keras_saq.models.wrapper import inner_model
from keras_saq.search import LayerCost
from keras_saq.search import layer_costs
from keras_saq.table import format_table

_HEADER = (
    "layer",
    "type",
    "weight bits",
    "input bits",
    "scale per",
    "zeros",
    "MACs (M)",
    "BOPs (M)",
    "stored (kB)",
)


@dataclasses.dataclass(frozen=True)
class Summary:
    """Per layer bits and cost of a model, and their totals.

    Attributes:
        rows: list of `keras_saq.search.LayerCost`, one per layer call.
        floats: list of `keras_saq.models.FloatLayer`: what stayed in float
            when the model was quantized, and why.
        comparison: the `Comparison` with the float model on calibration data,
            or `None`.
        bops: bit operations of one inference.
        macs: multiplications of one inference.
        stored_bytes: bytes of all weights, scales and biases in the file.
    """

    rows: list[LayerCost]
    floats: list[FloatLayer] = dataclasses.field(default_factory=list)
    comparison: Comparison | None = None

    @property
    def bops(self):
        return sum(row.bops for row in self.rows)

    @property
    def macs(self):
        return sum(row.macs for row in self.rows)

    @property
    def stored_bytes(self):
        return sum(row.stored_bytes for row in self.rows)

    def __str__(self):
        rows = [
            (
                row.path,
                row.layer_type,
                _bits(row.weight_bits),
                _bits(row.activation_bits),
                row.granularity,
                f"{row.zero_share:.0%}",
                f"{row.macs / 1e6:.3f}",
                f"{row.bops / 1e6:.2f}",
                f"{row.stored_bytes / 1e3:.2f}",
            )
            for row in self.rows
        ]
        total = (
            *("total", "", "", "", "", ""),
            f"{self.macs / 1e6:.3f}",
            f"{self.bops / 1e6:.2f}",
            f"{self.stored_bytes / 1e3:.2f}",
        )
        text = format_table(_HEADER, [*rows, total], num_left=2)
        if self.floats:
            lines = [(f.path, f.layer_type, f.reason) for f in self.floats]
            header = ("stays in float", "type", "why")
            text += "\n\n" + format_table(header, lines, num_left=3)
        if self.comparison is not None:
            lines = map(output_line, self.comparison.outputs)
            title = "signal to noise against the float model, before training:"
            text += "\n\n" + "\n".join([title, *lines])
        return text


def _bits(bits):
    return "float" if bits == FLOAT_BITS else str(bits)


def summary(model, print_fn=None):
    """Prints bits and cost of every layer with weights, and returns them.

    Args:
        model: a quantized or float model.
        print_fn: where the table goes; by default the standard output.
            `False` prints nothing.

    Returns:
        A `Summary` with `.rows`, `.floats`, `.bops`, `.macs` and
        `.stored_bytes`.

    Example:

    >>> import keras, keras_saq
    >>> inputs = keras.Input((16,))
    >>> model = keras.Model(inputs, keras.layers.Dense(4)(inputs))
    >>> keras_saq.summary(model, print_fn=False).macs
    64
    """
    model = inner_model(model)
    floats = getattr(model, "float_layers", [])
    comparison = getattr(model, "comparison", None)
    result = Summary(layer_costs(model), list(floats), comparison)
    if print_fn is not False:
        (print_fn or print)(str(result))
    return result
