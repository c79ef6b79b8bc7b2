"""Low-bit ResNet-20 on CIFAR: plain QAT or SAQ, the recipe of the paper.

Shows: the pre-activation ResNet-20 of SAQ (arXiv 2111.12273) starts from a
    float checkpoint, is quantized, trained, evaluated, and, if asked, exported:

    python examples/cifar_resnet20.py --dataset=cifar100 \\
        --checkpoint=float.npz --bits=w4a4 --method=saq --epochs=1

    The defaults are the released recipe for CIFAR-100 at 4 bits: 200 epochs,
    batch 128, SGD with Nesterov momentum 0.9, learning rate 0.01 times 0.1 at
    40 % and 60 % of the epochs, L2 weight decay 1e-4, padded random crops and
    flips. `--bits=float --method=qat --save=float.keras` makes a float
    checkpoint with the same recipe.
Needs: pip install ".[data]"
Time: 40 steps with three evaluations on 1,000 images took 102 s of processor
    time on two CPU cores; that makes some 12 min for an epoch of CIFAR-100 with
    SAQ, and about a day for 200.
Result: the command above with `--epochs=1`, and with `--bits=w2a2` and
    `--method=qat`: one seed, top-1 on the 10,000 test images. SAQ does not beat
    QAT at two bits, and at four by no more than a seed makes.

    bits  before   QAT, 1 epoch  SAQ, 1 epoch
    ----  -------  ------------  ------------
    w4a4  58.64 %       62.02 %       62.34 %
    w2a2   1.63 %       51.31 %       51.05 %

    `python examples/cifar_resnet20.py --checkpoint=float.npz --epochs=1
    --steps_per_epoch=40 --eval_samples=1000`: 67.1 % in float, 58.6 % when it
    is quantized (w4a4), 62.1 % after 40 steps. See docs/results.md.
"""

import json
import math
import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf
from absl import app
from absl import flags

import keras_saq

MEAN = {
    "cifar10": (0.4914, 0.4822, 0.4465),
    "cifar100": (0.5071, 0.4867, 0.4408),
}
STD = {
    "cifar10": (0.2470, 0.2435, 0.2616),
    "cifar100": (0.2675, 0.2557, 0.2761),
}

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_bool("smoke", False, "Random images, two steps: does it run?")
    flags.DEFINE_enum(
        "dataset", "cifar100", ["cifar10", "cifar100"], "TFDS data set."
    )
    flags.DEFINE_string(
        "checkpoint",
        None,
        "Float model: a .keras file, or an .npz with PyTorch parameter names "
        "and OIHW kernels. Without one the network starts from random weights.",
    )
    flags.DEFINE_string(
        "bits", "w4a4", "Preset or .json policy; 'float' for none."
    )
    flags.DEFINE_enum("method", "saq", ["qat", "saq"], "Train step.")
    flags.DEFINE_enum(
        "scheme",
        "paper",
        ["paper", "litert"],
        "Where activations are quantized: as in the paper's tables, or "
        "everywhere an integer file needs it.",
    )
    flags.DEFINE_float(
        "rho", 0.1, "Radius of SAQ's perturbation.", lower_bound=0
    )
    flags.DEFINE_integer("epochs", 200, "Training epochs.", lower_bound=0)
    flags.DEFINE_integer("batch_size", 128, "Batch size.", lower_bound=1)
    flags.DEFINE_float("learning_rate", 0.01, "Initial learning rate.")
    flags.DEFINE_float("weight_decay", 1e-4, "L2 weight decay.", lower_bound=0)
    flags.DEFINE_integer(
        "steps_per_epoch",
        None,
        "Train on fewer batches per epoch.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "eval_samples", None, "Test on fewer images.", lower_bound=1
    )
    flags.DEFINE_integer("seed", 1, "Seed of initial weights and data order.")
    flags.DEFINE_string(
        "export", None, "Write the trained model to this .tflite."
    )
    flags.DEFINE_string(
        "save",
        None,
        "Write the model to this .keras, to be loaded with compile=False.",
    )
    flags.DEFINE_string("results", None, "Append a line of JSON to this file.")


