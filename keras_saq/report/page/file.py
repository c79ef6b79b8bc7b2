"""The integer file: parity, what takes the bytes, what computes in float."""

from keras_saq.report.page import charts
from keras_saq.report.page import numbers
from keras_saq.report.page import strips
from keras_saq.report.page.head import proof_sentence
from keras_saq.report.page.markup import details
from keras_saq.report.page.markup import join
from keras_saq.report.page.markup import legend
from keras_saq.report.page.markup import paragraph
from keras_saq.report.page.markup import places
from keras_saq.report.page.markup import table
from keras_saq.report.page.markup import tag

TITLE = "The integer file"
_OPEN_ROWS = 12


def render(report):
    """The section, or `None` without a file or a comparison."""
    file, parity = report.get("file"), report.get("parity")
    if file is None and parity is None:
        return None
    parts = []
    if parity is not None:
        parts += _parity(parity)
    if file is not None:
        parts += [*_float(file), *_bytes(file), *_operators(file)]
    return join(parts)


# --- Parity


def _parity(parity):
    yield paragraph(
        "The file was run on given data and compared with two things: with "
        "the integer reference, which is what its operators are specified to "
        "compute and must be met exactly, and with ",
        tag("code", "predict"),
        " of the Keras model, which computes in float and may be a step "
        "away. A step is the smallest difference that an output can have.",
    )
    style = "ok" if parity["within_bounds"] else "bad"
    mark = "✓" if parity["within_bounds"] else "✗"
    yield tag("p", f"{mark} {proof_sentence(parity)}", class_=style)
    yield table(
        f"Every output; run with {parity['resolver']}",
        (
            "output",
            "= reference",
            "one step",
            "largest difference",
            "mean",
            "equal",
            "same top-1",
        ),
        [
            (
                row["name"],
                "yes"
                if row["reference_exact"]
                else f"no, {numbers.steps(row['reference_max_lsb'])}",
                numbers.short(row["step"]),
                numbers.steps(row["max_lsb"]),
                numbers.steps(row["mean_lsb"]),
                numbers.percent(row["exact"]),
                numbers.percent(row["top1_agreement"]),
            )
            for row in parity["per_output"]
        ],
    )
    if not parity["layers"]:
        return
    deviating = [row for row in parity["layers"] if row["deviates"]]
    title = f"Table of all {len(parity['layers'])} tensors inside of the file"
    if deviating:
        title += f", {len(deviating)} of which deviate"
    yield details(title, _layers(parity["layers"]))


def _layers(rows):
    return table(
        "Each tensor, in steps of its own: from the reference given the "
        "file's own inputs, and from the Keras layer",
        (
            "tensor",
            "operator",
            "= reference",
            "bound",
            "from Keras, largest",
            "mean",
            "equal",
        ),
        [
            (
                row["name"],
                row["operator"],
                _verdict(row),
                numbers.short(row["bound"]),
                numbers.short(row["max_lsb"]),
                numbers.short(row["mean_lsb"]),
                numbers.percent(row["exact"]),
            )
            for row in rows
        ],
        num_text=2,
    )


def _verdict(row):
    if not row["reference_max_lsb"]:
        return "yes"
    word = "NO" if row["deviates"] else "within bound"
    return f"{word}, {numbers.short(row['reference_max_lsb'], 3)}"


# --- What computes in float


def _float(file):
    yield tag("h3", "What the file computes in float")
    if file["islands"]:
        yield table(
            "Float islands, and why",
            ("why", "how many", "where"),
            _by_reason(file["islands"]),
            num_text=3,
        )
    elif file["float_operators"]:
        yield paragraph(", ".join(file["float_operators"]))
    else:
        yield paragraph(
            "Nothing but the conversion of inputs and outputs, where they are "
            "floats."
        )
    if file["error_sources"]:
        yield table(
            "Where it may differ from the reference",
            ("why", "how many", "where"),
            _by_reason(
                (row["path"], _reason(row)) for row in file["error_sources"]
            ),
            num_text=3,
        )


def _reason(row):
    if row["bound"] is None:
        return row["reason"]
    return f"{row['reason']}, by at most {numbers.steps(row['bound'])}"


def _by_reason(pairs):
    """Rows of `(reason, how many, where)` from pairs of path and reason."""
    found = {}
    for path, reason in pairs:
        found.setdefault(reason, []).append(path)
    return [
        (reason, len(paths), places(paths)) for reason, paths in found.items()
    ]


# --- Bytes


def _bytes(file):
    yield tag("h3", "What takes the bytes")
    sizes = {}
    for tensor in file["tensors"]:
        sizes[tensor["type"]] = (
            sizes.get(tensor["type"], 0) + tensor["num_bytes"]
        )
    # Constants that tensors share are stored once.
    shared = sum(sizes.values()) - file["constant_bytes"]
    parts = sorted(sizes.items(), key=lambda item: -item[1])
    parts = [(_kind(name), size) for name, size in parts if size]
    parts.append(("graph, names, scales", file["structure_bytes"]))
    total = sum(size for _, size in parts)
    colors = [f"s{i % charts.COLORS}" for i in range(len(parts) - 1)]
    colors.append("float")
    yield strips.split(
        [(c, size / total) for c, (_, size) in zip(colors, parts)],
        "Parts of the file by size: "
        + ", ".join(f"{name} {size:,} bytes" for name, size in parts),
    )
    yield legend(
        [
            (
                color,
                f"{name}: {size:,} bytes, {numbers.percent(size / total, 1)}",
            )
            for color, (name, size) in zip(colors, parts)
        ]
    )
    text = f"{file['file_bytes']:,} bytes together."
    if shared:
        text += f" {shared:,} bytes of constants are shared and stored once."
    yield paragraph(text)
    rows = file["layer_bytes"]
    if not rows:
        return
    found = table(
        "Codes, scales and biases of each layer: in the file, and as "
        "predicted before it was written",
        ("no.", "layer", "bytes in the file", "predicted"),
        [
            (i, row["path"], f"{row['actual']:,}", f"{row['predicted']:,}")
            for i, row in enumerate(rows, 1)
        ],
        num_text=2,
    )
    if len(rows) > _OPEN_ROWS:
        found = details(f"Table of the bytes of {len(rows)} layers", found)
    yield found


def _kind(name):
    """What constants of a type are."""
    meanings = {
        "INT2": "2-bit codes",
        "INT4": "4-bit codes",
        "INT8": "8-bit codes",
        "INT32": "biases, shapes",
        "FLOAT32": "float constants",
    }
    return f"{name}, {meanings[name]}" if name in meanings else name


def _operators(file):
    yield tag("h3", "Operators")
    missing = dict.fromkeys(file["undelegated"])
    if file["problem"]:
        yield tag(
            "p",
            f"LiteRT does not load it here: {file['problem']}",
            class_="bad",
        )
    elif missing:
        yield paragraph(
            f"XNNPACK, the fast kernels, does not take {', '.join(missing)}; "
            "the built-in kernels run them."
        )
    else:
        yield paragraph("XNNPACK, the fast kernels, takes all of them.")
    yield table(
        "How often each operator occurs",
        ("operator", "count"),
        file["operators"].items(),
    )
