"""What has no integer kernel goes out as a float island in the same file."""

import math
import warnings

import keras
import pytest
from keras import layers
from keras import ops

import keras_saq
from keras_saq.export.forecast import forecast
from keras_saq.export.lowering.rules import why_float
from keras_saq.models.graph import Graph
from tests.field import IMAGES
from tests.field import VECTORS
from tests.field import between
from tests.field import whole_way

# Warnings that say so are tested below.
pytestmark = pytest.mark.filterwarnings("ignore:.*in float")

OPERATIONS = {
    "abs": ops.abs,
    "bicubic": lambda x: layers.UpSampling2D(interpolation="bicubic")(x),
    "bilinear": lambda x: layers.UpSampling2D(interpolation="bilinear")(x),
    "clip": lambda x: ops.clip(x, 0.1, 1),
    "cumsum": lambda x: ops.cumsum(x, 1),
    "group_norm": lambda x: layers.GroupNormalization(2)(x),
    "instance_norm": lambda x: layers.GroupNormalization(-1)(x),
    "lambda": lambda x: layers.Lambda(lambda y: ops.square(y) + 1.0)(x),
    "log_softmax": ops.log_softmax,
    "logsumexp": lambda x: ops.logsumexp(x, -1),
    "max": lambda x: ops.max(x, -1, keepdims=True),
    "mish": layers.Activation("mish"),
    "negative": lambda x: -x,
    "prelu": lambda x: layers.PReLU(shared_axes=[1, 2])(x - 0.3),
    "reflect": lambda x: ops.pad(
        x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect"
    ),
    "relu_1": lambda x: layers.ReLU(1.0)(x),
    "repeat": lambda x: ops.repeat(x, 2, 1),
    "resize": lambda x: ops.image.resize(x, (12, 12)),
    "roll": lambda x: ops.roll(x, 2, 1),
    "selu": layers.Activation("selu"),
    "softmax_axis": lambda x: layers.Softmax(axis=1)(x),
    "sort": lambda x: ops.sort(x, -1),
    "split": lambda x: ops.concatenate(ops.split(x, 2, -1)[::-1], -1),
    "sqrt": lambda x: ops.sqrt(x + 1.0),
    "stack": lambda x: ops.stack([x, x * 0.5], 1),
    "sum": lambda x: ops.sum(x, 1),
    "threshold": lambda x: ops.where(x > 0.2, x, 0.0),
    "tile": lambda x: ops.tile(x, (1, 2, 1, 1)),
    "variance": lambda x: ops.var(x, -1),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_of_usual_networks_go_out(name, tmp_path):
    whole_way(between(OPERATIONS[name]), IMAGES, tmp_path)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    "pooling", [layers.MaxPooling3D, layers.AveragePooling3D]
)
def test_volumes_are_pooled(pooling, padding, tmp_path):
    def volume(x):
        x = layers.Conv3D(2, 2)(layers.Reshape((4, 8, 4, 2))(x))
        return pooling(2, strides=(2, 1, 2), padding=padding)(x)

    whole_way(between(lambda x: volume(x[..., :4])), IMAGES, tmp_path)


@pytest.mark.parametrize("name", ["bilinear", "group_norm", "clip"])
def test_what_follows_an_island_is_integers_again(name, tmp_path):
    model = between(
        lambda x: layers.Conv2D(3, 3)(
            OPERATIONS[name](layers.Conv2D(4, 3, activation="relu")(x))
        )
    )
    report, _ = whole_way(model, IMAGES, tmp_path, "w4a8", limit=0.2)
    assert report.operators["CONV_2D"] == 3
    assert "CONV_2D" not in report.float_operators


def test_unit_norm_is_near_where_it_is_continuous(tmp_path):
    # In tiny vectors one step turns the direction, in any integer network.
    model = between(lambda x: layers.UnitNormalization()(x + 1.0))
    whole_way(model, IMAGES, tmp_path)


