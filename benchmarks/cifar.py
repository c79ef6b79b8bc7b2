"""The trained float networks and the data of the accuracy benchmarks."""

import importlib.util
import pathlib

import keras
from keras import activations
from keras import layers
from keras import ops

ROOT = pathlib.Path(__file__).resolve().parents[1]


def _example():
    path = ROOT / "examples/cifar_resnet20.py"
    spec = importlib.util.spec_from_file_location("cifar_resnet20", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Its network, its reader of checkpoints, its augmentation, its optimizer.
example = _example()


def resnet8(checkpoint):
    """MLCommons Tiny's ResNet-8, its `.h5`: images in 0..255, softmax."""
    model = keras.saving.load_model(checkpoint, compile=False)
    # Legacy files have a list of one input.
    return keras.Model(model.inputs[0], model.outputs[0], name="resnet8")


def resnet20(checkpoint, num_classes=10):
    """ResNet-20 with shortcuts of option A, named as in PyTorch."""

    def conv(x, filters, strides, name, norm):
        x = layers.ZeroPadding2D(1, name=f"{name}.pad")(x)
        x = layers.Conv2D(
            filters, 3, strides=strides, use_bias=False, name=name
        )(x)
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=norm)(
            x
        )

    inputs = keras.Input((32, 32, 3), name="image")
    x = layers.ReLU()(conv(inputs, 16, 1, "conv1", "bn1"))
    for stage, filters in enumerate((16, 32, 64), start=1):
        for block in range(3):
            name = f"layer{stage}.{block}"
            strides = 2 if stage > 1 and block == 0 else 1
            y = conv(x, filters, strides, f"{name}.conv1", f"{name}.bn1")
            y = layers.ReLU(name=f"{name}.relu1")(y)
            y = conv(y, filters, 1, f"{name}.conv2", f"{name}.bn2")
            if strides == 2:
                side = filters // 4
                x = x[:, ::2, ::2]
                x = ops.pad(x, [(0, 0), (0, 0), (0, 0), (side, side)])
            x = layers.Add(name=f"{name}.add")([y, x])
            x = layers.ReLU(name=f"{name}.relu2")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(num_classes, name="linear")(x)
    model = keras.Model(inputs, x)
    example.load_torch_weights(model, checkpoint)
    return model


def preact_resnet20(checkpoint):
    """SAQ's pre-activation ResNet-20 for CIFAR-100."""
    model = example.preact_resnet20(100)
    example.load_torch_weights(model, checkpoint)
    return model


_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Name -> (network, data set, (mean, std) of its inputs in 0..1).
NETWORKS = {
    "resnet8": (resnet8, "cifar10", None),
    "resnet20": (resnet20, "cifar10", _IMAGENET),
    "preact_resnet20": (
        preact_resnet20,
        "cifar100",
        (example.MEAN["cifar100"], example.STD["cifar100"]),
    ),
}


def load_data(dataset, split, statistics):
    """Images as the network wants them, and labels, as NumPy arrays."""
    import tensorflow_datasets as tfds

    data = tfds.load(dataset, split=split, batch_size=-1)
    images = data["image"].numpy().astype("float32")
    if statistics is not None:
        mean, std = statistics
        images = ((images / 255 - mean) / std).astype("float32")
    return images, data["label"].numpy()


def has_probabilities(model):
    """Whether a float model ends in a softmax."""
    last = getattr(model.layers[-1], "activation", None)
    return last is activations.softmax


def compile_as(float_model, model, learning_rate, steps):
    """Compiles a model for the labels and outputs of a float model here.

    SGD with Nesterov momentum 0.9, L2 1e-4, a cosine to 0 over the steps.
    """
    probabilities = has_probabilities(float_model)
    model.compile(
        example.SGDWithL2(
            keras.optimizers.schedules.CosineDecay(learning_rate, steps),
            momentum=0.9,
            nesterov=True,
            l2=1e-4,
        ),
        keras.losses.SparseCategoricalCrossentropy(
            from_logits=not probabilities
        ),
        metrics=["accuracy"],
        # On CPU, XLA is slower on TensorFlow.
        jit_compile=keras.backend.backend() == "jax",
    )
