"""The table of operations: the role of each layer class and operation.

The one place that says what a class of Keras is to this library. The planner,
calibration, the search, its costs and the exporter ask it and nothing else.
To add an operation: one row here, one rule in
`keras_saq.export.lowering.rules`, one test.

A layer can be replaced by an operation that does the same: `x + y` in a
Functional model is no `keras.layers.Add`, and means one.
"""

from keras import layers

from keras_saq.layers.roles.channels import CELL
from keras_saq.layers.roles.channels import DEPTHWISE
from keras_saq.layers.roles.channels import IN_CELL
from keras_saq.layers.roles.channels import OUTPUTS
from keras_saq.layers.roles.channels import ROWS
from keras_saq.layers.roles.channels import SEPARABLE
from keras_saq.layers.roles.channels import TRANSPOSED
from keras_saq.layers.roles.channels import always
from keras_saq.layers.roles.channels import is_packed
from keras_saq.layers.roles.channels import is_pointwise
from keras_saq.layers.roles.channels import is_second_part
from keras_saq.layers.roles.channels import of_einsum
from keras_saq.layers.roles.functions import of_activation_layer
from keras_saq.layers.roles.functions import of_function
from keras_saq.layers.roles.functions import of_relu_layer
from keras_saq.layers.roles.role import ALWAYS
from keras_saq.layers.roles.role import AS_INPUTS
from keras_saq.layers.roles.role import IDENTITY
from keras_saq.layers.roles.role import Role
from keras_saq.layers.roles.role import mover
from keras_saq.layers.roles.role import not_packed


def _kernel(family, axes, packs=not_packed):
    """A weighted sum in integers, with a bias and a function behind it."""
    return Role(
        family,
        accumulates=True,
        weights=axes if callable(axes) else always(axes),
        packs=packs,
        activation_is_last=True,
    )


def _lookup(family):
    return Role(
        family, weights=always(ROWS), packs=is_packed, reads_indices=True
    )


def _integer(family):
    return Role(family, integer=True)


def _joined(family):
    """Integers, non-negative where all that goes in is."""
    return Role(family, integer=True, unsigned=AS_INPUTS)


# Class of a layer: its `Role`, or a function that finds it for a layer.
LAYERS = {
    # --- Weights
    layers.Conv1D: _kernel("conv", OUTPUTS, is_pointwise),
    layers.Conv2D: _kernel("conv", OUTPUTS, is_pointwise),
    layers.Conv3D: _kernel("conv_3d", OUTPUTS),
    layers.Conv1DTranspose: _kernel("transposed", TRANSPOSED),
    layers.Conv2DTranspose: _kernel("transposed", TRANSPOSED),
    layers.Conv3DTranspose: _kernel("transposed_3d", TRANSPOSED),
    layers.Dense: _kernel("dense", OUTPUTS, is_packed),
    layers.DepthwiseConv1D: _kernel("depthwise", DEPTHWISE),
    layers.DepthwiseConv2D: _kernel("depthwise", DEPTHWISE),
    layers.EinsumDense: _kernel("einsum_dense", of_einsum, is_packed),
    layers.SeparableConv1D: _kernel("separable", SEPARABLE, is_second_part),
    layers.SeparableConv2D: _kernel("separable", SEPARABLE, is_second_part),
    layers.Embedding: _lookup("embedding"),
    # --- Weights of a part
    layers.ConvLSTM1D: Role("conv_lstm", weights=always(IN_CELL)),
    layers.ConvLSTM2D: Role("conv_lstm", weights=always(IN_CELL)),
    layers.ConvLSTM3D: Role("conv_lstm", weights=always(IN_CELL)),
    layers.GRU: Role("gru", part="cell"),
    layers.GRUCell: Role("recurrent_cell", weights=always(CELL)),
    layers.LSTM: Role("lstm", part="cell"),
    layers.LSTMCell: Role("recurrent_cell", weights=always(CELL)),
    layers.RNN: Role("rnn", part="cell"),
    layers.SimpleRNN: Role("simple_rnn", part="cell"),
    layers.SimpleRNNCell: Role("recurrent_cell", weights=always(CELL)),
    layers.TimeDistributed: Role("time_distributed", part="layer"),
    # Its numbers pass, but which of them are masked is seen before they are
    # rounded: a quantizer stands behind it, not in front.
    layers.Masking: Role("masking"),
    # --- Normalizations
    layers.BatchNormalization: _integer("batch_norm"),
    layers.LayerNormalization: Role("layer_norm"),
    layers.Normalization: Role("normalization"),
    layers.RMSNormalization: Role("rms_norm"),
    layers.Rescaling: Role("rescaling"),
    # --- Activation functions
    layers.Activation: of_activation_layer,
    layers.ELU: of_function("elu"),
    layers.LeakyReLU: of_function("leaky_relu"),
    layers.ReLU: of_relu_layer,
    layers.Softmax: of_function("softmax"),
    # --- Several tensors, element by element or joined
    layers.Add: _joined("add"),
    layers.Average: _integer("average_of"),
    layers.Concatenate: _joined("concatenate"),
    layers.Maximum: _integer("maximum"),
    layers.Minimum: _integer("minimum"),
    layers.Multiply: _integer("multiply"),
    layers.Subtract: _integer("subtract"),
    # --- Averages and maxima
    layers.AveragePooling1D: _joined("average_pool"),
    layers.AveragePooling2D: _joined("average_pool"),
    layers.AveragePooling3D: _joined("average_pool_3d"),
    layers.GlobalAveragePooling1D: _joined("global_average"),
    layers.GlobalAveragePooling2D: _joined("global_average"),
    layers.GlobalAveragePooling3D: _joined("global_average_3d"),
    layers.GlobalMaxPooling1D: mover("global_max"),
    layers.GlobalMaxPooling2D: mover("global_max"),
    layers.GlobalMaxPooling3D: mover("global_max"),
    layers.MaxPooling1D: mover("max_pool"),
    layers.MaxPooling2D: mover("max_pool"),
    layers.MaxPooling3D: mover("max_pool_3d"),
    # --- Moves
    layers.Cropping1D: mover("crop"),
    layers.Cropping2D: mover("crop"),
    layers.Cropping3D: mover("crop_3d"),
    layers.Flatten: mover("reshape"),
    layers.Permute: mover("permute"),
    layers.RepeatVector: mover("repeat_vector"),
    layers.Reshape: mover("reshape"),
    layers.UpSampling1D: _integer("upsampling"),
    layers.UpSampling2D: _integer("upsampling"),
    layers.UpSampling3D: _integer("upsampling_3d"),
    layers.ZeroPadding1D: mover("pad"),
    layers.ZeroPadding2D: mover("pad"),
    layers.ZeroPadding3D: mover("pad_3d"),
    # --- Nothing at inference
    layers.ActivityRegularization: IDENTITY,
    layers.AlphaDropout: IDENTITY,
    layers.Dropout: IDENTITY,
    layers.GaussianDropout: IDENTITY,
    layers.GaussianNoise: IDENTITY,
    layers.Identity: IDENTITY,
    layers.SpatialDropout1D: IDENTITY,
    layers.SpatialDropout2D: IDENTITY,
    layers.SpatialDropout3D: IDENTITY,
}
# Layers that not each version of Keras has.
_NEWER = {"ReversibleEmbedding": _lookup("reversible_embedding")}
# Augmentation: of images that nobody trains with, nothing becomes of them.
_AUGMENTATION = (
    "AugMix",
    "CutMix",
    "MaxNumBoundingBoxes",
    "MixUp",
    "RandAugment",
    "RandomBrightness",
    "RandomColorDegeneration",
    "RandomColorJitter",
    "RandomContrast",
    "RandomElasticTransform",
    "RandomErasing",
    "RandomFlip",
    "RandomGaussianBlur",
    "RandomGrayscale",
    "RandomHue",
    "RandomInvert",
    "RandomPerspective",
    "RandomPosterization",
    "RandomRotation",
    "RandomSaturation",
    "RandomSharpness",
    "RandomShear",
    "RandomTranslation",
    "RandomZoom",
)
_NEWER.update((name, IDENTITY) for name in _AUGMENTATION)
LAYERS.update(
    (getattr(layers, name), role)
    for name, role in _NEWER.items()
    if hasattr(layers, name)
)