def test_moves_of_codes_are_exact(tmp_path):
    """Between tensors of one grid a fragment cancels out."""
    model = between(
        lambda x: layers.Conv2D(3, 3)(
            ops.concatenate(ops.split(ops.roll(x, 2, 1), 2, -1)[::-1], -1)
        )
    )
    report, parity = whole_way(model, IMAGES, tmp_path)
    assert parity.reference_exact and not report.islands
    assert not report.error_sources


class Gated(layers.Layer):
    """Somebody's layer with weights of its own, in a `call` with branches."""

    def build(self, shape):
        self.gate = self.add_weight(shape=(shape[-1],), name="gate")

    def call(self, x):
        y = ops.softmax(x * self.gate, axis=1)
        return ops.einsum("bhwc,bhwc->bhc", x, y)


class Steps(layers.Layer):
    """A loop in a `call`."""

    def call(self, x):
        return ops.fori_loop(0, 3, lambda _, y: y * 0.5 + 0.1, x)


@pytest.mark.parametrize("layer", [Gated, Steps])
def test_layers_of_ones_own(layer, tmp_path):
    report, _ = whole_way(between(lambda x: layer()(x)), IMAGES, tmp_path)
    assert report.islands


@pytest.mark.parametrize("policy", ["w8", "w4"])
def test_weight_only_models_take_the_same_road(policy, tmp_path):
    model = between(
        lambda x: layers.Dense(2)(
            layers.UpSampling2D(interpolation="bilinear")(x)
        )
    )
    whole_way(model, IMAGES, tmp_path, policy, limit=0.3)


def test_several_inputs_and_outputs(tmp_path):
    a, b = keras.Input((16,)), keras.Input((16,))
    shared = layers.Dense(8)
    x, y = shared(a), shared(b)
    distance = ops.sqrt(ops.sum(ops.square(x - y), -1, keepdims=True) + 1e-3)
    cosine = ops.sum(ops.normalize(x) * ops.normalize(y), -1)
    model = keras.Model([a, b], {"distance": distance, "cosine": cosine})
    pair = [VECTORS, VECTORS[::-1].copy()]
    q = keras_saq.quantize_model(model, "w8a8", calibration=pair)
    path = tmp_path / "siamese.tflite"
    keras_saq.export_litert(q, path)
    parity = keras_saq.verify_litert(path, q, [p[:8] for p in pair])
    assert parity.within_bounds


# --- What a file will be is said before a training


def test_islands_are_foretold():
    model = between(OPERATIONS["bilinear"])
    with pytest.warns(UserWarning, match="float islands") as caught:
        q = keras_saq.quantize_model(model, "w8a8", calibration=IMAGES)
    text = "\n".join(str(w.message) for w in caught)
    assert "UpSampling2D" in text and "up_sampling2d" in text
    assert [row[1] for row in forecast(q).islands] == ["UpSampling2D"]


