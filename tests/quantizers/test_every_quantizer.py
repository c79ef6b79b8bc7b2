"""What every quantizer does as a layer: dtypes, saving, training."""

import keras
import ml_dtypes
import numpy as np
import pytest

from keras_saq import quantizers
from keras_saq.quantizers import calibration_scope
from tests.quantizers import helpers

NAMES = quantizers.known_names()
UNSIGNED = ("pact",)


def make(name, num_bits=4, **kwargs):
    kwargs.setdefault("signed", name not in UNSIGNED)
    return quantizers.get(name, num_bits=num_bits, **kwargs)


def data(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(8, 6)).astype("float32")


SIGNS = np.resize([1.0, -1.0, 0.5, 0.0], (8, 6))
EXTREMES = {
    "constant": np.full((8, 6), 0.7),
    "zero": np.zeros((8, 6)),
    "huge": 1e38 * SIGNS,
    "tiny": 1e-38 * SIGNS,
    "one element": np.ones(1),
    "one outlier": np.resize([1e30] + 9 * [1e-30], (8, 6)),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("extreme", EXTREMES)
def test_extremes_stay_finite(name, extreme):
    x = EXTREMES[extreme].astype("float32")
    quantizer = make(name)
    quantizer.initialize(x)
    scale = helpers.numpy(quantizer.scale)
    assert np.isfinite(scale) and scale > 0
    for training in (False, True):
        y = helpers.numpy(quantizer(x, training=training))
        assert np.isfinite(y).all()
        dx, others = helpers.quantizer_gradients(
            quantizer, x, np.ones_like(x), training
        )
        for gradient in (dx, *others.values()):
            assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "dtype", ["float16", ml_dtypes.bfloat16, "float32", "float64"]
)
def test_every_float_dtype_gives_float32(name, dtype):
    x = data().astype(dtype)
    quantizer = make(name)
    with calibration_scope():
        y = quantizer(keras.ops.convert_to_tensor(x))
    assert quantizer.calibrated
    assert keras.backend.standardize_dtype(y.dtype) == "float32"
    assert np.isfinite(helpers.numpy(y)).all()
    expected = make(name)
    expected.initialize(x.astype("float32"))
    np.testing.assert_allclose(
        helpers.numpy(y),
        helpers.numpy(expected(x.astype("float32"))),
        rtol=1e-6,
    )
    largest = np.full(3, ml_dtypes.finfo(dtype).max, dtype)
    quantizer = make(name)
    quantizer.initialize(largest)
    assert np.isfinite(helpers.numpy(quantizer.scale))


GRANULARITIES = [
    {"channel_axes": (-2,)},
    {"channel_axes": (-1,), "group_size": 4},
]


def fine(name, granularity, **kwargs):
    if name == "moving_average":
        kwargs["symmetric"] = True
    return make(name, **granularity, **kwargs)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
def test_every_scale_is_that_of_its_elements(name, granularity):
    x = data()
    quantizer = fine(name, granularity)
    quantizer.initialize(x)
    y = helpers.numpy(quantizer(x))
    values = quantizer.codes(x)
    if name == "lcq":
        part = quantizer.codebook()[np.abs(values)]
        values = np.sign(values) * part * quantizer.qmax
    values = values * helpers.numpy(quantizer.scale_for(x.shape))
    values = values + helpers.numpy(quantizer.offset_for(x.shape))
    np.testing.assert_allclose(y, values, rtol=1e-5, atol=1e-5)
    rows = quantizer.granularity.rows(x)
    rows_of_y = quantizer.granularity.rows(y)
    assert len(rows) == np.prod(quantizer.scale.shape)
    for row, expected in zip(rows[:2], rows_of_y):
        single = fine(name, {})
        single.initialize(row)
        np.testing.assert_allclose(
            helpers.numpy(single(row)), expected, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    "name, granularity",
    [*((name, {}) for name in NAMES), ("lsq", GRANULARITIES[1])],
    ids=str,
)
def test_a_file_gives_back_every_variable_and_the_next_step(
    name, granularity, tmp_path
):
    class Scaled(keras.layers.Layer):
        """Multiplies its quantized weight with its input."""

        def __init__(self, quantizer=None, **kwargs):
            super().__init__(**kwargs)
            self.quantizer = quantizer or fine(name, granularity)

        def build(self, shape):
            self.kernel = self.add_weight(shape=(8, 6), name="kernel")
            self.quantizer.build((8, 6))

        def call(self, x):
            return keras.ops.matmul(x, self.quantizer(self.kernel.value))

    def model():
        model = keras.Sequential([keras.layers.Input((8,)), Scaled()])
        model.compile(keras.optimizers.SGD(0.01), "mse")
        return model

    first = model()
    layer = first.layers[0]
    layer.kernel.assign(data())
    layer.quantizer.initialize(layer.kernel)
    x, y = data().T, data(1)[:6]
    x = np.resize(x, (6, 8))
    first.fit(x, y, shuffle=False, verbose=0)
    first.save_weights(tmp_path / "m.weights.h5")
    second = model()
    second.load_weights(tmp_path / "m.weights.h5")
    assert second.layers[0].quantizer.calibrated
    for a, b in zip(first.variables, second.variables):
        if a.name == "seed_generator_state":
            # Which Keras does not save.
            b.assign(keras.ops.convert_to_numpy(a))
    for step in range(2):
        if step:
            for trained in (first, second):
                trained.fit(x, y, shuffle=False, verbose=0)
        for a, b in zip(first.layers[0].variables, second.layers[0].variables):
            np.testing.assert_array_equal(
                keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b)
            )


@pytest.mark.parametrize("name", NAMES)
def test_an_open_sign_is_found_and_loaded(name, tmp_path):
    if name in ("liq", "dorefa"):
        pytest.skip("Its sign is a matter of its scheme.")
    for low, signed in ((0.0, False), (-1.0, True)):
        quantizer = make(name, signed=None)
        model = keras.Sequential([keras.layers.Input((9,)), quantizer])
        with calibration_scope():
            model(np.linspace(low, 1, 9, dtype="float32")[None])
        assert quantizer.signed is signed
        model.save_weights(tmp_path / "q.weights.h5")
        copy = make(name, signed=None)
        model = keras.Sequential([keras.layers.Input((9,)), copy])
        model.load_weights(tmp_path / "q.weights.h5")
        assert copy.signed is signed
        assert (copy.qmin, copy.qmax) == (quantizer.qmin, quantizer.qmax)


@pytest.mark.parametrize("name", NAMES)
def test_an_uncalibrated_quantizer_is_not_calibrated(name):
    quantizer = make(name)
    assert not quantizer.calibrated
    quantizer.build((3,))
    assert quantizer.calibrated == (name == "dorefa")


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is_for_and_what_stands_in_the_way(name):
    quantizer = make(name)
    assert quantizer.for_weights or quantizer.for_activations
    obstacle = quantizer.export_obstacle
    assert (obstacle is not None) == (name in ("lcq", "lsq_plus"))
    assert quantizer.code_bits - quantizer.num_bits == (
        name in ("liq", "dorefa")
    )
    assert "arXiv" in type(quantizer).__doc__.replace("\n    ", " ")


def test_no_data_is_refused():
    with pytest.raises(ValueError, match="at least one value.*shape.*0, 3"):
        make("lsq").initialize(np.zeros((0, 3)))
