"""`keras-saq verify`: a file against the model it was written from."""

import sys

from keras_saq.cli import arguments
from keras_saq.cli import files
from keras_saq.cli import output

HELP = "compare a .tflite file with the model it was written from"
DESCRIPTION = """\
Runs a file, the code-domain reference and the Keras model on the same inputs
and prints whether the file equals the reference, how far it is from
model.predict, and, where an operator computes something else than it should,
the first one. Ends with exit code 3 then.
"""
EXAMPLES = """\
  keras-saq verify model.tflite model.keras test.npz
  keras-saq verify model.tflite model.keras test.npz --per-layer
  keras-saq verify model.tflite model.keras test.npz --float-model=float.keras
  keras-saq verify model.tflite model.keras test.npz --json"""
EXIT_DEVIATES = 3


def add_arguments(parser):
    """The flags of the command."""
    parser.add_argument("file", help="the .tflite file")
    files.add_model_arguments(parser)
    parser.add_argument(
        "data",
        help="inputs as the model gets them, preprocessed: .npy, or .npz with "
        "an array per input of the model",
    )
    parser.add_argument(
        "--per-layer",
        action="store_true",
        help="compare every tensor inside of the file too",
    )
    parser.add_argument(
        "--float-model",
        help="the float .keras model: how far from it the file is, in dB",
    )
    arguments.add_json(parser)


def run(args):
    """Prints the comparison."""
    from keras_saq.export import verify_litert

    model = files.load_model(args.model, args.imports)
    data = files.load_inputs(args.data, model)
    print(f"running {args.file} ...", file=sys.stderr)
    float_model = None
    if args.float_model:
        float_model = files.load_model(args.float_model, args.imports)
    report = verify_litert(args.file, model, data, args.per_layer, float_model)
    output.show(report, args.json)
    return 0 if report.within_bounds else EXIT_DEVIATES