def test_an_integer_network_has_nothing_to_tell():
    model = between(lambda x: layers.Dense(3)(layers.Flatten()(x)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        q = keras_saq.quantize_model(model, "w8a8", calibration=IMAGES)
    assert forecast(q) == type(forecast(q))()


class Noisy(layers.Layer):
    def call(self, x):
        return x + keras.random.normal(ops.shape(x))


class Hidden(layers.Layer):
    """Random numbers of the backend, two levels down."""

    def build(self, shape):
        self.inner = Noisy()

    def call(self, x):
        return ops.relu(self.inner(x))


class Spectrum(layers.Layer):
    def call(self, x):
        return ops.fft2((x, ops.zeros_like(x)))[0]


@pytest.mark.parametrize(
    "layer, word",
    [(Noisy, "random"), (Hidden, "random"), (Spectrum, "FFT")],
)
def test_what_no_file_can_hold_is_foretold_and_refused(layer, word, tmp_path):
    model = between(lambda x: layer(name="it")(x))
    with pytest.warns(UserWarning, match="no LiteRT file") as caught:
        q = keras_saq.quantize_model(model, "w8a8", calibration=IMAGES)
    text = "\n".join(str(w.message) for w in caught)
    assert word in text and "it" in text
    with pytest.raises(ValueError, match=word):
        keras_saq.export_litert(q, tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())


def test_strict_refuses_what_no_file_can_hold():
    model = between(lambda x: layers.Dense(2)(Noisy()(x)))
    with pytest.raises(ValueError, match="Noisy"):
        keras_saq.quantize_model(model, "w8a8", IMAGES, strict=True)


def test_augmentation_is_nothing_in_a_file(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = layers.RandomFlip()(inputs)
    x = layers.RandomRotation(0.1)(x)
    x = layers.GaussianNoise(0.1)(layers.Conv2D(4, 3)(x))
    x = layers.SpatialDropout2D(0.5)(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    report, parity = whole_way(model, IMAGES, tmp_path)
    assert parity.reference_exact and not report.islands


# --- Moves are integers


MOVES = {
    "move_axis": lambda x: ops.moveaxis(x, -1, 1),
    "pad_symmetric": lambda x: ops.pad(
        x, ((0, 0), (2, 0), (0, 1), (0, 0)), mode="symmetric"
    ),
    "reflect": OPERATIONS["reflect"],
    "repeat": OPERATIONS["repeat"],
    "reverse": lambda x: ops.flip(x, (1, -1)),
    "roll": lambda x: ops.roll(x, (2, -1), (1, 2)),
    "split_at": lambda x: ops.concatenate(ops.split(x, [1, 6], 1)[::2], 1),
    "split": OPERATIONS["split"],
    "stack": lambda x: ops.max(ops.stack([x, x * 0.5], 2), 2),
    "swap_axes": lambda x: ops.swapaxes(x, 1, -1),
    "tile": lambda x: ops.tile(x, (2, 1, 2)),
    "unstack": lambda x: ops.stack(ops.unstack(x, axis=-1)[::-1], -1),
}


@pytest.mark.parametrize("policy", ["w8a8", "w4a8"])
@pytest.mark.parametrize("name", MOVES)
def test_moves_have_integer_kernels(name, policy, tmp_path):
    model = between(lambda x: layers.Conv2D(3, 2)(MOVES[name](x)))
    report, parity = whole_way(model, IMAGES, tmp_path, policy, limit=0.3)
    assert parity.reference_exact
    islands = {path for path, _ in report.islands}
    assert not any("max" not in path for path in islands)


def test_what_moves_the_batch_is_no_integer_kernel():
    """LiteRT's own operators do it, in float."""
    x = keras.Input((8, 8, 4))
    for function in (
        lambda x: ops.flip(x, (0, 1)),
        lambda x: ops.roll(x, 1, 0),
        lambda x: ops.repeat(x, 40, 1),
        lambda x: ops.repeat(x, [1, 2] * 4, 1),
        lambda x: ops.pad(x, ((0, 0), (9, 9), (0, 0), (0, 0)), "symmetric"),
    ):
        model = keras.Model(x, function(x))
        (site,) = Graph(model).sites
        assert why_float(site) is not None


def test_indices_come_out_as_they_are(tmp_path):
    """Of a segmentation network that ends in an argmax."""
    for number, function in enumerate(
        (
            lambda x: ops.argmax(x, -1),
            lambda x: ops.argmin(x, 1, keepdims=True),
            lambda x: ops.argmax(layers.Softmax()(x), -1),
        )
    ):
        model = between(function)
        q = keras_saq.quantize_model(model, "w8a8", calibration=IMAGES)
        path = tmp_path / f"{number}.tflite"
        keras_saq.export_litert(q, path)
        parity = keras_saq.verify_litert(path, q, IMAGES, float_model=model)
        assert parity.reference_exact and parity.within_bounds
        made, expected = parity.outputs[0], model.predict(IMAGES, verbose=0)
        assert made.dtype == "int32" and made.max() > 1
        assert (made == expected).mean() > 0.9
        # One in ten that differ are 10 dB.
        share = (made != expected).mean()
        if share:
            assert parity.per_output[0].float_db == pytest.approx(
                -10 * math.log10(share)
            )
