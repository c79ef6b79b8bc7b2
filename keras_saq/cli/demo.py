"""`keras-saq demo`: float -> QAT -> SAQ -> integer file -> proof."""

import json
import os
import pathlib

HELP = "the whole job on a small embedded data set, in two minutes"
DESCRIPTION = """\
Trains a small convolutional network on the 8x8 digits of scikit-learn, first
in float, then quantized with plain quantization-aware training (QAT) and with
sharpness-aware quantization (SAQ), writes each as an integer LiteRT file, and
proves that the file computes what the Keras model computes.

Prints one table and writes the files, results.json and results.png.
"""

EXAMPLES = "  keras-saq demo --seeds=5 --output=digits"

BITS = ("w4a8", "w2a4")
METHODS = ("qat", "saq")


def add_arguments(parser):
    """The flags of the command."""
    parser.add_argument(
        "--output",
        default="keras-saq-demo",
        help="folder for the files, the table and the plot (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--seeds",
        type=_positive,
        default=1,
        help="runs with different seeds; mean and spread are printed "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--epochs",
        type=_positive,
        default=15,
        help="epochs of each training (default: %(default)s)",
    )
    parser.add_argument(
        "--rho",
        type=float,
        default=0.2,
        help="radius of SAQ's perturbation (default: %(default)s)",
    )
    parser.add_argument(
        "--no-plot", action="store_true", help="do not write results.png"
    )


def _positive(text):
    value = int(text)
    if value < 1:
        raise ValueError(f"must be at least 1, received {value}")
    return value


def run(args):
    """Runs the demo and prints where everything went."""
    output = pathlib.Path(args.output)
    _make_folder(output)
    # Imported here: a bad folder is told before the trainings are loaded.
    from keras_saq.cli import demo_training
    from keras_saq.report import plots
    from keras_saq.report.runs import RunTable

    if not args.no_plot:
        plots.require_matplotlib()
    table = RunTable(
        demo_training.run_all(
            output, BITS, METHODS, args.seeds, args.epochs, args.rho
        )
    )
    print(table)
    print(f"\nThe integer files ran on: {', '.join(table.resolvers)}.")
    results = {
        "seeds": args.seeds,
        "epochs": args.epochs,
        "rho": args.rho,
        "runs": table.as_dicts(),
    }
    path = output / "results.json"
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if not args.no_plot:
        plots.plot_runs(table, output / "results.png")
    names = sorted(p.name for p in output.iterdir() if p.is_file())
    print(f"In {output}{os.sep}: {', '.join(names)}")


def _make_folder(path):
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"The folder '{path}' cannot be made: {error}"
        ) from error
    if not os.access(path, os.W_OK):
        raise ValueError(f"The folder '{path}' is not writable.")