def preact_resnet20(num_classes):
    """Pre-activation ResNet-20, layers named as PyTorch's parameters.

    The first block of a stage takes its shortcut after the BN-ReLU, and
    halves the size from the second stage on with a 1x1 convolution. Padding
    is explicit and symmetric: Keras's "same" pads strided convolutions on
    one side only.
    """
    layers = keras.layers

    def norm_relu(x, name):
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)
        return layers.ReLU(name=f"{name}.relu")(x)

    def conv(x, filters, strides, name):
        x = layers.ZeroPadding2D(1, name=f"{name}.pad")(x)
        return layers.Conv2D(
            filters,
            3,
            strides=strides,
            use_bias=False,
            kernel_initializer="he_normal",
            name=name,
        )(x)

    inputs = keras.Input((32, 32, 3), name="image")
    x = conv(inputs, 16, 1, "conv")
    for stage, filters in enumerate((16, 32, 64), start=1):
        for block in range(3):
            name = f"layer{stage}.{block}"
            strides = 2 if stage > 1 and block == 0 else 1
            y = norm_relu(x, f"{name}.bn1")
            shortcut = y if block == 0 else x
            if strides != 1:
                shortcut = layers.Conv2D(
                    filters,
                    1,
                    strides=strides,
                    use_bias=False,
                    name=f"{name}.downsample",
                )(shortcut)
            y = conv(y, filters, strides, f"{name}.conv1")
            y = norm_relu(y, f"{name}.bn2")
            y = conv(y, filters, 1, f"{name}.conv2")
            x = layers.Add(name=f"{name}.add")([y, shortcut])
    x = norm_relu(x, "bn")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(num_classes, name="fc")(x))


def load_torch_weights(model, path):
    """Assigns an `.npz` of PyTorch parameters to the layers of their name."""
    arrays = dict(np.load(path))
    names = {"gamma": "weight", "beta": "bias", "kernel": "weight"}
    names |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
    for layer in model.layers:
        for variable in layer.variables:
            key = f"{layer.name}.{names.get(variable.name, variable.name)}"
            if key not in arrays:
                raise ValueError(
                    f"The checkpoint {path} has no parameter '{key}'. It has: "
                    f"{sorted(arrays)}"
                )
            value = arrays.pop(key)
            if value.ndim == 4:
                value = value.transpose(2, 3, 1, 0)
            elif value.ndim == 2:
                value = value.T
            variable.assign(value)
    if arrays:
        raise ValueError(
            f"The checkpoint {path} has parameters that the network lacks: "
            f"{sorted(arrays)}"
        )


def load_float_model(num_classes):
    path = FLAGS.checkpoint
    if path and path.endswith(".keras"):
        return keras.saving.load_model(path, compile=False)
    model = preact_resnet20(num_classes)
    if path:
        load_torch_weights(model, path)
    return model


def load_data(split):
    """Normalised images and labels of a split, as NumPy arrays."""
    if FLAGS.smoke:
        images = np.random.default_rng(0).normal(size=(64, 32, 32, 3))
        return images.astype("float32"), np.arange(64) % 10
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        sys.exit(f'The data: pip install "keras-saq[data]" ({error})')
    data = tfds.load(FLAGS.dataset, split=split, batch_size=-1)
    images = data["image"].numpy().astype("float32") / 255
    images = (images - MEAN[FLAGS.dataset]) / STD[FLAGS.dataset]
    return images.astype("float32"), data["label"].numpy()


def augmented(images, labels, batch_size, seed, steps=None):
    """Shuffled batches of padded random crops and flips."""

    def augment(image, label):
        image = tf.image.random_flip_left_right(image)
        image = tf.pad(image, [(4, 4), (4, 4), (0, 0)])
        return tf.image.random_crop(image, (32, 32, 3)), label

    data = tf.data.Dataset.from_tensor_slices((images, labels))
    data = data.shuffle(len(images), seed=seed)
    data = data.map(augment, num_parallel_calls=tf.data.AUTOTUNE)
    data = data.batch(batch_size, drop_remainder=True)
    # `take(-1)` takes all.
    return data.take(steps or -1).prefetch(tf.data.AUTOTUNE)


