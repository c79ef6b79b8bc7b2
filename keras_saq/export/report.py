"""`ExportReport`: what `export_litert` wrote, and what to expect of it."""

import dataclasses

from keras_saq.export.contents import read_contents
from keras_saq.export.file_report import FileReport
from keras_saq.export.kernels import KERNELS
from keras_saq.export.parity import ParityReport
from keras_saq.plain_text import printable
from keras_saq.table import format_table

# Kernels that move codes and round nothing, whoever runs them.
_MOVES = (
    "CONCATENATION",
    "MAX_POOL_2D",
    "PAD",
    "RESHAPE",
    "SPACE_TO_DEPTH",
    "STRIDED_SLICE",
    "TRANSPOSE",
)


@dataclasses.dataclass(frozen=True)
class LayerBytes:
    """Bytes of a layer's codes, scales and biases.

    Attributes:
        path: the layer's path.
        predicted: what `keras_saq.summary` and the search count for it.
        actual: what the file holds for it.
    """

    path: str
    predicted: int
    actual: int


@dataclasses.dataclass(frozen=True)
class ErrorSource:
    """Where a file may differ from the code-domain reference.

    Attributes:
        path: the layer.
        reason: why.
        bound: the largest difference in steps of that layer's output, given
            the same inputs; `None` where none is known.
    """

    path: str
    reason: str
    bound: float | None

    def __str__(self):
        bound = "no bound" if self.bound is None else f"{self.bound:g} steps"
        return f"{self.path}: {self.reason} (at most {bound})".replace(
            "(at most no bound)", "(no bound is known)"
        )


@dataclasses.dataclass(frozen=True)
class ExportReport(FileReport):
    """What `export_litert` wrote: a `FileReport`, and where it comes from.

    Attributes:
        islands: `(layer path, reason)` of computations that stay in float.
        layer_bytes: a `LayerBytes` for each layer with weights.
        error_sources: an `ErrorSource` for each operator that may differ
            from the code-domain reference; empty for an exact file.
        parity: the `ParityReport` of an export with `verify=`, or `None`.
    """

    islands: tuple = ()
    layer_bytes: tuple = ()
    error_sources: tuple = ()
    parity: ParityReport | None = None

    @property
    def predicted_bytes(self):
        """What the cost model counts for all layers together."""
        return sum(row.predicted for row in self.layer_bytes)

    def to_dict(self):
        """The report as plain data, arrays left out."""
        parity = None if self.parity is None else self.parity.to_dict()
        # Without the arrays that a deep copy would take along.
        plain = dataclasses.replace(self, parity=None)
        fields = super(ExportReport, plain).to_dict()
        return fields | {
            "predicted_bytes": self.predicted_bytes,
            "parity": parity,
        }

    def _headlines(self):
        lines = super()._headlines()
        actual = sum(row.actual for row in self.layer_bytes)
        lines.append(
            f"codes, scales and biases: {actual:,} bytes, "
            f"{self.predicted_bytes:,} predicted"
        )
        for path, reason in self.islands:
            lines.append(f"float island: {path}: {reason}")
        if self.error_sources:
            lines += [f"not exact: {source}" for source in self.error_sources]
        else:
            lines.append("every integer operator is exact")
        if self.parity is not None:
            lines.append(str(self.parity))
        return lines

    def _tables(self):
        rows = [
            (row.path, f"{row.predicted:,}", f"{row.actual:,}")
            for row in self.layer_bytes
        ]
        yield format_table(("layer", "predicted bytes", "actual"), rows)
        yield ""
        yield from super()._tables()


def export_report(path, content, program, model):
    """The report of a file's bytes.

    Args:
        path: where the file is, or will be.
        content: its bytes.
        program: the `Program` that was written.
        model: the Keras model that the program was made from.

    Raises:
        ValueError: if LiteRT does not load the file.
    """
    contents = read_contents(path, content)
    if contents["problem"] is not None:
        raise ValueError(
            f"LiteRT does not load the file that was made of '{model.name}', "
            f"and it was not written: {contents['problem']}"
        )
    return ExportReport(
        **contents,
        islands=tuple(program.islands),
        layer_bytes=_layer_bytes(program, model, contents["tensors"]),
        error_sources=_error_sources(program, contents["operations"]),
    )


def _layer_bytes(program, model, tensors):
    # Here, because the cost models bring a solver along.
    from keras_saq.search import layer_costs

    sizes = {t.name: t.num_bytes for t in tensors}
    actual = {}
    for op in program.ops:
        size = 0
        if op.weights is not None:
            parts = (f"{op.output.name}/weights", f"{op.output.name}/bias")
            size = sum(sizes.get(printable(part), 0) for part in parts)
            size += op.weights.scale.nbytes
        for tensor in op.inputs:
            if tensor.is_constant:
                size += sizes.get(printable(tensor.name), 0)
                if tensor.scale is not None:
                    size += getattr(tensor.scale, "nbytes", 4)
        if size and op.path:
            actual[op.path] = actual.get(op.path, 0) + size
    predicted = {}
    for row in layer_costs(model, count_operations=False):
        predicted[row.path] = predicted.get(row.path, 0) + row.stored_bytes
    return tuple(
        LayerBytes(path, predicted.get(path, 0), actual.get(path, 0))
        for path in dict.fromkeys([*predicted, *actual])
    )


def _error_sources(program, operations):
    sources = [
        ErrorSource(
            op.path or op.output.name,
            "it ends a float computation whose last bits differ",
            float(op.max_steps),
        )
        for op in program.inexact_ops
    ]
    made_by = {printable(op.output.name): op for op in program.ops}
    for operation in operations:
        op = made_by.get(operation.output)
        if operation.is_delegated or op is None or op.output.is_float:
            continue
        name = KERNELS[op.kind].operator
        if name not in _MOVES and not op.max_steps:
            sources.append(
                ErrorSource(
                    op.path or op.output.name,
                    f"XNNPACK does not take this {name}, and the built-in "
                    "kernel rounds in another way",
                    None,
                )
            )
    return tuple(sources)
