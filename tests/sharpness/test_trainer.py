"""`SAQModel` with everything that `compile` and the optimizers offer."""

import keras
import numpy as np
import pytest

import keras_saq
from keras_saq.sharpness import strategies
from keras_saq.sharpness.participants import classify
from tests.sharpness.oracle import build

layers = keras.layers
BACKEND = keras.backend.backend()
JIT = BACKEND == "jax"


def numpy(variables):
    return [np.copy(keras.ops.convert_to_numpy(v)) for v in variables]


def assert_close(a, b, atol=1e-6):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, atol=atol)


def trained(optimizer, seed=0, steps=4, batch_size=4, compile=None, **kwargs):
    """Values of the weights after training, and before."""
    kwargs.setdefault("rho", 0.2)
    model, variables, x, target = build(seed, **kwargs)
    before = numpy(variables.values())
    model.compile(optimizer, "mse", **{"jit_compile": JIT, **(compile or {})})
    model.fit(
        x,
        target,
        batch_size=batch_size,
        epochs=steps * batch_size // 8,
        shuffle=False,
        verbose=0,
    )
    return numpy(variables.values()), before


@pytest.mark.parametrize(
    "strategy", ["full", "looksam", strategies.ESAM(beta=1.0)], ids=str
)
@pytest.mark.parametrize(
    "options",
    [
        {"jit_compile": True},
        {"run_eagerly": True, "jit_compile": False},
        {"steps_per_execution": 3},
        {"steps_per_execution": 2, "jit_compile": True},
    ],
    ids=["xla", "eager", "steps", "steps_xla"],
)
def test_every_way_to_execute_gives_the_same(options, strategy):
    if BACKEND == "torch" and "run_eagerly" not in options:
        pytest.skip("neither compiled nor grouped on torch")
    one, _ = trained(keras.optimizers.SGD(0.1), steps=6, strategy=strategy)
    other, before = trained(
        keras.optimizers.SGD(0.1), steps=6, compile=options, strategy=strategy
    )
    assert_close(one, other, atol=1e-5)
    assert np.abs(one[0] - before[0]).max() > 1e-3


def gradient(x, target, seed=0, **kwargs):
    """SAQ's gradient on a batch, read off a step with learning rate 1."""
    model, variables, _, _ = build(seed, rho=0.2, **kwargs)
    before = numpy(variables.values())
    model.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=JIT)
    model.fit(x, target, batch_size=len(x), shuffle=False, verbose=0)
    return [b - a for a, b in zip(numpy(variables.values()), before)]


def test_gradient_accumulation():
    """Each part of a batch is perturbed by itself; their mean is applied."""
    _, _, x, target = build(0)
    parts = [gradient(x[i : i + 4], target[i : i + 4]) for i in (0, 4)]
    after, before = trained(
        keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), steps=2
    )
    expected = [w - 0.05 * (a + b) for w, a, b in zip(before, *parts)]
    assert_close(after, expected)


def test_periodic_counts_updates_not_parts():
    """With k = 2, both parts of an update are perturbed, or neither."""
    strategy = strategies.Periodic(k=2)
    full, _ = trained(
        keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), steps=2
    )
    periodic, _ = trained(
        keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
        steps=2,
        strategy=strategy,
    )
    assert_close(full, periodic)


@pytest.mark.parametrize("name", ["clipnorm", "global_clipnorm", "clipvalue"])
def test_clipping(name):
    _, _, x, target = build(0)
    g = gradient(x, target)
    optimizer = keras.optimizers.SGD(0.1, **{name: 0.05})
    after, before = trained(optimizer, steps=1, batch_size=8)
    if name == "clipvalue":
        g = [np.clip(each, -0.05, 0.05) for each in g]
    elif name == "clipnorm":
        g = [e * min(1, 0.05 / np.linalg.norm(e)) for e in g]
    else:
        norm = np.sqrt(sum((e**2).sum() for e in g))
        g = [e * min(1, 0.05 / norm) for e in g]
    assert_close(after, [w - 0.1 * e for w, e in zip(before, g)])