class SGDWithL2(keras.optimizers.SGD):
    """SGD whose weight decay is part of the gradient, as in PyTorch.

    Keras's own is decoupled, which with momentum 0.9 is ten times weaker.
    Scales are stored as logarithms, which have no reason to go to zero, and
    are left out.
    """

    def __init__(self, *args, l2=0.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.l2 = l2

    def update_step(self, gradient, variable, learning_rate):
        # TensorFlow hands over its own variable, whose name is a path.
        if "log_scale" not in variable.name:
            gradient = gradient + self.l2 * variable
        super().update_step(gradient, variable, learning_rate)

    def get_config(self):
        return {**super().get_config(), "l2": self.l2}


def optimizer(steps_per_epoch):
    boundaries = [
        max(1, round(FLAGS.epochs * part) * steps_per_epoch)
        for part in (0.4, 0.6)
    ]
    rate = FLAGS.learning_rate
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
        boundaries, [rate, rate * 0.1, rate * 0.01]
    )
    # Under two epochs' worth of steps the schedule would start at its end.
    return SGDWithL2(
        schedule if FLAGS.epochs > 2 else rate,
        momentum=0.9,
        nesterov=True,
        l2=FLAGS.weight_decay,
    )


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    is_paper = FLAGS.scheme == "paper" and not FLAGS.bits.endswith(".json")
    if FLAGS.export and (FLAGS.bits == "float" or is_paper):
        # Not after a day of training.
        raise app.UsageError(
            "--export needs a model in which every tensor is quantized: give "
            "--scheme=litert, and --bits other than float."
        )
    if FLAGS.smoke:
        FLAGS.epochs, FLAGS.steps_per_epoch, FLAGS.eval_samples = 1, 2, 40
        FLAGS.batch_size = 16
    keras.utils.set_random_seed(FLAGS.seed)
    num_classes = {"cifar10": 10, "cifar100": 100}[FLAGS.dataset]
    model = load_float_model(num_classes)
    train_images, train_labels = load_data("train")
    test = [a[: FLAGS.eval_samples] for a in load_data("test")]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, metrics=["accuracy"], jit_compile=False)
    results = {
        name: FLAGS[name].value
        for name in (
            "dataset",
            "bits",
            "method",
            "scheme",
            "rho",
            "epochs",
            "steps_per_epoch",
            "seed",
        )
    }
    results["float"] = model.evaluate(*test, batch_size=256, verbose=2)[1]

    policy = FLAGS.bits
    if policy != "float" and not policy.endswith(".json"):
        policy = keras_saq.QuantizePolicy.preset(policy, scheme=FLAGS.scheme)
    if policy != "float":
        model = keras_saq.quantize_model(
            model, policy, calibration=train_images[:512]
        )
        results["bops"] = keras_saq.summary(model).bops
    if FLAGS.method == "saq":
        model = keras_saq.SAQModel(model, rho=FLAGS.rho)
    batches = augmented(
        train_images,
        train_labels,
        FLAGS.batch_size,
        FLAGS.seed,
        FLAGS.steps_per_epoch,
    )
    steps = FLAGS.steps_per_epoch or math.floor(
        len(train_images) / FLAGS.batch_size
    )
    model.compile(optimizer(steps), loss=loss, metrics=["accuracy"])
    results["before"] = model.evaluate(*test, batch_size=256, verbose=2)[1]
    history = model.fit(
        batches,
        epochs=FLAGS.epochs,
        shuffle=False,  # the data set does
        validation_data=tuple(test),
        validation_batch_size=256,
        verbose=2,
    )
    for name, values in history.history.items():
        results[name] = [round(value, 5) for value in values]
    if FLAGS.save:
        model.save(FLAGS.save)
    if FLAGS.export:
        report = model.export(FLAGS.export, format="litert")
        parity = keras_saq.verify_litert(FLAGS.export, model, test[0])
        print(report)
        print(parity)
        results["file_bytes"] = report.file_bytes
        results["max_lsb"] = parity.max_lsb
    if FLAGS.results:
        with pathlib.Path(FLAGS.results).open("a", encoding="utf-8") as file:
            file.write(json.dumps(results) + "\n")
    print(json.dumps(results))


if __name__ == "__main__":
    define_flags()
    app.run(main)
