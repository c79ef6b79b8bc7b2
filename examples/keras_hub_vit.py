"""A vision transformer of KerasHub: trained, quantized, exported, verified.

Shows: a small ViT backbone with a head learns a part of CIFAR-10 in float, is
    quantized (presets of `--bits`) and trained on with SAQ. Projections and
    both products of attention become integer kernels; layer normalization and
    softmax stay in float between them, and GELU becomes a table. The report
    lists these islands, and `verify_litert` says how exact each file is.
Needs: pip install ".[data,models]"
Time: 4 min on two busy CPU cores, 160 s of processor time.
Result: `python examples/keras_hub_vit.py`. 3,000 images teach a transformer
    little; the numbers to look at are those of the file. QAT was not compared
    (`--method=qat`).

    float island                                                          number
    --------------------------------------------------------------------  ------
    Rescaling is computed in float, exactly                                    1
    'concatenate' with constants is computed in float                          1
    'add' is computed in float, exactly                                        1
    LayerNormalization is computed in float; a code may differ from the
        reference's by 1 step                                                  7
    softmax is computed in float; a code may differ from the reference's
        by 1 step                                                              3
    gelu is computed in float, exactly                                         3
    'add' is computed in float                                                 9

    model     accuracy    bytes  within bounds  - predict   top-1
    --------  --------  -------  -------------  ---------  ------
    float       32.83%
    w8a8 SAQ    35.67%  188,488            yes    1 steps   98.4%
    w4a8 SAQ    34.67%  139,360            yes    1 steps  100.0%

    "within bounds": every operator of the file computes what it should, exactly
    or within its step. "- predict" and "top-1" compare the file with `predict`
    on 64 images.
"""

import collections
import pathlib
import sys

import keras
import numpy as np
from absl import app
from absl import flags

import keras_saq
from keras_saq.data import proxy_split
from keras_saq.table import format_table

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_bool("smoke", False, "Random images, one step: does it run?")
    flags.DEFINE_float("fraction", 0.06, "Part of CIFAR-10 that is used.")
    flags.DEFINE_list("bits", "w8a8,w4a8", "Presets, one file for each.")
    flags.DEFINE_enum(
        "method", "saq", ["qat", "saq"], "How quantized models are trained."
    )
    flags.DEFINE_integer("num_layers", 3, "Transformer layers.", lower_bound=1)
    flags.DEFINE_integer(
        "hidden_dim", 64, "Width of the transformer.", lower_bound=1
    )
    flags.DEFINE_integer("float_epochs", 6, "Epochs in float.", lower_bound=1)
    flags.DEFINE_integer(
        "epochs", 1, "Epochs of each quantized training.", lower_bound=1
    )
    flags.DEFINE_float(
        "rho", 0.05, "Radius of SAQ's perturbation.", lower_bound=0
    )
    flags.DEFINE_string("output", "vit", "Folder of the files.")


def network():
    try:
        import keras_hub
    except ImportError as error:
        sys.exit(f'KerasHub: pip install "keras-saq[models]" ({error})')
    backbone = keras_hub.models.ViTBackbone(
        image_shape=(32, 32, 3),
        patch_size=4,
        num_layers=1 if FLAGS.smoke else FLAGS.num_layers,
        num_heads=2,
        hidden_dim=FLAGS.hidden_dim,
        mlp_dim=2 * FLAGS.hidden_dim,
        dropout_rate=0.1,
        name="vit",
    )
    inputs = keras.Input((32, 32, 3), name="image")
    tokens = backbone(keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs))
    x = keras.layers.GlobalAveragePooling1D()(tokens)
    return keras.Model(inputs, keras.layers.Dense(10, name="head")(x))


def load_split(split):
    """Images with values from 0 to 255, and labels."""
    if FLAGS.smoke:
        rng = np.random.default_rng(0)
        images = rng.uniform(0, 255, (16, 32, 32, 3))
        return images.astype("float32"), np.arange(16) % 10
    try:
        data = proxy_split("cifar10", FLAGS.fraction, split=split)
    except ImportError as error:
        sys.exit(str(error))
    return data.x, data.y


def train(model, data, test, epochs, learning_rate):
    """Accuracy on the test images after training."""
    model.compile(
        keras.optimizers.Adam(learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=keras.backend.backend() != "tensorflow",
    )
    epochs = 1 if FLAGS.smoke else epochs
    model.fit(*data, batch_size=64, epochs=epochs, verbose=2)
    return model.evaluate(*test, batch_size=256, verbose=0)[1]


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    keras.utils.set_random_seed(0)
    model = network()
    output = pathlib.Path(FLAGS.output)
    output.mkdir(parents=True, exist_ok=True)
    data, test = load_split("train"), load_split("test")
    print(f"{len(data[0])} images to learn from, {len(test[0])} to test with")

    accuracy = train(model, data, test, FLAGS.float_epochs, 1e-3)
    rows = [("float", f"{accuracy:.2%}", "", "", "", "")]
    for bits in FLAGS.bits[:1] if FLAGS.smoke else FLAGS.bits:
        q = keras_saq.quantize_model(model, bits, calibration=data[0][:256])
        if FLAGS.method == "saq":
            q = keras_saq.SAQModel(q, rho=FLAGS.rho)
        accuracy = train(q, data, test, FLAGS.epochs, 3e-4)
        path = output / f"vit-{bits}.tflite"
        report = q.export(path, format="litert")
        parity = keras_saq.verify_litert(path, q, test[0][:64])
        rows.append(
            (
                f"{bits} {FLAGS.method.upper()}",
                f"{accuracy:.2%}",
                f"{report.file_bytes:,}",
                "yes" if parity.within_bounds else "NO",
                f"{parity.max_lsb:.0f} steps",
                f"{parity.top1_agreement:.1%}",
            )
        )
    print(format_table(("float island", "number"), islands(report)))
    print()
    header = (
        "model",
        "accuracy",
        "bytes",
        "within bounds",
        "- predict",
        "top-1",
    )
    print(format_table(header, rows))


def islands(report):
    """How many computations stay in float, of each kind."""
    reasons = collections.Counter(
        # What follows a colon is about the one function.
        reason.partition(":")[0]
        for _, reason in report.islands
    )
    return [(text, str(count)) for text, count in reasons.items()]


if __name__ == "__main__":
    define_flags()
    app.run(main)
