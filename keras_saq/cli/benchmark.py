"""`keras-saq benchmark`: the latency of files, in turns."""

import sys

from keras_saq.cli import arguments
from keras_saq.cli import output

HELP = "latency and memory of .tflite files, measured in turns"
DESCRIPTION = """\
Runs .tflite files in turns, round by round, on random inputs of one sample,
and prints the median time of each, its spread, its ratio to the first file and
its peak memory. Other work on the machine slows all of them: read the ratios.
"""
EXAMPLES = """\
  keras-saq benchmark float.tflite int8.tflite w4a8.tflite
  keras-saq benchmark a.tflite b.tflite --threads=2 --rounds=200 --json"""


def add_arguments(parser):
    """The flags of the command."""
    parser.add_argument("files", nargs="+", metavar="file", help=".tflite")
    parser.add_argument(
        "--threads",
        type=arguments.threads,
        default=1,
        help="threads of the kernels (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds",
        type=arguments.positive_integer,
        default=100,
        help="how often the files take turns (default: %(default)s)",
    )
    parser.add_argument(
        "--no-delegate",
        action="store_true",
        help="LiteRT's built-in kernels instead of XNNPACK's",
    )
    arguments.add_json(parser)


def run(args):
    """Prints the measurement."""
    from keras_saq.export import benchmark_litert

    print(f"running {len(args.files)} files in turns ...", file=sys.stderr)
    report = benchmark_litert(
        args.files,
        num_threads=args.threads,
        rounds=args.rounds,
        delegate=not args.no_delegate,
    )
    output.show(report, args.json)
