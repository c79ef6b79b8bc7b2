"""`keras-saq inspect`: what is in a `.tflite` file."""

from keras_saq.cli import arguments
from keras_saq.cli import output

HELP = "what is in a .tflite file, ours or anybody's"
DESCRIPTION = """\
Reads a .tflite file: its inputs and outputs, its operators with their types
and whether XNNPACK takes them here, its constants, and where its bytes go.

A damaged file is refused; LiteRT is asked in a process of its own.
"""
EXAMPLES = """\
  keras-saq inspect model.tflite
  keras-saq inspect model.tflite --json"""


def add_arguments(parser):
    """The flags of the command."""
    parser.add_argument("file", help="the .tflite file")
    arguments.add_json(parser)


def run(args):
    """Prints the report."""
    from keras_saq.export import inspect_litert

    report = inspect_litert(args.file)
    output.show(report, args.json)
