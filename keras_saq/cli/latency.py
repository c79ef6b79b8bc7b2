"""`keras-saq latency`: seconds of single layers, for latency budgets."""

import pathlib
import sys

from keras_saq.cli import arguments
from keras_saq.cli import output
from keras_saq.cli.files import add_model_arguments
from keras_saq.cli.files import load_model

HELP = "time of each layer on this machine, for `search --latency`"
DESCRIPTION = """\
Measures the layers of a float model one by one, as integer files of one layer
each, with the LiteRT interpreter on this machine, and writes the table for
`keras-saq search --latency-table`.
"""
EXAMPLES = """\
  keras-saq latency float.keras --output=latency.json
  keras-saq search float.keras --proxy=train.npz --latency="1.1x w8a8" \\
      --latency-table=latency.json --method=sensitivity"""


def add_arguments(parser):
    """The flags of the command."""
    add_model_arguments(parser, "float")
    parser.add_argument(
        "--output",
        default="latency.json",
        help="the table (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=arguments.threads,
        default=1,
        help="threads of the kernels (default: %(default)s)",
    )
    parser.add_argument(
        "--runs",
        type=arguments.positive_integer,
        default=50,
        help="inferences per layer, of which the median counts (default: "
        "%(default)s)",
    )
    arguments.add_json(parser)


def run(args):
    """Measures and writes the table."""
    from keras_saq.search import measure_latency

    output.check_file(pathlib.Path(args.output), ".json")
    with output.progress_apart(args.json):
        table = measure_latency(
            load_model(args.model, args.imports),
            threads=args.threads,
            runs=args.runs,
            verbose=output.verbosity(),
        )
    table.save(args.output)
    if args.json:
        sys.stdout.write(table.to_json())
        return
    for key, entry in table.seconds_by_layer.items():
        times = ", ".join(f"{b} bits {1e6 * s:.1f}" for b, s in entry.items())
        print(f"{key}: {times} microseconds")
