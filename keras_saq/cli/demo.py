"""`keras-saq demo`: float -> QAT -> SAQ -> integer file -> proof."""

import json
import os
import pathlib

from keras_saq.cli import arguments
from keras_saq.cli import lock
from keras_saq.cli import output as outputs
from keras_saq.cli.lock import FolderLock
from keras_saq.whole_file import replaced

HELP = "the whole job on a small embedded data set, in two minutes"
DESCRIPTION = """\
Trains a small convolutional network on the 8x8 digits of scikit-learn, first
in float, then quantized with plain quantization-aware training (QAT) and with
sharpness-aware quantization (SAQ), writes each as an integer LiteRT file, and
proves that the file computes what the Keras model computes.

Prints one table and writes the files, results.json and results.png.
"""

EXAMPLES = """\
  keras-saq demo
  keras-saq demo --seeds=5 --output=digits --json"""

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
        type=arguments.positive_integer,
        default=1,
        help="runs with different seeds; mean and spread are printed "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--epochs",
        type=arguments.positive_integer,
        default=15,
        help="epochs of each training (default: %(default)s)",
    )
    parser.add_argument(
        "--rho",
        type=arguments.non_negative,
        default=0.2,
        help="radius of SAQ's perturbation (default: %(default)s)",
    )
    parser.add_argument(
        "--no-plot", action="store_true", help="do not write results.png"
    )
    arguments.add_json(parser)


def run(args):
    """Runs the demo and prints where everything went."""
    output = pathlib.Path(args.output)
    outputs.make_folder(output)
    with FolderLock(output):
        _run(args, output)


def _run(args, output):
    # Imported here: a bad folder is told before the trainings are loaded.
    from keras_saq.cli import demo_training
    from keras_saq.report import plots
    from keras_saq.report.runs import RunTable

    if not args.no_plot:
        plots.require_matplotlib()
    with outputs.progress_apart(args.json):
        table = RunTable(
            demo_training.run_all(
                output, BITS, METHODS, args.seeds, args.epochs, args.rho
            )
        )
    results = {
        "seeds": args.seeds,
        "epochs": args.epochs,
        "rho": args.rho,
        "runs": table.as_dicts(),
    }
    path = output / "results.json"
    text = json.dumps(results, indent=2)
    with replaced(path) as file:
        file.write(f"{text}\n".encode())
    if not args.no_plot:
        plots.plot_runs(table, output / "results.png")
    if args.json:
        print(text)
        return
    print(table)
    print(f"\nThe integer files ran on: {', '.join(table.resolvers)}.")
    files = (p.name for p in output.iterdir() if p.is_file())
    names = sorted(name for name in files if name != lock.NAME)
    print(f"In {output}{os.sep}: {', '.join(names)}")
