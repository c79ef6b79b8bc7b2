"""`keras-saq quantize`: a float model with learned scales."""

import dataclasses
import json
import pathlib
import sys

import numpy as np

from keras_saq.cli import arguments
from keras_saq.cli import data_flags
from keras_saq.cli import files
from keras_saq.cli import output
from keras_saq.cli import policies

HELP = "quantize a float .keras model, ready to be trained or exported"
DESCRIPTION = """\
Quantizes a trained float model and saves it as a .keras file, which any
command and any Keras program with `import keras_saq` reads. Prints the bits
and the cost of every layer, and what stays in float and why.

Scales of activations come from the calibration data. Without any, they are
taken from the first batch of the training; such a model cannot predict or be
exported before it is trained.
"""
EXAMPLES = """\
  keras-saq quantize float.keras quantized.keras --calibration=train.npz
  keras-saq quantize float.keras quantized.keras --policy=w4a4 \\
      --calibration=train.npz --reconstruct
  keras-saq quantize float.keras quantized.keras --policy=w8a8 \\
      --calibration=images --scale=1/255
  keras-saq quantize float.keras quantized.keras --policy=policy.json \\
      --scheme=paper --weight-quantizer=lsq --json"""


def add_arguments(parser):
    """The flags of the command."""
    files.add_model_arguments(parser, "float")
    parser.add_argument("output", help="the .keras file to write")
    policies.add_arguments(parser)
    parser.add_argument(
        "--calibration",
        metavar="DATA",
        help=f"inputs for the scales: .npy, or {data_flags.DATA_HELP}",
    )
    parser.add_argument(
        "--calibration-samples",
        type=arguments.positive_integer,
        default=512,
        metavar="N",
        help="how many of them are used, chosen at random (default and most: "
        "512)",
    )
    parser.add_argument(
        "--data-free",
        action="store_true",
        help="make the inputs from the statistics of batch norms; for where "
        "there are no data",
    )
    parser.add_argument(
        "--reconstruct",
        action="store_true",
        help="learn the rounding of weights and the ranges of activations "
        "from the inputs, block by block; takes minutes",
    )
    data_flags.add_preprocessing(parser)
    parser.add_argument(
        "--strict",
        action="store_true",
        help="refuse a model of which a layer has to stay in float",
    )
    arguments.add_json(parser)


def run(args):
    """Quantizes, saves, prints the table."""
    from keras_saq.models import quantize_model
    from keras_saq.models import quantized_layers
    from keras_saq.report import summary

    path = pathlib.Path(args.output)
    output.check_file(path, ".keras")
    policy = policies.make(args)
    _check_inputs(args)
    with output.progress_apart(args.json):
        model = files.load_model(args.model, args.imports)
        data = _calibration(args, model)
        quantized = quantize_model(model, policy, data, strict=args.strict)
        if args.reconstruct:
            from keras_saq.reconstruction import reconstruct

            reconstruct(quantized, model, data)
        output.save_model(quantized, path)
    try:
        table = summary(quantized, print_fn=False)
    except ValueError as error:
        table = None
        print(f"note: the costs are not known: {error}", file=sys.stderr)
    missing = sum(
        not all(q.calibrated for q in layer.quantizers)
        for layer in quantized_layers(quantized)
    )
    if args.json:
        print(json.dumps(_as_dict(table, path, missing)))
        return
    if table is not None:
        print(f"{table}\n")
    print(f"written to {path}")
    if missing:
        print(
            f"{missing} layers have no scales of activations yet: they come "
            "from the first training batch, or give --calibration=DATA."
        )


def _check_inputs(args):
    if args.data_free and args.calibration:
        raise ValueError(
            "--data-free makes the inputs that --calibration reads. Give one "
            "of them."
        )
    if args.reconstruct and not (args.data_free or args.calibration):
        raise ValueError(
            "--reconstruct needs inputs: --calibration=DATA, or --data-free "
            "where there are no data."
        )


def _calibration(args, model):
    if args.data_free:
        from keras_saq.reconstruction import data_free

        return data_free(model)
    if not args.calibration:
        return None
    from keras_saq.models.calibration import MAX_SAMPLES

    preprocess = data_flags.preprocessing(args)
    # Of more the first would be used, which are of the first classes where
    # the data are sorted.
    count = min(args.calibration_samples, MAX_SAMPLES)
    if files.are_inputs(args.calibration, model):
        import keras

        data = files.load_inputs(args.calibration, model)
        total = min(len(x) for x in keras.tree.flatten(data))
        order = np.random.default_rng(0).permutation(total)
        chosen = np.sort(order[:count])
        return keras.tree.map_structure(lambda x: preprocess(x[chosen]), data)
    from keras_saq.data import open_source

    source = open_source(args.calibration, args.data_dir)
    samples = data_flags.load(source, source.train_split, args, model, count)
    return preprocess(samples.x[:])


def _as_dict(table, path, missing):
    written = {"path": str(path), "calibrated": not missing}
    if table is None:
        return written
    return {
        **written,
        "bops": table.bops,
        "macs": table.macs,
        "stored_bytes": table.stored_bytes,
        "layers": [dataclasses.asdict(row) for row in table.rows],
        "floats": [dataclasses.asdict(row) for row in table.floats],
        "comparison": table.comparison and table.comparison.to_dict(),
    }
