"""A KerasCV classifier, with KerasCV's augmentation in the input pipeline.

Shows: `keras_cv.models.ImageClassifier` around a small ResNet backbone learns a
    part of CIFAR-10 through RandomFlip, RandAugment and CutMix, with soft
    labels; it is quantized as it is, trained on with QAT and with SAQ, saved,
    loaded, exported and verified. Of the other backbones of KerasCV 0.9,
    CSPDarkNet is quantized and trained, but its `Lambda` layers and slices have
    no integer kernel: export refuses them by name.
Needs: pip install ".[data,models]"
Time: 9 min on two CPU cores that had much else to do, 196 s of processor time.
Result: `python examples/keras_cv_model.py`. 4,000 images, 800 to test with; SAQ
    is ahead of QAT by one image, which is no difference.

    model     accuracy    bytes  within bounds  - predict   top-1
    --------  --------  -------  -------------  ---------  ------
    float       45.88%
    w4a8 QAT    48.88%  233,672            yes    2 steps   99.5%
    w4a8 SAQ    49.00%  233,672            yes    2 steps  100.0%

    "within bounds": every operator of the file computes what it should, exactly
    or within its step. "- predict" and "top-1" compare the file with `predict`,
    which computes in float32, on 200 images.
"""

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
    flags.DEFINE_float("fraction", 0.08, "Part of CIFAR-10 that is used.")
    flags.DEFINE_string("bits", "w4a8", "Preset: bits of weights, activations.")
    flags.DEFINE_integer("float_epochs", 12, "Epochs in float.", lower_bound=1)
    flags.DEFINE_integer(
        "epochs", 2, "Epochs of each quantized training.", lower_bound=1
    )
    flags.DEFINE_float(
        "rho", 0.05, "Radius of SAQ's perturbation.", lower_bound=0
    )
    flags.DEFINE_string("output", "keras_cv", "Folder of the files.")


def import_keras_cv():
    try:
        import keras_cv
    except ImportError as error:
        sys.exit(f'KerasCV: pip install "keras-saq[models]" ({error})')
    return keras_cv


def network(keras_cv):
    backbone = keras_cv.models.ResNetBackbone(
        input_shape=(32, 32, 3),
        stackwise_filters=[16, 32, 64],
        stackwise_blocks=[1, 1, 1] if FLAGS.smoke else [2, 2, 2],
        stackwise_strides=[1, 2, 2],
        include_rescaling=True,
    )
    return keras_cv.models.ImageClassifier(
        backbone=backbone, num_classes=10, activation="softmax"
    )


def load_split(split):
    """Images with values from 0 to 255, and one-hot labels."""
    if FLAGS.smoke:
        rng = np.random.default_rng(0)
        images = rng.uniform(0, 255, (32, 32, 32, 3)).astype("float32")
        return images, np.eye(10, dtype="float32")[np.arange(32) % 10]
    try:
        data = proxy_split("cifar10", FLAGS.fraction, split=split)
    except ImportError as error:
        sys.exit(str(error))
    return data.x, np.eye(10, dtype="float32")[data.y]


def augmented(keras_cv, images, labels, batch_size=64):
    """Shuffled, augmented batches of `(images, soft labels)`."""
    import tensorflow as tf

    augment = [
        keras_cv.layers.RandomFlip("horizontal"),
        keras_cv.layers.RandAugment(
            value_range=(0, 255), augmentations_per_image=1, magnitude=0.2
        ),
        keras_cv.layers.CutMix(),
    ]

    def run(images, labels):
        batch = {"images": images, "labels": labels}
        for layer in augment:
            batch = layer(batch, training=True)
        return batch["images"], batch["labels"]

    data = tf.data.Dataset.from_tensor_slices((images, labels))
    data = data.shuffle(len(images), seed=0).batch(batch_size)
    return data.map(run).prefetch(tf.data.AUTOTUNE)


def train(model, data, images, test, epochs, learning_rate):
    """Accuracy on the test images after training."""
    model.compile(
        keras.optimizers.Adam(learning_rate),
        keras.losses.CategoricalCrossentropy(),
        metrics=["accuracy"],
        jit_compile=keras.backend.backend() != "tensorflow",
    )
    epochs = 1 if FLAGS.smoke else epochs
    # Moving averages lag behind in few steps, and saw augmented images.
    statistics = keras_saq.callbacks.BatchNormReestimation(images)
    model.fit(
        data,
        epochs=epochs,
        shuffle=False,  # the data set does
        verbose=2,
        callbacks=[statistics],
    )
    return model.evaluate(*test, batch_size=256, verbose=0)[1]


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    keras_cv = import_keras_cv()
    keras.utils.set_random_seed(0)
    output = pathlib.Path(FLAGS.output)
    output.mkdir(parents=True, exist_ok=True)
    images, labels = load_split("train")
    test = load_split("test")
    print(f"{len(images)} images to learn from, {len(test[0])} to test with")
    data = augmented(keras_cv, images, labels)

    model = network(keras_cv)
    accuracy = train(model, data, images[:1024], test, FLAGS.float_epochs, 2e-3)
    rows = [("float", f"{accuracy:.2%}", "", "", "", "")]
    for method in ("SAQ",) if FLAGS.smoke else ("QAT", "SAQ"):
        keras.utils.set_random_seed(0)
        q = keras_saq.quantize_model(
            model, FLAGS.bits, calibration=images[:256]
        )
        if method == "SAQ":
            q = keras_saq.SAQModel(q, rho=FLAGS.rho)
        accuracy = train(q, data, images[:1024], test, FLAGS.epochs, 5e-4)
        q.save(output / f"{method.lower()}.keras")
        q = keras.saving.load_model(output / f"{method.lower()}.keras")
        path = output / f"{method.lower()}.tflite"
        report = q.export(path, format="litert")
        parity = keras_saq.verify_litert(path, q, test[0][:200])
        rows.append(
            (
                f"{FLAGS.bits} {method}",
                f"{accuracy:.2%}",
                f"{report.file_bytes:,}",
                "yes" if parity.within_bounds else "NO",
                f"{parity.max_lsb:.0f} steps",
                f"{parity.top1_agreement:.1%}",
            )
        )
    header = (
        "model",
        "accuracy",
        "bytes",
        "within bounds",
        "- predict",
        "top-1",
    )
    print(format_table(header, rows))


if __name__ == "__main__":
    define_flags()
    app.run(main)
