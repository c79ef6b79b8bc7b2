"""`keras-saq search`: a policy for a model, from a proxy data set."""

import json

from keras_saq.cli.files import add_model_arguments
from keras_saq.cli.files import load_model

HELP = "bits for every layer, from a small proxy data set"
DESCRIPTION = """\
Chooses the bits of every layer of a trained Keras model on a small part of a
data set, within budgets, and writes the policy as JSON for `quantize_model`.

Budgets are numbers, or relative: '0.25x float', 'w3a3', '1.1x w4a4'.
"""
EXAMPLES = """\
  keras-saq search model.keras --proxy=cifar10 --bops=w3a3
  keras-saq search model.keras --proxy=part.npz --fraction=1 --bytes=200000 \\
      --method=sensitivity --output=policy.json --plot=bits.png"""


def add_arguments(parser):
    """The flags of the command."""
    from keras_saq.search.budget import NAMES
    from keras_saq.search.search import METHODS
    from keras_saq.search.space import TARGETS

    add_model_arguments(parser, "float")
    parser.add_argument(
        "--proxy",
        required=True,
        help="a data set of TensorFlow Datasets such as cifar10, or an .npz "
        "with arrays x and y",
    )
    parser.add_argument(
        "--fraction",
        type=float,
        default=0.04,
        help="part of each class that is used (default: %(default)s)",
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="what inputs are multiplied with, such as 0.00392 for 1/255 "
        "(default: %(default)s)",
    )
    for name in NAMES:
        parser.add_argument(
            f"--{name.replace('_', '-')}", help=f"budget: {name}"
        )
    parser.add_argument("--latency-table", help="see `keras-saq latency`")
    parser.add_argument(
        "--method",
        choices=METHODS,
        default="seam",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--target", choices=TARGETS, default="litert", help="default: litert"
    )
    parser.add_argument(
        "--candidates",
        type=_bits,
        help="numbers of bits, such as 2,4,8 (default: by target)",
    )
    parser.add_argument(
        "--epochs", type=int, default=15, help="default: %(default)s"
    )
    parser.add_argument(
        "--batch-size", type=int, default=64, help="default: %(default)s"
    )
    parser.add_argument(
        "--rho",
        type=float,
        default=0.0,
        help="radius of SAQ's perturbation in the search (default: none)",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument(
        "--checkpoint", help="folder for the search's state; it goes on there"
    )
    parser.add_argument("--log-dir", help="folder for TensorBoard")
    parser.add_argument(
        "--output",
        default="policy.json",
        help="the policy (default: %(default)s)",
    )
    parser.add_argument("--plot", help="a .png of the bits of every layer")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the policy's provenance as JSON, and nothing else",
    )


def _bits(text):
    return tuple(int(part) for part in text.split(","))


def run(args):
    """Searches, writes the policy and prints what it costs."""
    from keras_saq.data import proxy_split
    from keras_saq.report import plots
    from keras_saq.search import PolicySearch

    if args.plot:
        plots.require_matplotlib()
    budget = _budget(args)
    model = load_model(args.model, args.imports)
    proxy = proxy_split(
        _source(args.proxy),
        args.fraction,
        args.seed,
        preprocess=lambda x: x.astype("float32") * args.scale,
        name=args.proxy,
    )
    search = PolicySearch(
        model,
        proxy,
        args.method,
        candidates=args.candidates,
        target=args.target,
        epochs=args.epochs,
        batch_size=args.batch_size,
        rho=args.rho,
        seed=args.seed,
        checkpoint=args.checkpoint,
        log_dir=args.log_dir,
        verbose=0 if args.json else 1,
    )
    policy = search.fit(budget).policy()
    policy.save(args.output)
    if args.plot:
        from keras_saq.report.search_plots import plot_bits

        plot_bits(policy, args.plot)
    if args.json:
        print(json.dumps(policy.provenance))
        return
    found = policy.provenance
    for name, bits in found["bits"].items():
        print(f"{name:40} {bits}")
    for name, limit in found["limits"].items():
        print(f"{name}: {found['cost'][name]:,.6g} of {limit:,.6g}")
    print(f"{found['seconds']} seconds; written to {args.output}")


def _budget(args):
    from keras_saq.search import Budget
    from keras_saq.search.budget import NAMES

    values = {name: getattr(args, name) for name in NAMES}
    values = {k: _number(v) for k, v in values.items() if v is not None}
    return Budget(**values, latency_table=args.latency_table)


def _number(text):
    try:
        return float(text)
    except ValueError:
        return text


def _source(text):
    if not text.endswith(".npz"):
        return text
    import numpy as np

    with np.load(text) as file:
        if not {"x", "y"} <= set(file.files):
            raise ValueError(
                f"'{text}' must have arrays named x and y. It has: "
                f"{sorted(file.files)}"
            )
        return file["x"], file["y"]
