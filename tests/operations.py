"""An example of each row of the table of operations, as small as can be."""

import keras
import numpy as np
from keras import ops

from keras_saq.layers import roles

layers = keras.layers

_ARGUMENTS = {
    "Activation": ("relu",),
    "ActivityRegularization": (),
    "AveragePooling": (2,),
    "Conv": (2, 2),
    "ConvLSTM": (2, 2),
    "Dense": (3,),
    "DepthwiseConv": (2,),
    "EinsumDense": ("abcd,de->abce", (None, None, 5)),
    "Embedding": (9, 4),
    "GRU": (3,),
    "LSTM": (3,),
    "MaxNumBoundingBoxes": (4,),
    "Permute": ((1, 3, 2),),
    "RandomColorDegeneration": (0.2,),
    "RandomHue": (0.2,),
    "RandomPosterization": (4,),
    "RandomSaturation": (0.2,),
    "RandomSharpness": (0.2,),
    "RandomTranslation": (0.2, 0.2),
    "RepeatVector": (2,),
    "Rescaling": (0.5, 1.0),
    "Reshape": ((-1, 4),),
    "ReversibleEmbedding": (9, 4),
    "SeparableConv": (2, 2),
    "SimpleRNN": (3,),
}
# Families whose layers read several tensors.
_SEVERAL = {
    "add",
    "average_of",
    "concatenate",
    "maximum",
    "minimum",
    "multiply",
    "subtract",
}
_SEQUENCES = ("GRU", "LSTM", "RNN", "SimpleRNN")
# Cells are parts of other layers.
PARTS = ("GRUCell", "LSTMCell", "SimpleRNNCell")


def make(name):
    """`(function of a tensor that calls the layer, shape of a sample)`."""
    shape = (6, 6, 4)
    if "1D" in name or name in _SEQUENCES:
        shape = (6, 4)
    elif "3D" in name:
        shape = (4, 4, 4, 4)
    elif name == "RepeatVector":
        shape = (4,)
    elif name.endswith("Embedding"):
        shape = (5,)
    if name.startswith("ConvLSTM"):
        shape = (2, *(4,) * int(name[-2]), 2)
    if name.startswith(("Random", "RandAugment", "AugMix", "CutMix")):
        shape = (6, 6, 3)
    layer_class = getattr(layers, name)
    plain = name.rstrip("123D").removesuffix("Transpose").rstrip("123D")
    if name == "RNN":
        layer = layers.RNN(layers.LSTMCell(3))
    elif name == "TimeDistributed":
        layer = layers.TimeDistributed(layers.Dense(3))
    elif name in ("LayerNormalization", "Normalization"):
        layer = layer_class(axis=-1)
    elif plain.startswith("Random") and plain not in _ARGUMENTS:
        try:
            layer = layer_class()
        except TypeError:
            layer = layer_class(0.2)
    elif "Dropout" in name or name == "GaussianNoise":
        layer = layer_class(0.5)
    else:
        layer = layer_class(*_ARGUMENTS.get(plain, ()))
    if roles.family(layer) in _SEVERAL:
        return lambda x: layer([x, x * 0.5]), shape
    return layer, shape


OPERATIONS = {
    "Abs": ops.abs,
    "Absolute": ops.absolute,
    "Add": lambda x: x + x,
    "AveragePool": lambda x: ops.average_pool(x, 2),
    "BroadcastTo": lambda x: ops.broadcast_to(x[:, :1], (1, 6, 6, 4)),
    "Cast": lambda x: ops.cast(x, "float32"),
    "Clip": lambda x: ops.clip(x, -1.0, 1.0),
    "Concatenate": lambda x: ops.concatenate([x, x], 1),
    "Divide": lambda x: ops.divide(x, 3.0),
    "DotProductAttention": lambda x: ops.dot_product_attention(x, x, x),
    "Einsum": lambda x: ops.einsum("abcd,abed->abce", x, x),
    "Elu": ops.elu,
    "Exp": ops.exp,
    "ExpandDims": lambda x: ops.expand_dims(x, 1),
    "Flip": lambda x: ops.flip(x, 1),
    "Gelu": ops.gelu,
    "GetItem": lambda x: x[:, 1:],
    "HardSigmoid": ops.hard_sigmoid,
    "HardSilu": ops.hard_silu,
    "LeakyRelu": ops.leaky_relu,
    "Matmul": lambda x: ops.matmul(x, ops.transpose(x, (0, 1, 3, 2))),
    "MaxPool": lambda x: ops.max_pool(x, 2),
    "Maximum": lambda x: ops.maximum(x, 0.5),
    "Mean": lambda x: ops.mean(x, (1, 2)),
    "Minimum": lambda x: ops.minimum(x, 0.5),
    "Moveaxis": lambda x: ops.moveaxis(x, 1, 2),
    "Multiply": lambda x: x * x,
    "Negative": ops.negative,
    "Pad": lambda x: ops.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0))),
    "Relu": ops.relu,
    "Relu6": ops.relu6,
    "Repeat": lambda x: ops.repeat(x, 2, 1),
    "Reshape": lambda x: ops.reshape(x, (-1, 36, 4)),
    "Resize": lambda x: ops.image.resize(x, (9, 9)),
    "Roll": lambda x: ops.roll(x, 1, 1),
    "Sigmoid": ops.sigmoid,
    "Silu": ops.silu,
    "Softmax": ops.softmax,
    "Softplus": ops.softplus,
    "Softsign": ops.softsign,
    "Split": lambda x: ops.split(x, 2, 1)[0],
    "Squeeze": lambda x: ops.squeeze(x[:, :1], 1),
    "Stack": lambda x: ops.stack([x, x], 1),
    "StopGradient": ops.stop_gradient,
    "Subtract": lambda x: x - x * 2.0,
    "Swapaxes": lambda x: ops.swapaxes(x, 1, 2),
    "Tanh": ops.tanh,
    "Tile": lambda x: ops.tile(x, (1, 2, 1, 1)),
    "Transpose": lambda x: ops.transpose(x, (0, 2, 1, 3)),
    "TrueDivide": lambda x: x / 3.0,
    "Unstack": lambda x: ops.unstack(x, axis=1)[0],
}


def of(name):
    """The same for any row; names of operations have `ops.` before them."""
    if name.startswith("ops."):
        return OPERATIONS[name.removeprefix("ops.")], (6, 6, 4)
    return make(name)


LAYERS = [c.__name__ for c in roles.LAYERS if c.__name__ not in PARTS]
ROWS = [*LAYERS, *(f"ops.{name}" for name in roles.OPERATIONS)]


def numbers(shape, scale=300.0):
    """Real numbers of both signs, as no image has them."""
    rng = np.random.default_rng(0)
    return rng.uniform(-scale, scale, (2, *shape)).astype("float32")