def test_moving_average_of_weights():
    path = [
        trained(keras.optimizers.SGD(0.1), steps=n, batch_size=8)[0]
        for n in (1, 2, 3)
    ]
    average = path[0]
    for step in path[1:]:
        average = [0.6 * a + 0.4 * w for a, w in zip(average, step)]
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.6)
    after, _ = trained(optimizer, steps=3, batch_size=8)
    assert_close(after, average)


def quantized_classifier(**kwargs):
    """With activations quantized, so that there are scales of both kinds."""
    rng = np.random.default_rng(0)
    inputs = keras.Input((6,))
    x = layers.Dense(8, activation="relu")(inputs)
    model = keras.Model(inputs, layers.Dense(3)(x))
    for variable in model.variables:
        variable.assign(rng.normal(size=variable.shape))
    x = rng.normal(size=(16, 6)).astype("float32")
    q = keras_saq.quantize_model(model, "w4a8", calibration=x)
    return keras_saq.SAQModel(q, rho=0.1, **kwargs), x, np.arange(16) % 3


def scales_and_others(model):
    scales = {
        id(v)
        for layer in model.model.layers
        for quantizer in getattr(layer, "quantizers", ())
        for v in quantizer.trainable_variables
    }
    variables = model.trainable_variables
    return (
        [v for v in variables if id(v) in scales],
        [v for v in variables if id(v) not in scales],
    )


def fit_classifier(model, x, y, optimizer):
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=JIT,
    )
    model.fit(x, y, batch_size=16, shuffle=False, verbose=0)


def test_weight_decay_leaves_scales_alone():
    results = {}
    for decay in (None, 0.5):
        model, x, y = quantized_classifier()
        optimizer = keras.optimizers.Adam(0.01, weight_decay=decay)
        fit_classifier(model, x, y, optimizer)
        results[decay] = [numpy(each) for each in scales_and_others(model)]
    assert_close(results[None][0], results[0.5][0], atol=0)
    for a, b in zip(results[None][1], results[0.5][1]):
        assert np.abs(a - b).max() > 1e-4
    model, x, y = quantized_classifier(decay_scales=True)
    fit_classifier(model, x, y, keras.optimizers.Adam(0.01, weight_decay=0.5))
    scales, _ = scales_and_others(model)
    assert np.abs(numpy(scales)[0] - results[None][0][0]).max() > 1e-4


def test_what_was_excluded_before_stays_excluded():
    model, x, y = quantized_classifier()
    optimizer = keras.optimizers.Adam(0.01, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    keras_saq.exclude_scales_from_weight_decay(optimizer, model)
    scales, others = scales_and_others(model)
    for variable in (*scales, *others):
        expected = variable.name == "kernel"
        assert optimizer._use_weight_decay(variable) == expected


def test_weight_decay_exclusion_needs_an_unbuilt_optimizer():
    model, *_ = quantized_classifier()
    optimizer = keras.optimizers.AdamW(0.01)
    optimizer.build(model.trainable_variables)
    with pytest.raises(ValueError, match="before the optimizer is built"):
        keras_saq.exclude_scales_from_weight_decay(optimizer, model)


@pytest.mark.parametrize("factor", [0.0, 0.25])
@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.SGD(0.05, momentum=0.9),
        lambda: keras.optimizers.Adam(0.05),
    ],
    ids=["sgd", "adam"],
)
def test_scales_have_a_learning_rate_of_their_own(make, factor):
    moves = []
    for f in (1.0, factor):
        model, x, y = quantized_classifier(scale_learning_rate=f)
        groups = scales_and_others(model)
        before = [numpy(g) for g in groups]
        fit_classifier(model, x, y, make())
        after = [numpy(g) for g in groups]
        moves.append(
            [[n - o for n, o in zip(a, b)] for a, b in zip(after, before)]
        )
    assert_close([factor * m for m in moves[0][0]], moves[1][0])
    assert_close(moves[0][1], moves[1][1])
    assert max(np.abs(m).max() for m in moves[0][0]) > 1e-3


