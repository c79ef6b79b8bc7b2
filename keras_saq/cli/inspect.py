"""`keras-saq inspect`: what is in a `.tflite` file."""

HELP = "what is in a .tflite file, ours or anybody's"
DESCRIPTION = """\
Reads a .tflite file: its inputs and outputs, its operators with their types
and whether XNNPACK takes them here, its constants, and where its bytes go.

A damaged file is refused; LiteRT is asked in a process of its own.
"""
EXAMPLES = """\
  keras-saq inspect model.tflite
  keras-saq inspect model.tflite --json | jq .operators"""


def add_arguments(parser):
    """The flags of the command."""
    parser.add_argument("file", help="the .tflite file")
    parser.add_argument(
        "--json", action="store_true", help="print JSON instead of text"
    )


def run(args):
    """Prints the report."""
    from keras_saq.export import inspect_litert

    report = inspect_litert(args.file)
    print(report.to_json() if args.json else report)
