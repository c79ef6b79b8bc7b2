"""The copy is the model: state of any kind, or an error with a layer's name."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_saq
from keras_saq.models.copy_check import random_inputs
from keras_saq.quantizers import pass_through_scope

# That layers of these kinds stay in float is not the subject here.
pytestmark = pytest.mark.filterwarnings("ignore:.*stay in float")
RANDOM = np.random.default_rng(0)
V = RANDOM.normal(30, 5, size=(64, 6)).astype("float32")
is_tensorflow = keras.backend.backend() == "tensorflow"


def switched_off(q, x):
    with pass_through_scope():
        return ops.convert_to_numpy(q(x))


def assert_is_the_model(model, x, **kwargs):
    q = keras_saq.quantize_model(
        model, "w8a8", calibration=x, correct=False, **kwargs
    )
    expected = ops.convert_to_numpy(model(x))
    assert np.array_equal(switched_off(q, x), expected)
    return q


def adapted_normalization():
    layer = layers.Normalization()
    layer.adapt(V)
    return keras.Sequential([keras.Input((6,)), layer, layers.Dense(4)]), V


def adapted_discretization():
    layer = layers.Discretization(num_bins=4)
    layer.adapt(V)
    inputs = keras.Input((6,))
    x = layers.Embedding(8, 3)(layer(inputs))
    return keras.Model(inputs, layers.Dense(4)(layers.Flatten()(x))), V


def nested_in_a_composite():
    @keras.saving.register_keras_serializable("test_copy_check")
    class Head(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.norm = layers.Normalization()
            self.dense = layers.Dense(4)

        def build(self, input_shape):
            self.norm.build(input_shape)
            self.dense.build(input_shape)

        def call(self, x):
            return self.dense(self.norm(x))

    head = Head()
    inputs = keras.Input((6,))
    model = keras.Model(inputs, head(inputs))
    head.norm.adapt(V)
    return model, V


def integer_lookup():
    layer = layers.IntegerLookup(output_mode="one_hot")
    x = RANDOM.integers(0, 5, (64, 1)).astype("int64")
    layer.adapt(x)
    inputs = keras.Input((1,), dtype="int64")
    return keras.Model(inputs, layers.Dense(2)(layer(inputs))), x


def string_lookup():
    layer = layers.StringLookup(output_mode="one_hot")
    x = np.array([["a"], ["b"], ["zz"], ["c"]])
    layer.adapt(x)
    inputs = keras.Input((1,), dtype="string")
    return keras.Model(inputs, layers.Dense(2)(layer(inputs))), x


def text_vectorization():
    layer = layers.TextVectorization(output_mode="tf_idf")
    x = np.array(["a cat", "a dog", "no cat no dog", "what"])
    layer.adapt(x)
    inputs = keras.Input((), dtype="string")
    return keras.Model(inputs, layers.Dense(2)(layer(inputs))), x


def hashing():
    x = np.array([["a"], ["b"], ["zz"], ["c"]])
    inputs = keras.Input((1,), dtype="string")
    x_ = layers.Hashing(7, output_mode="one_hot")(inputs)
    return keras.Model(inputs, layers.Dense(2)(x_)), x


NUMBERS = [adapted_normalization, adapted_discretization, nested_in_a_composite]
WORDS = [integer_lookup, string_lookup, text_vectorization, hashing]


@pytest.mark.parametrize("build", NUMBERS)
def test_what_adapt_found_is_in_the_copy_and_in_its_file(build, tmp_path):
    model, x = build()
    q = assert_is_the_model(model, x)
    q.save(tmp_path / "q.keras")
    again = keras.saving.load_model(tmp_path / "q.keras")
    assert np.array_equal(
        ops.convert_to_numpy(q(x)), ops.convert_to_numpy(again(x))
    )
    stripped = keras_saq.strip(q)
    assert np.allclose(switched_off(stripped, x), q(x), rtol=0.2, atol=0.2)


@pytest.mark.skipif(not is_tensorflow, reason="strings are TensorFlow's")
@pytest.mark.parametrize("build", WORDS)
def test_vocabularies_are_in_the_copy(build):
    model, x = build()
    q = assert_is_the_model(model, x)
    assert len(np.unique(ops.convert_to_numpy(q(x)))) > 2


@keras.saving.register_keras_serializable("test_copy_check")
class Forgetful(layers.Layer):
    """Multiplies by what its configuration does not say."""

    factor = 1.0

    def call(self, x):
        return x * self.factor


def forgetful_model(at):
    inputs = keras.Input((6,))
    x = layers.Dense(5, name="first")(inputs)
    for i in range(2):
        x = Forgetful(name=f"factor_{i}")(x)
    model = keras.Model(inputs, layers.Dense(3, name="last")(x))
    model.get_layer(f"factor_{at}").factor = 2.0
    return model


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("data", [V, None])
def test_the_first_layer_that_differs_is_named(at, data):
    with pytest.raises(ValueError, match=f"differs is 'factor_{at}'"):
        keras_saq.quantize_model(forgetful_model(at), "w8", calibration=data)


def test_in_place_nothing_is_lost():
    model = forgetful_model(1)
    expected = ops.convert_to_numpy(model(V))
    q = keras_saq.quantize_model(
        model, "w8", calibration=V, inplace=True, correct=False
    )
    assert np.array_equal(switched_off(q, V), expected)


def test_the_layer_is_named_in_a_nested_model():
    inner = forgetful_model(1)
    inner.name = "inner"
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(2)(inner(inputs)))
    with pytest.raises(ValueError, match="differs is 'inner/factor_1'"):
        keras_saq.quantize_model(model, "w8", calibration=V)


@keras.saving.register_keras_serializable("test_copy_check")
class Noisy(layers.Layer):
    def call(self, x):
        return x + keras.random.normal(ops.shape(x))


@keras.saving.register_keras_serializable("test_copy_check")
class Seeded(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seeds = keras.random.SeedGenerator(3)

    def call(self, x):
        return x + keras.random.normal(ops.shape(x), seed=self.seeds)


@keras.saving.register_keras_serializable("test_copy_check")
class Unrepeatable(layers.Layer):
    def call(self, x):
        return x + float(np.random.default_rng().normal())


# On JAX Keras asks for a seed.
SEEDLESS = [Noisy] if is_tensorflow else []


@pytest.mark.parametrize("layer_class", [*SEEDLESS, Seeded, Unrepeatable])
def test_random_layers_pass_and_no_seed_is_used_up(layer_class):
    inputs = keras.Input((6,))
    x = layer_class()(layers.Dense(4)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    before = [ops.convert_to_numpy(v).copy() for v in model.variables]
    keras_saq.quantize_model(model, "w8")
    for value, variable in zip(before, model.variables, strict=True):
        assert np.array_equal(value, ops.convert_to_numpy(variable))


def fitted(method):
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, "relu"), layers.Dense(3)]
    )
    # A larger rate kills the ReLU: these inputs are large.
    model.compile(keras.optimizers.SGD(1e-6), "mse")
    if method == "fit":
        model.fit(V, np.zeros((64, 3)), verbose=0)
    elif method == "evaluate":
        model.evaluate(V, np.zeros((64, 3)), verbose=0)
    else:
        model.predict(V, verbose=0)
    return model


@pytest.mark.filterwarnings("ignore:Much of these kernels")
@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_what_keras_compiled_before_is_dropped(method):
    model = fitted(method)
    before = model.predict(V, verbose=0)
    loss = model.evaluate(V, before, verbose=0)
    q = keras_saq.quantize_model(
        model, "w2a2", calibration=V, inplace=True, correct=False
    )
    assert not q.compiled
    after = q.predict(V, verbose=0)
    assert not np.array_equal(after, before)
    assert np.allclose(after, ops.convert_to_numpy(q(V)), atol=1e-3)
    q.compile("sgd", "mse")
    assert q.evaluate(V, before, verbose=0) > loss


@pytest.mark.filterwarnings("ignore:Much of these kernels")
def test_a_nested_model_that_predicted_before():
    inner = fitted("predict")
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(2)(inner(inputs)))
    before = inner.predict(V, verbose=0)
    keras_saq.quantize_model(model, "w2a2", calibration=V, inplace=True)
    assert not np.array_equal(inner.predict(V, verbose=0), before)


def test_keras_quantized_models_are_refused_by_name():
    model = fitted("predict")
    model.layers[0].quantize("int8")
    with pytest.raises(ValueError, match="'dense.*by Keras already"):
        keras_saq.quantize_model(model, "w8a8", calibration=V)


def test_adapters_are_merged_in_the_copy():
    model = fitted("predict")
    layer = model.layers[0]
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(RANDOM.normal(size=(2, 8)))
    q = assert_is_the_model(model, V)
    assert layer.lora_enabled and layer.lora_rank == 2
    assert not q.layers[0].lora_enabled
    assert len(q.layers[0].trainable_variables) == 5  # of which 3 scales
    with pytest.raises(ValueError, match="LoRA"):
        keras_saq.quantize_model(model, "w8a8", inplace=True)


def test_adapters_in_attention_are_merged():
    inputs = keras.Input((4, 6))
    attention = layers.MultiHeadAttention(2, 3)
    model = keras.Model(inputs, layers.Dense(2)(attention(inputs, inputs)))
    attention._query_dense.enable_lora(2)
    attention._query_dense.lora_kernel_b.assign(
        RANDOM.normal(size=attention._query_dense.lora_kernel_b.shape)
    )
    assert_is_the_model(model, RANDOM.normal(size=(8, 4, 6)).astype("float32"))


# On JAX there is none unless it is asked for.
FLOAT64 = ["float64"] if is_tensorflow else []


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", *FLOAT64])
def test_other_dtypes_are_refused_by_name(dtype):
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(3, dtype=dtype, name="other")]
    )
    with pytest.raises(ValueError, match=f"'other' are {dtype}"):
        keras_saq.quantize_model(model, "w8a8", calibration=V)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_is_the_same(dtype):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, dtype=dtype)(inputs)
    x = layers.ReLU(dtype=dtype)(layers.BatchNormalization(dtype=dtype)(x))
    x = layers.SeparableConv2D(4, 3, dtype=dtype)(x)
    model = keras.Model(inputs, layers.Dense(2, dtype=dtype)(x))
    x = RANDOM.normal(size=(4, 8, 8, 3)).astype("float32")
    q = keras_saq.quantize_model(model, "w8a8", calibration=x, correct=False)
    assert np.array_equal(
        switched_off(q, x).astype("float32"),
        ops.convert_to_numpy(model(x)).astype("float32"),
    )


def test_state_of_a_stateful_layer_does_not_move():
    inputs = keras.Input(batch_shape=(2, 3, 6))
    x = layers.LSTM(4, stateful=True)(inputs)
    model = keras.Model(inputs, layers.Dense(2)(x))
    before = [ops.convert_to_numpy(v).copy() for v in model.variables]
    keras_saq.quantize_model(model, "w8")
    for value, variable in zip(before, model.variables, strict=True):
        assert np.array_equal(value, ops.convert_to_numpy(variable))


@pytest.mark.skipif(not is_tensorflow, reason="tf.function is TensorFlow's")
def test_a_compiled_call_is_not_traced_while_quantizers_are_off():
    import tensorflow as tf

    @keras.saving.register_keras_serializable("test_copy_check")
    class Compiled(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = layers.Dense(4)

        def build(self, input_shape):
            self.dense.build(input_shape)

        @tf.function
        def call(self, x):
            return self.dense(x)

        def compute_output_shape(self, input_shape):
            return (*input_shape[:-1], 4)

    inputs = keras.Input((6,))
    model = keras.Model(inputs, Compiled()(inputs))
    q = keras_saq.quantize_model(model, "w2")
    assert not np.array_equal(q(V), model(V))
    with pytest.raises(ValueError, match="tf.function"):
        keras_saq.quantize_model(model, "w2", inplace=True)


def test_random_inputs_have_the_model_s_structure():
    a = keras.Input((None, None, 3), name="a")
    b = keras.Input((5,), dtype="int32", name="b")
    x = layers.GlobalAveragePooling2D()(a)
    y = layers.Flatten()(layers.Embedding(4, 2)(b))
    model = keras.Model({"a": a, "b": b}, layers.Concatenate()([x, y]))
    drawn = random_inputs(model)
    assert drawn["a"].shape == (2, 32, 32, 3)
    assert drawn["b"].dtype == np.int32 and set(np.unique(drawn["b"])) <= {0, 1}
