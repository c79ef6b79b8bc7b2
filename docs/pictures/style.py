"""How the pictures look, once for light pages and once for dark ones."""

import pathlib

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402

HERE = pathlib.Path(__file__).parent

# Inches. Narrow, so that a phone shrinks the letters only a little.
WIDTH = 4.6

MODES = {
    "light": {
        "text": "#1f2328",
        "faint": "#c9ced6",
        "blue": "#2f6db5",
        "orange": "#c4621a",
        "green": "#2c7f4f",
        "gray": "#7a828e",
    },
    "dark": {
        "text": "#dfe3e8",
        "faint": "#454b54",
        "blue": "#6fb0ff",
        "orange": "#f0a35e",
        "green": "#6fcf97",
        "gray": "#9aa2ad",
    },
}


def draw(name, plot, height, rows=1, **subplots):
    """Writes `<name>-light.svg` and `<name>-dark.svg` beside this file.

    Args:
        name: of the picture.
        plot: `function(axes, colors)`; `axes` is what `subplots` returns.
        height: of the picture, in inches.
        rows: panels, one below the other.
        **subplots: for `pyplot.subplots`.
    """
    for mode, colors in MODES.items():
        text = colors["text"]
        with pyplot.rc_context(
            {
                "font.size": 9.5,
                "font.family": "sans-serif",
                # Letters stay letters: small files that can be searched.
                "svg.fonttype": "none",
                "svg.hashsalt": name,
                "text.color": text,
                "axes.edgecolor": colors["gray"],
                "axes.labelcolor": text,
                "axes.titlecolor": text,
                "axes.titlesize": 9.5,
                "axes.titlelocation": "left",
                "axes.spines.top": False,
                "axes.spines.right": False,
                "xtick.color": text,
                "ytick.color": text,
                "legend.frameon": False,
                "legend.labelcolor": text,
                "savefig.transparent": True,
            }
        ):
            figure, axes = pyplot.subplots(
                rows,
                1,
                figsize=(WIDTH, height),
                layout="constrained",
                **subplots,
            )
            plot(axes, colors)
            path = HERE / f"{name}-{mode}.svg"
            figure.savefig(path, metadata={"Date": None, "Creator": None})
            pyplot.close(figure)
    print(f"{name}: {path.stat().st_size / 1e3:.0f} kB", flush=True)
