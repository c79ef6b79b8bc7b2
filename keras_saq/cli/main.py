"""Entry point of `keras-saq`."""

import argparse
import importlib
import logging
import os
import sys
import warnings

from absl import app
from absl import flags
from absl import logging as absl_logging
from absl.flags import argparse_flags

from keras_saq.cli import allocator
from keras_saq.cli import config
from keras_saq.cli import failures
from keras_saq.cli import output
from keras_saq.plain_text import printable_lines

# Each is a module here with `HELP`, `DESCRIPTION`, `EXAMPLES`,
# `add_arguments(parser)` and `run(args)`, which returns the exit code or None.
COMMANDS = (
    "demo",
    "quantize",
    "train",
    "search",
    "latency",
    "export",
    "inspect",
    "verify",
    "benchmark",
    "report",
)

EXIT_CODES = """\
exit codes: 0 done, 1 an error that the message explains, 2 wrong usage,
3 (verify, train --export) the file does not compute what it should,
130 interrupted\
"""


def parse(argv):
    """Parses a command line; absl's own flags are accepted too."""
    from keras_saq.version import __version__

    parser = argparse_flags.ArgumentParser(
        prog="keras-saq",
        description="Low-bit Keras models: quantize, train flat, export "
        "integers.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action="version", version=f"keras-saq {__version__}"
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="command"
    )
    for name in COMMANDS:
        command = importlib.import_module(f"keras_saq.cli.{name}")
        subparser = commands.add_parser(
            name,
            help=command.HELP,
            description=command.DESCRIPTION,
            epilog=f"examples:\n{command.EXAMPLES}\n\n{EXIT_CODES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_arguments(subparser)
        config.add_argument(subparser)
        failures.add_argument(subparser)
        subparser.set_defaults(run=command.run)
    _apply_config(commands.choices, argv[1:])
    return parser.parse_args(argv[1:])


def _apply_config(parsers, argv):
    """Reads the file that `--config` names, if one is given."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config")
    finder.add_argument("--output")
    try:
        found, rest = finder.parse_known_args(argv)
    except SystemExit:  # `--config` without a file: told by the real parser
        return
    name = next((a for a in rest if a in parsers), None)
    if found.config is None or name is None:
        return
    try:
        config.apply(parsers[name], found.config, found.output)
    except ValueError as error:
        parsers[name].error(printable_lines(str(error)))


def main(args):
    """Runs the command; an error is one message, exit code 1."""
    try:
        code = args.run(args) or 0
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print(f"\nkeras-saq {args.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output, such as `head`, has read enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # of a library: still one line, and code 1
        return failures.tell(error, args.command, args.traceback)


def _show_warning(message, category, *_):
    """A warning without the line of code that it comes from."""
    if issubclass(category, UserWarning):
        output.say(f"warning: {message}")


def run():
    """What the installed `keras-saq` calls."""
    # TensorFlow's messages about itself are not about the user's work.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    warnings.showwarning = _show_warning
    # absl would log what libraries do; `--verbosity=0` still does.
    flags.FLAGS.verbosity = absl_logging.ERROR
    allocator.keep_freed_memory()
    app.run(main, flags_parser=parse)


if __name__ == "__main__":
    run()
