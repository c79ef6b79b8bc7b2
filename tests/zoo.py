"""Whole networks of other people's making, with random weights.

As small as each constructor allows. An entry of `NETWORKS` makes a float
model with `CLASSES` logits or probabilities; `data_for` makes its data.
"""

import keras
import numpy as np

CLASSES = 10
SAMPLES = 4
VOCABULARY = 50

layers = keras.layers


# --- keras.applications


def mobilenet_v2():
    return keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), alpha=0.35, weights=None, classes=CLASSES
    )


def mobilenet_v3_small():
    return keras.applications.MobileNetV3Small(
        input_shape=(32, 32, 3), weights=None, classes=CLASSES
    )


def application(name):
    def build():
        return getattr(keras.applications, name)(
            input_shape=(32, 32, 3), weights=None, classes=CLASSES
        )

    return build


# --- Backbones, nested in a classifier


def classifier(backbone):
    """Backbone, mean over positions, and a Dense head."""
    inputs = keras.Input(backbone.inputs[0].shape[1:])
    x = backbone(inputs)
    if len(x.shape) == 4:
        x = layers.GlobalAveragePooling2D()(x)
    else:
        x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(CLASSES, name="head")(x))


def hub_vit():
    import keras_hub

    return classifier(
        keras_hub.models.ViTBackbone(
            image_shape=(32, 32, 3),
            patch_size=8,
            num_layers=2,
            num_heads=2,
            hidden_dim=32,
            mlp_dim=64,
            dropout_rate=0.1,
            attention_dropout=0.1,
        )
    )


def hub_deit():
    import keras_hub

    return classifier(
        keras_hub.models.DeiTBackbone(
            image_shape=(32, 32, 3),
            patch_size=8,
            num_layers=2,
            num_heads=2,
            hidden_dim=32,
            intermediate_dim=64,
            dropout_rate=0.1,
            attention_dropout=0.1,
        )
    )


def hub_swin():
    import keras_hub

    return classifier(
        keras_hub.models.SwinTransformerBackbone(
            image_shape=(32, 32, 3),
            embed_dim=16,
            depths=(2, 2),
            num_heads=(2, 4),
            window_size=4,
            patch_size=2,
        )
    )


def hub_mit():
    import keras_hub

    return classifier(
        keras_hub.models.MiTBackbone(
            image_shape=(32, 32, 3),
            layerwise_depths=[1, 1],
            num_layers=2,
            layerwise_num_heads=[1, 2],
            layerwise_sr_ratios=[2, 1],
            max_drop_path_rate=0.1,
            layerwise_patch_sizes=[7, 3],
            layerwise_strides=[4, 2],
            hidden_dims=[16, 32],
        )
    )


def hub_mobilenet():
    import keras_hub

    return classifier(
        keras_hub.models.MobileNetBackbone(
            image_shape=(32, 32, 3),
            stackwise_expansion=[[16, 24], [32, 32]],
            stackwise_num_blocks=[2, 2],
            stackwise_num_filters=[[16, 16], [24, 24]],
            stackwise_kernel_size=[[3, 3], [5, 5]],
            stackwise_num_strides=[[2, 1], [2, 1]],
            stackwise_se_ratio=[[None, None], [0.25, 0.25]],
            stackwise_activation=[["relu", "relu"], ["hard_swish"] * 2],
            stackwise_padding=[[1, 1], [2, 2]],
            output_num_filters=32,
            input_activation="hard_swish",
            output_activation="hard_swish",
            input_num_filters=16,
            depthwise_filters=8,
            depthwise_stride=2,
            depthwise_residual=False,
            last_layer_filter=32,
            squeeze_and_excite=0.5,
        )
    )


def hub_resnet():
    import keras_hub

    return classifier(
        keras_hub.models.ResNetBackbone(
            image_shape=(32, 32, 3),
            input_conv_filters=[64],
            input_conv_kernel_sizes=[3],
            stackwise_num_filters=[64, 64],
            stackwise_num_blocks=[2, 2],
            stackwise_num_strides=[1, 2],
            block_type="basic_block",
            use_pre_activation=True,
        )
    )


def hub_efficientnet():
    import keras_hub

    return classifier(
        keras_hub.models.EfficientNetBackbone(
            input_shape=(32, 32, 3),
            stackwise_width_coefficients=[1.0, 1.0],
            stackwise_depth_coefficients=[1.0, 1.0],
            stackwise_kernel_sizes=[3, 3],
            stackwise_num_repeats=[2, 2],
            stackwise_input_filters=[16, 16],
            stackwise_output_filters=[16, 24],
            stackwise_expansion_ratios=[1, 4],
            stackwise_squeeze_and_excite_ratios=[0.0, 0.25],
            stackwise_strides=[2, 2],
            stackwise_block_types=["fused", "unfused"],
        )
    )


