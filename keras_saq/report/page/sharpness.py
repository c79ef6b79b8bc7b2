"""How flat the minimum is: numbers and the landscape around it."""

from keras_saq.report.page import charts
from keras_saq.report.page import numbers
from keras_saq.report.page.markup import join
from keras_saq.report.page.markup import paragraph
from keras_saq.report.page.markup import table

TITLE = "Sharpness and loss landscape"


def render(report):
    """The section, or `None` where it was not measured."""
    found = report.get("sharpness")
    if found is None:
        return None
    rho = next(iter(found["by_model"].values()))["rho"]
    samples = numbers.samples(report, found["samples"])
    parts = [
        paragraph(
            "A flat minimum stays good when weights move a little, as "
            "rounding moves them; a sharp one does not. Sharpness is by how "
            f"much the loss rises after one step of length {rho:g} in the "
            "direction in which it rises most, and the largest eigenvalue of "
            "the Hessian is the curvature in the most curved direction. Lower "
            f"is flatter. Measured on {samples}."
        ),
        _table(found["by_model"]),
    ]
    if found["landscape"] is not None:
        parts += _landscapes(report, found["landscape"])
    return join(parts)


def _table(by_model):
    return table(
        "Sharpness of the quantized models, in units of the loss",
        (
            "model",
            "loss",
            "rise",
            "norm of gradient",
            "eigenvalue",
            "converged",
        ),
        [
            (
                label,
                *(
                    numbers.short(row[key])
                    for key in ("loss", "rise", "gradient_norm", "eigenvalue")
                ),
                "yes"
                if row["converged"]
                else f"no, {row['iterations']} iterations",
            )
            for label, row in by_model.items()
        ],
    )


def _landscapes(report, landscape):
    steps, losses = landscape["steps"], landscape["losses"]
    values = [
        v
        for grid in losses.values()
        for line in grid
        for v in line
        if v is not None
    ]
    if not values:
        return [paragraph("The loss around the weights is not finite.")]
    low, high = min(values), max(values)
    filled = {
        label: [[high if v is None else v for v in line] for line in grid]
        for label, grid in losses.items()
    }
    center = len(steps) // 2
    slices = [
        (
            label,
            report["colors"][label],
            False,
            steps,
            [line[center] for line in grid],
        )
        for label, grid in losses.items()
    ]
    count = len(steps)
    figures = [
        charts.landscape(
            label,
            steps,
            grid,
            low,
            high,
            f"{count} × {count} points, linear in between; the circle is the "
            "model itself",
        )
        for label, grid in filled.items()
    ]
    figures.append(
        charts.curves(
            "Cut along direction 1",
            slices,
            "step along direction 1",
            "loss",
            "the middle row of the maps",
        )
    )
    return [
        paragraph(
            "The maps show the loss when all weights are moved along two "
            "random directions; a step of 1 is as long as the weights "
            "themselves, filter by filter. All have the same directions, axes "
            "and colours."
        ),
        charts.run_legend({n: report["colors"][n] for n in losses}),
        charts.plots(figures),
    ]
