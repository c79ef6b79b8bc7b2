"""Commands in this process, and small real data for them."""

import keras
import numpy as np
from PIL import Image

from keras_saq.cli import main
from keras_saq.data import load_digits


def run(capsys, *args):
    """`(exit code, stdout, stderr)` of a command."""
    try:
        code = main.main(main.parse(["keras-saq", *map(str, args)]))
    except SystemExit as error:
        code = error.code
    return code, *capsys.readouterr()


def network(outputs=10, activation=None):
    """Two convolutions and a head, for digits."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, strides=2, use_bias=False),
            layers.BatchNormalization(momentum=0.8),
            layers.ReLU(),
            layers.Conv2D(8, 1, activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.1),
            layers.Dense(outputs, activation=activation),
        ],
        name="small",
    )


def trained_network():
    """The network after some seconds on digits."""
    keras.utils.set_random_seed(0)
    data, model = load_digits(), network()
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    model.fit(data.x_train, data.y_train, batch_size=65, epochs=3, verbose=0)
    return model


def write_digits(path, num_train=260, num_test=100):
    """An `.npz` of digits; all images, in bytes."""
    data = load_digits()
    as_bytes = [(x * 255).astype("uint8") for x in (data.x_train, data.x_test)]
    np.savez(
        path,
        x=as_bytes[0][:num_train],
        y=data.y_train[:num_train],
        x_test=as_bytes[1][:num_test],
        y_test=data.y_test[:num_test],
    )


def write_image_folder(path, per_class=6, splits=("train", "test"), size=12):
    """PNG files of digits 0, 1 and 2, in colour and of another size."""
    data = load_digits()
    for offset, split in enumerate(splits):
        for label in range(3):
            folder = path / split / f"digit{label}"
            folder.mkdir(parents=True)
            images = data.x_train[data.y_train == label]
            for i in range(per_class):
                image = images[offset * per_class + i, ..., 0]
                image = Image.fromarray((image * 255).astype("uint8"))
                image = image.resize((size, size)).convert("RGB")
                image.save(folder / f"{i}.png")