# Name of an operation of `keras.ops`: its `Role`.
OPERATIONS = {
    "Abs": Role("abs", integer=True, unsigned=ALWAYS),
    "Absolute": Role("abs", integer=True, unsigned=ALWAYS),
    "Add": _joined("add"),
    "AveragePool": _joined("average_pool_operation"),
    "BroadcastTo": mover("broadcast"),
    "Cast": IDENTITY,
    "Clip": _integer("clip"),
    "Concatenate": _joined("concatenate"),
    "Divide": Role("divide"),
    "DotProductAttention": Role("product"),
    "Einsum": Role("product"),
    "Elu": of_function("elu"),
    "Exp": of_function("exponential"),
    "ExpandDims": mover("reshape"),
    "Flip": mover("flip"),
    "Gelu": of_function("gelu"),
    "GetItem": mover("item"),
    "HardSigmoid": of_function("hard_sigmoid"),
    "HardSilu": of_function("hard_swish"),
    "LeakyRelu": of_function("leaky_relu"),
    "Matmul": Role("product"),
    "MaxPool": mover("max_pool_operation"),
    "Maximum": _integer("maximum"),
    "Mean": _joined("mean"),
    "Minimum": _integer("minimum"),
    "Moveaxis": mover("move_axis"),
    "Multiply": _integer("multiply"),
    "Negative": _integer("negative"),
    "Pad": mover("pad"),
    "Relu": of_function("relu"),
    "Relu6": of_function("relu6"),
    "Repeat": mover("repeat"),
    "Reshape": mover("reshape"),
    "Resize": _integer("resize"),
    "Roll": mover("roll"),
    "Sigmoid": of_function("sigmoid"),
    "Silu": of_function("swish"),
    "Softmax": of_function("softmax"),
    "Softplus": of_function("softplus"),
    "Softsign": of_function("softsign"),
    "Split": mover("split"),
    "Squeeze": mover("reshape"),
    "Stack": _joined("stack"),
    "StopGradient": IDENTITY,
    "Subtract": _integer("subtract"),
    "Swapaxes": mover("swap_axes"),
    "Tanh": of_function("tanh"),
    "Tile": mover("tile"),
    "Transpose": mover("permute"),
    "TrueDivide": Role("divide"),
    "Unstack": mover("unstack"),
}
