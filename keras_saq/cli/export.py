"""`keras-saq export`: a quantized `.keras` model as an integer file."""

import sys

from keras_saq.cli import arguments
from keras_saq.cli import files
from keras_saq.cli import output

HELP = "write a quantized .keras model as an integer .tflite file"
DESCRIPTION = """\
Writes a model that keras_saq quantized, and that was saved as a .keras file,
as an integer LiteRT file, and prints what is in it. The file appears whole or
not at all. Works on the TensorFlow, JAX and PyTorch backends alike.
"""
EXAMPLES = """\
  keras-saq export model.keras model.tflite
  keras-saq export model.keras model.tflite --storage=small
  keras-saq export model.keras model.tflite --input-type=int8 --json
  keras-saq export model.keras model.tflite --verify=test.npz --require-exact"""
_TYPES = ("float32", "int8", "uint8")


def add_arguments(parser):
    """The flags of the command."""
    files.add_model_arguments(parser)
    parser.add_argument("output", help="the .tflite file to write")
    for side in ("input", "output"):
        parser.add_argument(
            f"--{side}-type",
            choices=_TYPES,
            default="float32",
            help=f"type of the file's {side}s (default: %(default)s)",
        )
    parser.add_argument(
        "--storage",
        choices=("exact", "small", "int8"),
        default="exact",
        help="which weights are packed to fewer than 8 bits: those that fast "
        "kernels read, those of k x k convolutions too (slower), or none "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--dynamic-range",
        action="store_true",
        help="of a model with quantized weights alone: kernels read the codes "
        "and round their input to 8 bits of each sample's own range",
    )
    parser.add_argument(
        "--verify",
        metavar="DATA",
        help="compare the file with the model on these inputs, .npz or .npy; "
        "as the model gets them, preprocessed",
    )
    parser.add_argument(
        "--require-exact",
        action="store_true",
        help="write no file if it does not compute what it should",
    )
    arguments.add_json(parser)


def run(args):
    """Writes the file and prints the report."""
    from keras_saq.export import export_litert

    model = files.load_model(args.model, args.imports)
    data = None
    if args.verify:
        data = files.load_inputs(args.verify, model)
    print(f"writing {args.output} ...", file=sys.stderr)
    report = export_litert(
        model,
        args.output,
        input_type=args.input_type,
        output_type=args.output_type,
        storage=args.storage,
        dynamic_range=args.dynamic_range,
        verify=data,
        require_exact=args.require_exact,
    )
    output.show(report, args.json)
