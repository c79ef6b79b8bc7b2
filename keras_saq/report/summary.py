"""`keras_saq.summary`: a table per layer, and the totals."""

import dataclasses

from keras_saq.report.table import format_table
from keras_saq.search import LayerCost
from keras_saq.search import layer_costs


@dataclasses.dataclass(frozen=True)
class Summary:
    """Per layer bits and cost of a model, and their totals.

    Attributes:
        rows: list of `keras_saq.search.LayerCost`, one per layer call.
        bops: bit operations of one inference.
        macs: multiplications of one inference.
        stored_bytes: bytes of all weights, scales and biases in the file.
    """

    rows: list[LayerCost]

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
        header = (
            "layer",
            "type",
            "weight bits",
            "input bits",
            "MACs (M)",
            "BOPs (M)",
            "stored (kB)",
        )
        rows = [
            (
                row.path,
                row.layer_type,
                str(row.weight_bits),
                str(row.activation_bits),
                f"{row.macs / 1e6:.3f}",
                f"{row.bops / 1e6:.2f}",
                f"{row.stored_bytes / 1e3:.2f}",
            )
            for row in self.rows
        ]
        total = (
            "total",
            "",
            "",
            "",
            f"{self.macs / 1e6:.3f}",
            f"{self.bops / 1e6:.2f}",
            f"{self.stored_bytes / 1e3:.2f}",
        )
        return format_table(header, [*rows, total], num_left=2)


def summary(model, print_fn=None):
    """Prints bits and cost of every layer with weights, and returns them.

    Args:
        model: a quantized or float model.
        print_fn: where the table goes; by default the standard output.
            `False` prints nothing.

    Returns:
        A `Summary` with `.rows`, `.bops`, `.macs` and `.stored_bytes`.

    Example:

    >>> import keras, keras_saq
    >>> inputs = keras.Input((16,))
    >>> model = keras.Model(inputs, keras.layers.Dense(4)(inputs))
    >>> keras_saq.summary(model, print_fn=False).macs
    64
    """
    result = Summary(layer_costs(getattr(model, "model", model)))
    if print_fn is not False:
        (print_fn or print)(str(result))
    return result