def test_scales_of_weights_and_activations_have_rates_of_their_own():
    moves = []
    for factors in (1.0, (0.5, 0.0)):
        model, x, y = quantized_classifier(scale_learning_rate=factors)
        found = classify(model)
        groups = {"weight_scales": [], "activation_scales": [], "": []}
        for v in model.trainable_variables:
            kind = found[id(v)][0]
            groups[kind if kind in groups else ""].append(v)
        before = {k: numpy(g) for k, g in groups.items()}
        fit_classifier(model, x, y, keras.optimizers.SGD(0.05, momentum=0.9))
        moves.append(
            {
                k: [n - o for n, o in zip(numpy(g), before[k])]
                for k, g in groups.items()
            }
        )
    for kind, factor in (("weight_scales", 0.5), ("activation_scales", 0.0)):
        assert_close([factor * m for m in moves[0][kind]], moves[1][kind])
    assert_close(moves[0][""], moves[1][""])


def test_mixed_float16_lowers_its_scale_and_goes_on():
    """A loss that overflows float16: skipped until the scale fits."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        inputs = keras.Input((6,))
        model = keras.Model(inputs, layers.Dense(3)(inputs))
        model = keras_saq.SAQModel(model, rho=0.05)
        model.compile(
            keras.optimizers.SGD(1e-4),
            loss=lambda y, p: 1e3 * keras.ops.sum((y - p) ** 2, axis=-1),
            jit_compile=JIT,
        )
        x, y = np.ones((8, 6)), np.ones((8, 3))
        before = numpy(model.trainable_variables)
        model.fit(x, y, batch_size=8, verbose=0)
        scale = model.optimizer.dynamic_scale
        assert float(keras.ops.convert_to_numpy(scale)) < 2.0**15
        assert_close(before, numpy(model.trainable_variables), atol=0)
        model.fit(x, y, batch_size=8, epochs=12, verbose=0)
    finally:
        keras.config.set_dtype_policy("float32")
    after = numpy(model.trainable_variables)
    assert all(np.isfinite(v).all() for v in after)
    assert np.abs(after[0] - before[0]).max() > 0


def test_several_inputs_outputs_and_losses():
    """One step equals that of the same network written with one output."""
    rng = np.random.default_rng(0)
    kernels = [rng.normal(size=(2, 3)), rng.normal(size=(4, 3))]
    a, b = keras.Input((2,), name="a"), keras.Input((4,), name="b")
    parts = [
        layers.Dense(3, use_bias=False, name="first"),
        layers.Dense(3, use_bias=False, name="second"),
    ]
    two = keras.Model(
        {"a": a, "b": b}, {"first": parts[0](a), "second": parts[1](b)}
    )
    for part, kernel in zip(parts, kernels):
        part.kernel.assign(kernel)
    model = keras_saq.SAQModel(two, rho=0.3)
    model.compile(
        keras.optimizers.SGD(0.1),
        {"first": "mse", "second": "mse"},
        loss_weights={"first": 1.0, "second": 0.5},
        metrics={"first": ["mae"], "second": ["mae"]},
        jit_compile=JIT,
    )
    x = {"a": rng.normal(size=(8, 2)), "b": rng.normal(size=(8, 4))}
    y = {"first": rng.normal(size=(8, 3)), "second": rng.normal(size=(8, 3))}
    history = model.fit(x, y, batch_size=8, verbose=0).history
    assert {"first_loss", "second_loss", "first_mae"} <= set(history)

    def gradients(kernels):
        return [
            w * 2 * x[i].T @ (x[i] @ k - y[o]) / 24
            for i, o, k, w in zip("ab", y, kernels, (1.0, 0.5))
        ]

    g = gradients(kernels)
    norm = np.sqrt(sum((e**2).sum() for e in g))
    g = gradients([k + 0.3 * e / norm for k, e in zip(kernels, g)])
    expected = [k - 0.1 * e for k, e in zip(kernels, g)]
    assert_close(numpy(p.kernel for p in parts), expected)


def test_distillation_is_part_of_the_loss():
    """The reported loss, by its formula; at weight 1 only the teacher's."""
    rng = np.random.default_rng(0)
    inputs = keras.Input((6,))
    teacher = keras.Model(inputs, layers.Dense(3)(inputs))
    losses = {}
    for weight in (None, 0.0, 0.3, 1.0):
        distillation = None
        if weight is not None:
            distillation = keras_saq.Distillation(
                teacher, weight=weight, temperature=2.0
            )
        model, x, y = quantized_classifier(distillation=distillation)
        student = model.predict(x, verbose=0)
        fit_classifier(model, x, y, keras.optimizers.SGD(0.1))
        losses[weight] = model.history.history["loss"][0]
        assert "teacher" not in str(model.get_config())
        assert len(model.trainable_variables) == len(
            quantized_classifier()[0].trainable_variables
        )

    def log_softmax(z):
        z = z / 2.0
        return z - np.log(np.exp(z).sum(-1, keepdims=True))

    p = log_softmax(teacher.predict(x, verbose=0))
    q = log_softmax(student)
    expected = 4.0 * (np.exp(p) * (p - q)).sum(-1).mean()
    np.testing.assert_allclose(losses[1.0], expected, rtol=1e-4)
    np.testing.assert_allclose(losses[0.0], losses[None], rtol=1e-6)
    mixed = 0.7 * losses[None] + 0.3 * expected
    np.testing.assert_allclose(losses[0.3], mixed, rtol=1e-4)
    assert rng is not None


