"""Entry point of `keras-saq`."""

import argparse
import logging
import os
import sys

from absl import app
from absl.flags import argparse_flags


def parse(argv):
    """Parses a command line; absl's own flags are accepted too."""
    from keras_saq.cli import demo
    from keras_saq.version import __version__

    parser = argparse_flags.ArgumentParser(
        prog="keras-saq",
        description="Low-bit Keras models: quantize, train flat, export "
        "integers.",
    )
    parser.add_argument(
        "--version", action="version", version=f"keras-saq {__version__}"
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="command"
    )
    demo_parser = commands.add_parser(
        "demo",
        help="the whole job on a small embedded data set, in two minutes",
        description=demo.DESCRIPTION,
        epilog="example: keras-saq demo --seeds=5 --output=digits",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_arguments(demo_parser)
    demo_parser.set_defaults(run=demo.run)
    return parser.parse_args(argv[1:])


def main(args):
    """Runs the command; an error of the user's is one line, exit code 1."""
    try:
        args.run(args)
    except (ValueError, ImportError, OSError) as error:
        print(f"keras-saq {args.command}: {error}", file=sys.stderr)
        return 1
    return 0


def run():
    """What the installed `keras-saq` calls."""
    # TensorFlow's messages about itself are not about the user's work.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    app.run(main, flags_parser=parse)


if __name__ == "__main__":
    run()
