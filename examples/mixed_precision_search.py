"""Mixed precision for ResNet-20: search on a proxy, fine-tune on the target.

    python examples/mixed_precision_search.py --checkpoint=float.npz \\
        --proxy=cifar100 --budget=w3a3 --epochs=1

The pre-activation ResNet-20 of `cifar_resnet20.py` for CIFAR-100. The policy is
searched on 4 % of CIFAR-100, or with `--proxy=cifar10` on other classes, within
the bit operations of the 3-bit network (392 M) or the 4-bit one (675 M), and
then given to that example for training:

    python examples/cifar_resnet20.py --checkpoint=float.npz \\
        --bits=policy.json --epochs=200
"""

import importlib.util
import json
import pathlib

import keras
from absl import app
from absl import flags

import keras_saq
from keras_saq.data import proxy_split
from keras_saq.data import shift_and_flip
from keras_saq.report import search_plots
from keras_saq.search.search import METHODS

FLAGS = flags.FLAGS


def resnet20():
    """The example module with the network."""
    path = pathlib.Path(__file__).parent / "cifar_resnet20.py"
    spec = importlib.util.spec_from_file_location("cifar_resnet20", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    example = resnet20()
    model = example.preact_resnet20(100)
    if FLAGS.checkpoint.endswith(".keras"):
        model = keras.saving.load_model(FLAGS.checkpoint)
    else:
        example.load_torch_weights(model, FLAGS.checkpoint)
    mean, deviation = example.MEAN[FLAGS.proxy], example.STD[FLAGS.proxy]
    proxy = proxy_split(
        FLAGS.proxy,
        FLAGS.fraction,
        FLAGS.seed,
        preprocess=lambda x: ((x / 255 - mean) / deviation).astype("float32"),
    )
    search = keras_saq.PolicySearch(
        model,
        proxy,
        FLAGS.method,
        target=FLAGS.target,
        epochs=FLAGS.epochs,
        augment=shift_and_flip,
        rho=FLAGS.rho,
        seed=FLAGS.seed,
        checkpoint=FLAGS.state,
        log_dir=FLAGS.tensorboard,
        verbose=2,
    )
    policy = search.fit(keras_saq.Budget(bops=FLAGS.budget)).policy()
    policy.save(FLAGS.output)
    if FLAGS.plot:
        search_plots.plot_bits(policy, FLAGS.plot)
    found = policy.provenance
    print(json.dumps({k: found[k] for k in ("bits", "cost", "seconds")}))


if __name__ == "__main__":
    flags.DEFINE_string(
        "checkpoint",
        None,
        "Float model: .keras, or .npz with PyTorch parameter names.",
        required=True,
    )
    flags.DEFINE_enum(
        "proxy", "cifar100", ["cifar10", "cifar100"], "TFDS data set."
    )
    flags.DEFINE_float("fraction", 0.04, "Part of it that is searched on.")
    flags.DEFINE_enum("method", "seam", METHODS, "See docs/search.md.")
    flags.DEFINE_enum("target", "paper", ["paper", "litert"], "Target.")
    flags.DEFINE_string("budget", "w3a3", "Bit operations, see Budget.")
    flags.DEFINE_integer("epochs", 15, "Epochs of the search.", lower_bound=0)
    flags.DEFINE_float("rho", 0.0, "SAQ's radius in the search; 0: none.")
    flags.DEFINE_integer("seed", 0, "Seed of proxy and search.")
    flags.DEFINE_string("state", None, "Folder; a stopped search goes on.")
    flags.DEFINE_string("tensorboard", None, "Folder for TensorBoard.")
    flags.DEFINE_string("output", "policy.json", "The policy.")
    flags.DEFINE_string("plot", None, "A .png of the bits of every layer.")
    app.run(main)