def hub_bert():
    import keras_hub

    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=VOCABULARY,
        num_layers=2,
        num_heads=2,
        hidden_dim=32,
        intermediate_dim=64,
        max_sequence_length=12,
    )
    inputs = {
        name: keras.Input((12,), dtype="int32", name=name)
        for name in ("token_ids", "segment_ids", "padding_mask")
    }
    x = backbone(inputs)["pooled_output"]
    return keras.Model(inputs, layers.Dense(CLASSES, name="head")(x))


def cv_resnet():
    import keras_cv

    return classifier(
        keras_cv.models.ResNetBackbone(
            input_shape=(32, 32, 3),
            stackwise_filters=[16, 32],
            stackwise_blocks=[2, 2],
            stackwise_strides=[1, 2],
            include_rescaling=True,
        )
    )


# --- Other shapes of network


def lstm():
    return keras.Sequential(
        [
            keras.Input((12,), dtype="int32"),
            layers.Embedding(VOCABULARY, 16),
            layers.Bidirectional(layers.LSTM(12, return_sequences=True)),
            layers.LSTM(12),
            layers.Dropout(0.1),
            layers.Dense(CLASSES),
        ]
    )


def unet():
    """Two levels down, two up; one row of logits from the full image."""

    def block(x, filters):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        return layers.ReLU()(layers.BatchNormalization()(x))

    inputs = keras.Input((32, 32, 3))
    top = block(inputs, 8)
    middle = block(layers.MaxPooling2D()(top), 16)
    x = block(layers.MaxPooling2D()(middle), 32)
    for filters, skip in ((16, middle), (8, top)):
        x = layers.Conv2DTranspose(filters, 2, strides=2)(x)
        x = block(layers.Concatenate()([x, skip]), filters)
    x = layers.Conv2D(CLASSES, 1)(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x))


@keras.saving.register_keras_serializable("keras_saq_tests")
class Gate(layers.Layer):
    """A custom layer that consists of layers and computes between them."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.value = layers.Dense(units)
        self.gate = layers.Dense(units)

    def build(self, input_shape):
        self.value.build(input_shape)
        self.gate.build(input_shape)

    def call(self, x):
        return self.value(x) * keras.ops.sigmoid(self.gate(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("keras_saq_tests")
class Subclassed(keras.Model):
    """A model written as a class, with a custom layer inside."""

    def __init__(self, width=8, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.stem = layers.Conv2D(width, 3, strides=2, padding="same")
        self.norm = layers.BatchNormalization()
        self.body = layers.Conv2D(width, 3, padding="same")
        self.pool = layers.GlobalAveragePooling2D()
        self.custom = Gate(16)
        self.head = layers.Dense(CLASSES)

    def call(self, x, training=None):
        x = keras.ops.relu(self.norm(self.stem(x), training=training))
        x = x + keras.ops.relu(self.body(x))
        return self.head(self.custom(self.pool(x)))

    def get_config(self):
        return {**super().get_config(), "width": self.width}


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 32, 32, 3), "float32"))
    return model


def two_towers():
    """Two images, one encoder that both go through, and a head."""
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=2, use_bias=False)(image)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2D(16, 3, strides=2, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    encoder = keras.Model(image, layers.Dense(16)(x), name="encoder")
    left = keras.Input((32, 32, 3), name="left")
    right = keras.Input((32, 32, 3), name="right")
    x = layers.Concatenate()([encoder(left), encoder(right)])
    x = layers.Dense(16, activation="relu")(x)
    return keras.Model([left, right], layers.Dense(CLASSES)(x))


# Name -> function that makes the model.
NETWORKS = {
    "MobileNetV2": mobilenet_v2,
    "MobileNetV3Small": mobilenet_v3_small,
    **{
        name: application(name)
        for name in (
            "EfficientNetV2B0",
            "ResNet50",
            "DenseNet121",
            "NASNetMobile",
            "ConvNeXtTiny",
        )
    },
    "KerasHub ViT": hub_vit,
    "KerasHub DeiT": hub_deit,
    "KerasHub Swin": hub_swin,
    "KerasHub MiT": hub_mit,
    "KerasHub MobileNet": hub_mobilenet,
    "KerasHub ResNet": hub_resnet,
    "KerasHub EfficientNet": hub_efficientnet,
    "KerasHub BERT": hub_bert,
    "KerasCV ResNet": cv_resnet,
    "LSTM": lstm,
    "U-Net": unet,
    "subclassed": subclassed,
    "two towers": two_towers,
}


def data_for(name):
    """Random inputs of a network, and one-hot labels."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, VOCABULARY, (SAMPLES, 12)).astype("int32")
    y = np.eye(CLASSES, dtype="float32")[:SAMPLES]
    if name == "LSTM":
        return tokens, y
    if name == "KerasHub BERT":
        x = {
            "token_ids": tokens,
            "segment_ids": (np.arange(12) > 5) * np.ones_like(tokens),
            "padding_mask": (np.arange(12) < 10) * np.ones_like(tokens),
        }
        return x, y
    images = rng.random((2, SAMPLES, 32, 32, 3), dtype="float32")
    if name == "two towers":
        return list(images), y
    return images[0], y
