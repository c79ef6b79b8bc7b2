"""Weights on their quantization grids, and the scales."""

from keras_saq.report.page import charts
from keras_saq.report.page import numbers
from keras_saq.report.page import strips
from keras_saq.report.page.markup import details
from keras_saq.report.page.markup import folded
from keras_saq.report.page.markup import join
from keras_saq.report.page.markup import legend
from keras_saq.report.page.markup import paragraph
from keras_saq.report.page.markup import table

TITLE = "Weights on their grid"
_OPEN = 6


def render(report):
    """The section, or `None` where nothing is quantized."""
    weights, activations = report["weights"], report["activations"]
    drawn = [row for row in weights if row["scale"] is not None]
    if not drawn:
        return None
    return join(
        [
            paragraph(
                "A quantized weight is an integer code times a scale that was "
                "learned, so all weights of a layer sit on a grid. A bar is "
                "the share of weights that have this code. The line is what "
                "training sees, the float weights divided by their scale: "
                "each is rounded to the nearest code. Weights beyond the first "
                "or last code are clipped to it; those in code 0 do nothing."
            ),
            legend(
                [
                    ("bars-key", "quantized: share per code"),
                    ("line s0", "float weights / scale (2 to 4 bits)"),
                ]
            ),
            folded(
                [_histogram(row) for row in drawn],
                _OPEN,
                "{} more layers",
                charts.plots,
            ),
            *_scales(drawn),
            details(
                f"Table of all {len(weights) + len(activations)} quantizers",
                _weight_table(weights),
                _activation_table(activations) if activations else None,
            ),
        ]
    )


def _histogram(row):
    codes, size = row["codes"], row["size"]
    width = codes["width"]
    edges = [
        codes["first"] + i * width - 0.5
        for i in range(len(codes["counts"]) + 1)
    ]
    shares = [100 * count / size for count in codes["counts"]]
    outline = None
    if "latent" in row:
        fine = row["latent"]
        counts = fine["counts"]
        places = [
            fine["start"] + i * fine["step"] for i in range(len(counts) + 1)
        ]
        # Per whole code, as the bars are.
        outline = places, [100 * c / size / fine["step"] for c in counts]
    label = "code" if width == 1 else f"code, {width} codes a bar"
    return charts.histogram(
        f"{row['path']} {row['weight']}",
        label,
        edges,
        shares,
        outline,
        _note(row),
    )


def _note(row):
    parts = [
        f"{row['bits']} bits",
        f"scale {_scale(row['scale'])}",
        f"{numbers.percent(row['zero_share'], 1)} zero",
    ]
    if "clipped_share" in row:
        parts.append(f"{numbers.percent(row['clipped_share'], 1)} clipped")
    return "; ".join(parts)


def _scale(scale):
    if scale["count"] == 1:
        return numbers.short(scale["median"], 3)
    return (
        f"{numbers.short(scale['min'], 3)} to {numbers.short(scale['max'], 3)}"
        f" ({scale['count']} of them)"
    )


def _scales(rows):
    entries = [
        (
            row["scale"]["min"],
            row["scale"]["median"],
            row["scale"]["max"],
            f"{i}. {row['path']} {row['weight']}: {_scale(row['scale'])}",
        )
        for i, row in enumerate(rows, 1)
        if row["scale"]["min"] > 0
    ]
    if len(entries) == len(rows) > 1:
        yield strips.ranges(
            "scales of the weights, smallest to largest of a layer with the "
            "middle one marked, in units of the weights, logarithmic; by "
            "number of the quantized weight",
            entries,
            0,
        )


def _weight_table(rows):
    return table(
        "Quantizers of weights; a scale is in units of the weight",
        (
            "no.",
            "layer",
            "weight",
            "quantizer",
            "bits",
            "scales",
            "least scale",
            "median",
            "largest",
            "zeros",
            "clipped",
        ),
        [
            (
                i,
                row["path"],
                row["weight"],
                row["quantizer"],
                row["bits"],
                *_scale_cells(row["scale"]),
                numbers.percent(row.get("zero_share"), 1),
                numbers.percent(row.get("clipped_share"), 2),
            )
            for i, row in enumerate(rows, 1)
        ],
        num_text=4,
    )


def _scale_cells(scale):
    if scale is None:
        return ("none yet", "", "", "")
    return (
        scale["count"],
        *(numbers.short(scale[k]) for k in ("min", "median", "max")),
    )


def _activation_table(rows):
    return table(
        "Quantizers of tensors between layers; a scale is in units of the "
        "tensor",
        ("layer", "tensor", "quantizer", "codes", "bits", "scale"),
        [
            (
                row["path"],
                row["tensor"],
                row["quantizer"],
                {None: "", True: "signed", False: "unsigned"}[row["signed"]],
                row["bits"],
                "none yet"
                if row["scale"] is None
                else numbers.short(row["scale"]),
            )
            for row in rows
        ],
        num_text=4,
    )
