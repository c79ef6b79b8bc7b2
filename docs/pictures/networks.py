"""The trained networks that the pictures show: `keras-saq demo`'s, on digits.

Seed 0, 15 epochs each, the demo's learning rates; SAQ with rho = 0.2.
"""

import keras

import keras_saq
from keras_saq.cli.demo_training import digits_network
from keras_saq.data import load_digits

BATCH_SIZE = 65
EPOCHS = 15
RHO = 0.2


def compiled(model, learning_rate=1e-3):
    """The model, compiled as the demo does it."""
    steps = EPOCHS * 1300 // BATCH_SIZE
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    model.compile(
        keras.optimizers.Adam(schedule),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def trained(folder):
    """Dict of float, QAT and SAQ models; what is in the folder is read.

    Args:
        folder: a `pathlib.Path`, for the trained models.
    """
    data = load_digits()

    def made(name, make, learning_rate=1e-3):
        path = folder / f"{name}.keras"
        if not path.exists():
            print(f"trains {name}", flush=True)
            keras.utils.set_random_seed(0)
            model = compiled(make(), learning_rate)
            model.fit(
                data.x_train,
                data.y_train,
                batch_size=BATCH_SIZE,
                epochs=EPOCHS,
                verbose=2,
            )
            model.save(path)
        return compiled(keras.saving.load_model(path))

    def quantized(preset):
        return keras_saq.quantize_model(
            models["float"], preset, calibration=data.x_train[:256]
        )

    models = {}
    models["float"] = made("float", digits_network, learning_rate=3e-3)
    for preset in ("w4a8", "w2a4"):
        models[f"{preset} QAT"] = made(
            f"{preset} QAT", lambda: quantized(preset)
        )
    models["w2a4 SAQ"] = made(
        "w2a4 SAQ", lambda: keras_saq.SAQModel(quantized("w2a4"), rho=RHO)
    )
    return models
