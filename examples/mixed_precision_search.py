"""Mixed precision for ResNet-20: search on a proxy, fine-tune on the target.

Shows: the pre-activation ResNet-20 of `cifar_resnet20.py` for CIFAR-100. The
    bits of its layers are searched on 4 % of CIFAR-100, or with
    `--proxy=cifar10` on other classes, within the bit operations of the 3-bit
    network (392 M) or the 4-bit one (675 M). Without `--checkpoint` the network
    is trained in float on the proxy first, briefly, which shows the way but is
    no basis for a choice. The policy then goes to the other example:

    python examples/cifar_resnet20.py --checkpoint=float.npz \\
        --bits=policy.json --epochs=200
Needs: pip install ".[data]"; for --plot: pip install ".[data,plot]"
Time: 460 s on two busy CPU cores, 294 s of processor time, with a checkpoint.
Result: `python examples/mixed_precision_search.py --checkpoint=float.npz
    --proxy=cifar100` found a policy of 387.9 M bit operations, of 392.1 M
    allowed. Without a checkpoint, `--float_epochs=1 --epochs=2` found one of
    373.7 M (305 s, 119 s of processor time), of a network that has learned
    nothing yet. Whether a searched policy is better than equal bits was
    measured on a smaller network: there it was not, see docs/results.md.
"""

import importlib.util
import pathlib
import sys

import keras
import numpy as np
from absl import app
from absl import flags

import keras_saq
from keras_saq.data import proxy_split
from keras_saq.data import shift_and_flip
from keras_saq.report import search_plots
from keras_saq.search.search import METHODS
from keras_saq.table import format_table

FLAGS = flags.FLAGS


def resnet20():
    """The example module with the network."""
    path = pathlib.Path(__file__).parent / "cifar_resnet20.py"
    spec = importlib.util.spec_from_file_location("cifar_resnet20", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def define_flags():
    flags.DEFINE_bool("smoke", False, "Random images, one epoch: does it run?")
    flags.DEFINE_string(
        "checkpoint",
        None,
        "Float model: .keras, or .npz with PyTorch parameter names. Without "
        "one the network is trained on the proxy first.",
    )
    flags.DEFINE_integer(
        "float_epochs", 5, "Epochs of that training.", lower_bound=1
    )
    flags.DEFINE_enum(
        "proxy", "cifar100", ["cifar10", "cifar100"], "TFDS data set."
    )
    flags.DEFINE_float("fraction", 0.04, "Part of it that is searched on.")
    flags.DEFINE_enum("method", "seam", METHODS, "See the guide to the search.")
    flags.DEFINE_enum(
        "target",
        "paper",
        ["paper", "litert"],
        "Where activations are quantized: as in the paper's tables, or "
        "everywhere an integer file needs it.",
    )
    flags.DEFINE_string("budget", "w3a3", "Bit operations, see Budget.")
    flags.DEFINE_integer("epochs", 15, "Epochs of the search.", lower_bound=0)
    flags.DEFINE_float("rho", 0.0, "SAQ's radius in the search; 0: none.")
    flags.DEFINE_integer("seed", 0, "Seed of proxy and search.")
    flags.DEFINE_string("state", None, "Folder; a stopped search goes on.")
    flags.DEFINE_string("tensorboard", None, "Folder for TensorBoard.")
    flags.DEFINE_string("output", "policy.json", "The policy.")
    flags.DEFINE_string("plot", None, "A .png of the bits of every layer.")


def load_proxy(example):
    """Normalized images of the proxy and their labels."""
    if FLAGS.smoke:
        rng = np.random.default_rng(0)
        source = rng.normal(size=(32, 32, 32, 3)), np.arange(32) % 10
        return proxy_split(source, 1.0, name="random")
    mean, deviation = example.MEAN[FLAGS.proxy], example.STD[FLAGS.proxy]
    try:
        return proxy_split(
            FLAGS.proxy,
            FLAGS.fraction,
            FLAGS.seed,
            preprocess=lambda x: ((x / 255 - mean) / deviation).astype(
                "float32"
            ),
        )
    except ImportError as error:
        sys.exit(str(error))


def float_model(example, proxy, epochs):
    path = FLAGS.checkpoint
    if path and path.endswith(".keras"):
        return keras.saving.load_model(path, compile=False)
    model = example.preact_resnet20(100)
    if path:
        example.load_torch_weights(model, path)
        return model
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=keras.backend.backend() != "tensorflow",
    )
    print("No checkpoint: the float network is trained on the proxy.")
    model.fit(proxy.x, proxy.y, batch_size=64, epochs=epochs, verbose=2)
    return model


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    keras.utils.set_random_seed(FLAGS.seed)
    example = resnet20()
    proxy = load_proxy(example)
    search = keras_saq.PolicySearch(
        float_model(example, proxy, 1 if FLAGS.smoke else FLAGS.float_epochs),
        proxy,
        FLAGS.method,
        target=FLAGS.target,
        epochs=min(1, FLAGS.epochs) if FLAGS.smoke else FLAGS.epochs,
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
    rows = [(name, str(bits)) for name, bits in found["bits"].items()]
    print(format_table(("decision", "bits"), rows))
    print(
        f"{found['cost']['bops'] / 1e6:.2f} M bit operations of "
        f"{found['limits']['bops'] / 1e6:.2f} M allowed; searched for "
        f"{found['seconds']:.0f} s; wrote {FLAGS.output}"
    )


if __name__ == "__main__":
    define_flags()
    app.run(main)
