"""`keras-saq search`: a policy for a model, from a proxy data set."""

import contextlib
import dataclasses
import json
import pathlib

from keras_saq.cli import arguments
from keras_saq.cli import data_flags
from keras_saq.cli import output
from keras_saq.cli.files import add_model_arguments
from keras_saq.cli.files import load_model
from keras_saq.cli.lock import FolderLock

HELP = "bits for every layer, from a small proxy data set"
DESCRIPTION = """\
Chooses the bits of every layer of a trained Keras model on a small part of a
data set, within budgets, and writes the policy as JSON for `quantize_model`.

Budgets are numbers, or relative: '0.25x float', 'w3a3', '1.1x w4a4'.
"""
EXAMPLES = """\
  keras-saq search float.keras --proxy=cifar10 --scale=1/255 --bops=w3a3
  keras-saq search float.keras --proxy=train.npz --fraction=1 \\
      --bytes="1.2x w4a8" --method=sensitivity --plot=bits.png"""

_BUDGETS = {
    "bops": "bit operations of one inference",
    "bytes": "of the file",
    "activation_bytes": "of the tensors that exist at one moment",
    "average_bits": "per quantized weight",
    "latency": "seconds of one inference, by --latency-table",
}


def add_arguments(parser):
    """The flags of the command."""
    from keras_saq.search.budget import NAMES
    from keras_saq.search.search import METHODS
    from keras_saq.search.space import TARGETS

    add_model_arguments(parser, "float")
    parser.add_argument(
        "--proxy", required=True, metavar="DATA", help=data_flags.DATA_HELP
    )
    parser.add_argument(
        "--fraction",
        type=arguments.weight,
        default=0.04,
        help="part of each class that is used (default: %(default)s)",
    )
    data_flags.add_preprocessing(parser)
    for name in NAMES:
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            metavar="LIMIT",
            help=f"budget: {_BUDGETS[name]}",
        )
    parser.add_argument(
        "--latency-table",
        metavar="FILE",
        help="what `keras-saq latency` wrote, for --latency",
    )
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
        type=arguments.integers,
        help="numbers of bits, such as 2,4,8 (default: by target)",
    )
    parser.add_argument(
        "--epochs",
        type=arguments.positive_integer,
        default=15,
        help="default: %(default)s",
    )
    parser.add_argument(
        "--batch-size",
        type=arguments.positive_integer,
        default=64,
        help="default: %(default)s",
    )
    parser.add_argument(
        "--rho",
        type=arguments.non_negative,
        default=0.0,
        help="radius of SAQ's perturbation in the search (default: none)",
    )
    parser.add_argument(
        "--seed", type=arguments.natural_number, default=0, help="default: 0"
    )
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
    arguments.add_json(parser)


def run(args):
    """Searches, writes the policy and prints what it costs."""
    from keras_saq.report import plots

    output.check_file(pathlib.Path(args.output), ".json")
    if args.plot:
        output.check_file(pathlib.Path(args.plot), ".png")
        plots.require_matplotlib()
    with output.progress_apart(args.json):
        policy = _search(args)
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
    if found["gate"]:
        print(_verdict(found["gate"]))
    print(f"{found['seconds']} seconds; written to {args.output}")


def _verdict(gate):
    """What the comparison with equal bits says, as a line."""
    means = ", ".join(f"{name} {m:.4g}" for name, m in gate["means"].items())
    return (
        f"{gate['measure']} after calibration on {gate['samples']} samples "
        f"kept apart: {means}; gain of the searched bits {gate['gain']:.3g} "
        f"+- {gate['error']:.2g}: the {gate['chosen']} ones are returned"
    )


def _search(args):
    """The policy that is found."""
    budget = _budget(args)
    model = load_model(args.model, args.imports)
    proxy = _proxy(args, model)
    with _checkpoint_lock(args.checkpoint):
        return _find(args, model, proxy, budget)


def _checkpoint_lock(folder):
    """The folder of the search's state, for this process alone."""
    if folder is None:
        return contextlib.nullcontext()
    folder = pathlib.Path(folder)
    output.make_folder(folder)
    return FolderLock(folder)


def _find(args, model, proxy, budget):
    from keras_saq.search import PolicySearch

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
        verbose=output.verbosity(),
    )
    return search.fit(budget).policy()


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


def _proxy(args, model):
    """The part of the data that the search uses."""
    from keras_saq.data import open_source
    from keras_saq.data import proxy_split
    from keras_saq.data.proxy import balanced_indices

    if not args.fraction:
        raise ValueError("`--fraction` must be above 0 and at most 1.")
    source = open_source(args.proxy, args.data_dir)
    samples = data_flags.load(source, source.train_split, args, model)
    samples = samples.take(
        balanced_indices(samples.y, args.fraction, args.seed)
    )
    proxy = proxy_split(
        (samples.x[:], samples.y),
        fraction=1.0,
        seed=args.seed,
        preprocess=data_flags.preprocessing(args),
        name=args.proxy,
    )
    return dataclasses.replace(proxy, fraction=args.fraction)
