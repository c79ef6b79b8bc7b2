"""What trained networks' files compute beside `predict` and the reference.

    python benchmarks/parity.py --network=resnet8 \\
        --checkpoint=pretrainedResnet.h5 --output=parity.md

Each preset is fine-tuned for `--steps` steps with QAT, exported, and compared
on the first `--samples` test images: the file with the code-domain reference
(which it must equal) and with `model.predict` (which is measured, in steps of
the output). `--steps=0` only calibrates. The table grows in `--output`.
"""

import pathlib
import tempfile

import cifar
import keras
from absl import app
from absl import flags

import keras_saq

FLAGS = flags.FLAGS
HEADER = (
    "network",
    "bits",
    "steps of training",
    "top-1 of `predict`",
    "top-1 of the file",
    "file = reference",
    "largest difference from `predict`",
    "mean",
    "equal outputs",
    "top-1 agreement",
    "delegated",
)


def trained(float_model, bits, x, y):
    """The quantized model after a few steps of QAT."""
    q = keras_saq.quantize_model(float_model, bits, calibration=x[:512])
    if FLAGS.steps:
        cifar.compile_as(float_model, q, FLAGS.learning_rate, FLAGS.steps)
        data = cifar.example.augmented(x, y, FLAGS.batch_size, FLAGS.seed)
        q.fit(data.repeat(), steps_per_epoch=FLAGS.steps, verbose=0)
    return q


def measured(q, x, y):
    """A row of the table behind network and bits."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.tflite"
        keras_saq.export_litert(q, path)
        parity = keras_saq.verify_litert(path, q, x)
    return (
        f"{FLAGS.steps}",
        f"{(parity.predicted[0].argmax(-1) == y).mean():.2%}",
        f"{(parity.outputs[0].argmax(-1) == y).mean():.2%}",
        "yes" if parity.reference_exact else f"{parity.reference_max_lsb}",
        f"{parity.max_lsb:g}",
        f"{parity.mean_lsb:.4f}",
        f"{parity.exact:.2%}",
        f"{parity.top1_agreement:.2%}",
        "all" if not parity.undelegated else f"{parity.undelegated}",
    )


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    make, dataset, normalization = cifar.NETWORKS[FLAGS.network]
    x, y = cifar.load_data(dataset, "train", normalization)
    x_test, y_test = cifar.load_data(dataset, "test", normalization)
    output = pathlib.Path(FLAGS.output)
    if not output.exists():
        output.write_text(
            f"| {' | '.join(HEADER)} |\n|{' --- |' * len(HEADER)}\n",
            encoding="utf-8",
        )
    for bits in FLAGS.bits:
        keras.backend.clear_session()
        keras.utils.set_random_seed(FLAGS.seed)
        q = trained(make(FLAGS.checkpoint), bits, x, y)
        row = measured(q, x_test[: FLAGS.samples], y_test[: FLAGS.samples])
        line = f"| {' | '.join((FLAGS.network, bits, *row))} |"
        print(line, flush=True)
        with output.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    flags.DEFINE_enum("network", "resnet8", sorted(cifar.NETWORKS), "Network.")
    flags.DEFINE_string("checkpoint", None, "Its float weights: .h5 or .npz.")
    flags.DEFINE_list("bits", ["w8a8", "w4a8", "w4a4", "w2a4"], "Presets.")
    flags.DEFINE_integer("steps", 100, "Steps of training.", lower_bound=0)
    flags.DEFINE_float("learning_rate", 0.001, "Initial learning rate.")
    flags.DEFINE_integer("batch_size", 128, "Batch size.", lower_bound=1)
    flags.DEFINE_integer("samples", 2000, "Test images.", lower_bound=1)
    flags.DEFINE_integer("seed", 1, "Seed of order and crops.")
    flags.DEFINE_string("output", "parity.md", "The table.")
    flags.mark_flag_as_required("checkpoint")
    app.run(main)
