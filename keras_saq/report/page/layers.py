"""What was quantized, with how many bits, and what that costs."""

from keras_saq.report.page import axes
from keras_saq.report.page import numbers
from keras_saq.report.page import strips
from keras_saq.report.page.markup import details
from keras_saq.report.page.markup import join
from keras_saq.report.page.markup import legend
from keras_saq.report.page.markup import paragraph
from keras_saq.report.page.markup import places
from keras_saq.report.page.markup import table
from keras_saq.report.page.markup import tag

TITLE = "Layers: bits, bytes, bit operations"
_FLOAT = 32
_OPEN_ROWS = 12
_HEADER = (
    "no.",
    "layer",
    "type",
    "weight bits",
    "input bits",
    "a scale per",
    "zeros",
    "MACs (M)",
    "BOPs (M)",
    "stored (kB)",
)


def render(report):
    """The section, or `None` where no layer has weights."""
    rows = report["model"]["layers"]
    if not rows:
        return None
    return join(
        [
            paragraph(
                "Weights are stored as integers of few bits, and a layer reads "
                "integers too; fewer bits are smaller and faster, and harder "
                "to keep accurate. Layers are numbered in the order in which "
                "data goes through them."
            ),
            legend(
                [("s0", "weights"), ("s1", "what the layer reads")]
                + ([("float", "float, 32 bits")] if _has_float(rows) else [])
            ),
            *_strips(rows),
            paragraph(
                "A bit operation (BOP) is one multiplication of one bit by "
                "one bit: multiplications × weight bits × input bits. Bytes "
                "are those of codes, scales and biases."
            ),
            _table(rows),
            *_floats(report),
            *_nearness(report["model"].get("comparison")),
        ]
    )


def _has_float(rows):
    return any(
        _FLOAT in (row["weight_bits"], row["activation_bits"]) for row in rows
    )


def _strips(rows):
    kinds = (
        ("weight_bits", "bits of a weight", 0),
        ("activation_bits", "bits of what the layer reads", 1),
    )
    for key, caption, color in kinds:
        values = [row[key] for row in rows]
        top = max([8, *(v for v in values if v != _FLOAT)])
        yield strips.bars(
            caption,
            values,
            _titles(rows, lambda row: f"{_bits(row[key])} bits"),
            list(range(0, top + 1, max(2, top // 4))),
            color,
            top,
            [value == _FLOAT for value in values],
        )
    for key, what, color in (
        ("stored_bytes", "B in the file", 0),
        ("bops", "bit operations per inference", 2),
    ):
        divisor, prefix = numbers.unit_for(row[key] for row in rows)
        values = [row[key] / divisor for row in rows]
        top = 1.05 * max(values) or 1.0
        ticks = axes.ticks(0, top)
        unit = f"{prefix}{what}" if what.startswith("B") else what
        if prefix and not what.startswith("B"):
            unit = f"{what} ({_word(prefix)})"
        yield strips.bars(
            unit,
            values,
            _titles(rows, lambda row: f"{row[key]:,}"),
            ticks,
            color,
            top,
        )


def _word(prefix):
    return {"k": "thousands", "M": "millions", "G": "thousand millions"}[prefix]


def _titles(rows, text):
    return [f"{i}. {r['path']}: {text(r)}" for i, r in enumerate(rows, 1)]


def _bits(bits):
    return "float" if bits == _FLOAT else str(bits)


def _table(rows):
    cells = [
        (
            i,
            row["path"],
            row["layer_type"],
            _bits(row["weight_bits"]),
            _bits(row["activation_bits"]),
            row["granularity"],
            numbers.percent(row["zero_share"], 0),
            f"{row['macs'] / 1e6:,.3f}",
            f"{row['bops'] / 1e6:,.2f}",
            f"{row['stored_bytes'] / 1e3:,.2f}",
        )
        for i, row in enumerate(rows, 1)
    ]
    total = [sum(row[k] for row in rows) for k in ("macs", "bops")]
    size = sum(row["stored_bytes"] for row in rows)
    cells.append(
        (
            "",
            "all",
            *[""] * 5,
            f"{total[0] / 1e6:,.3f}",
            f"{total[1] / 1e6:,.2f}",
            f"{size / 1e3:,.2f}",
        )
    )
    found = table("Every layer with weights", _HEADER, cells, num_text=3)
    if len(rows) <= _OPEN_ROWS:
        return found
    return details(f"Table of all {len(rows)} layers", found)


def _nearness(found):
    """The outputs against the float model's, when scales were taken."""
    if not found:
        return
    yield tag("h3", "How near the float model")
    yield paragraph(
        "Signal-to-noise ratio of each output against the float model's, on "
        f"{found['num_samples']} calibration samples, before any training: 20 "
        "dB is a noise of a tenth of the signal, 40 dB of a hundredth."
    )
    yield table(
        "Outputs against the float model",
        ("output", "dB", "its worst channel, dB"),
        [
            (
                row["name"],
                f"{row['db']:.1f}",
                f"{row['worst_channel']}: {row['worst_channel_db']:.1f}",
            )
            for row in found["outputs"]
        ],
    )


def _floats(report):
    kept = report["model"]["stays_in_float"]
    yield tag("h3", "What stays in float")
    if not report["model"]["quantized_weight_share"]:
        yield paragraph("The model is not quantized: everything.")
        return
    if not kept:
        yield paragraph(
            "Nothing: every layer that the model has can be computed in "
            "integers."
        )
        return
    yield paragraph(
        "These are computed in float, because they have no exact integer form "
        "or because a rule of the policy says so."
    )
    reasons = {}
    for row in kept:
        key = row["reason"], row["layer_type"]
        reasons.setdefault(key, []).append(row["path"])
    yield table(
        "Layers and operations in float, by reason",
        ("why", "type", "how many", "where"),
        [
            (reason, layer_type, len(paths), places(paths))
            for (reason, layer_type), paths in reasons.items()
        ],
        num_text=4,
    )