def test_a_student_learns_from_its_teacher_alone():
    inputs = keras.Input((6,))
    teacher = keras.Model(inputs, layers.Dense(3)(inputs))
    distillation = keras_saq.Distillation(teacher, weight=1.0)
    model, x, y = quantized_classifier(distillation=distillation)
    model.compile(
        keras.optimizers.Adam(0.05),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=JIT,
    )
    losses = model.fit(x, y, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.2 * losses[0]


def test_a_users_own_step():
    """The recipe: override what the step calls, or wrap the step."""

    class Smoothed(keras_saq.SAQModel):
        def compute_loss(self, x, y, y_pred, sample_weight, training=True):
            loss = super().compute_loss(
                x=x, y=y, y_pred=y_pred, sample_weight=sample_weight
            )
            return loss + 0.01 * keras.ops.mean(y_pred**2)

        def train_step(self, *args):
            *state, data = args
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
            return super().train_step(*state, (2 * x, y, sample_weight))

    inputs = keras.Input((6,))
    layer = layers.Dense(3, kernel_initializer="ones")
    model = Smoothed(keras.Model(inputs, layer(inputs)), rho=0.1)
    model.compile("sgd", "mse", jit_compile=JIT)
    x = np.ones((4, 6), "float32")
    history = model.fit(x, np.zeros((4, 3)), verbose=0).history
    np.testing.assert_allclose(history["loss"], [144 + 1.44], rtol=1e-5)


def test_model_checkpoint(tmp_path):
    model, x, y = quantized_classifier()
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=JIT)
    path = tmp_path / "best.keras"
    model.fit(
        x,
        y,
        validation_data=(x, y),
        epochs=2,
        verbose=0,
        callbacks=[
            keras.callbacks.ModelCheckpoint(
                path, save_best_only=True, monitor="val_loss"
            )
        ],
    )
    loaded = keras.saving.load_model(path)
    assert isinstance(loaded, keras_saq.SAQModel)
    assert np.isfinite(loaded.predict(x, verbose=0)).all()
