"""Cases, adaptive scaling, participants and radius against the oracle."""

import copy

import keras
import numpy as np
import pytest

import keras_saq
from keras_saq.sharpness import ascent
from keras_saq.sharpness.participants import classify
from keras_saq.sharpness.participants import participants
from tests.sharpness.oracle import build
from tests.sharpness.oracle import compare

layers = keras.layers


@pytest.mark.parametrize("case", [1, 2, 3])
@pytest.mark.parametrize("adaptive", [False, "layer", "asam", "qasam"])
def test_a_case_equals_the_oracle(case, adaptive):
    compare(
        "full",
        steps=3,
        case=case,
        adaptive=adaptive,
        rho=0.3 if not adaptive else 0.5,
        oracle={"case": case, "adaptive": adaptive},
    )


@pytest.mark.parametrize("adaptive", [False, "asam"])
def test_a_float_model_has_sams_update(adaptive):
    compare(
        "full",
        adaptive=adaptive,
        oracle={"quantized": False, "adaptive": adaptive},
    )


@pytest.mark.parametrize(
    "perturb, moved",
    [
        ("weights", ("w1", "w2")),
        (("biases",), ("b1", "b2")),
        (("activation_scales", "biases", "weights"), None),
    ],
)
def test_what_is_perturbed_is_also_what_is_in_the_norm(perturb, moved):
    compare("full", steps=2, perturb=perturb, oracle={"moved": moved})


def test_rho_follows_a_schedule():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.4, 1, 0.5)
    compare("full", rho=schedule, oracle={"rho": lambda t: 0.4 * 0.5**t})


def test_a_schedule_below_zero_is_zero():
    schedule = keras.optimizers.schedules.PolynomialDecay(0.1, 1, -5.0)
    compare("full", rho=schedule, oracle={"rho": lambda t: 0.1 * (t == 0)})


def _eps(case):
    """The perturbation of the first kernel, and which entries are clipped."""
    from keras_saq.sharpness.ascent import perturbation

    model, variables, x, target = build(0, case=case)
    layer = model.model.layers[1]
    kernel = keras.ops.convert_to_numpy(layer.kernel).copy()
    kernel[0] = 5.0
    layer.kernel.assign(kernel)
    seen = {}

    def spy(gradients, rho, factors=None):
        eps = perturbation(gradients, rho, factors)
        seen["eps"] = [keras.ops.convert_to_numpy(e) for e in eps]
        return eps

    model.compile("sgd", "mse", run_eagerly=True, jit_compile=False)
    ascent.perturbation = spy
    try:
        model.fit(x, target, batch_size=8, verbose=0)
    finally:
        ascent.perturbation = perturbation
    return seen["eps"][0]


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="gradients are traced on JAX"
)
def test_only_case_3_perturbs_weights_that_are_clipped():
    """Perturbation mismatch, which the paper names as case 1's flaw."""
    assert not _eps(1)[0].any()
    assert not _eps(2)[0].any()
    assert _eps(3)[0].any()


def test_qasam_scales_as_released():
    """T = |p| + eta in the norm, S = p^2 in the step; plain for offsets."""
    q = _small_network()
    chosen = participants(q)
    values = [
        np.full(p.variable.shape, 0.3, "float32") if p.variable.shape else 0.3
        for p in chosen
    ]
    factors = ascent.factors(chosen, values, values, "qasam")
    for participant, pair in zip(chosen, factors):
        if participant.is_offset or participant.kind == "activation_scales":
            assert pair is None
        else:
            np.testing.assert_allclose(pair[0], 0.31, rtol=1e-6)
            np.testing.assert_allclose(pair[1], 0.09, rtol=1e-6)
    kinds = [p.kind for p, f in zip(chosen, factors) if f is not None]
    assert sorted(set(kinds)) == ["normalization", "weights"]
    asam = ascent.factors(chosen, values, values, "asam")
    assert {p.kind for p, f in zip(chosen, asam) if f} == {"weights"}
    assert ascent.factors(chosen, values, values, False) is None


def test_the_released_metric_does_not_see_how_large_a_layer_is():
    """w -> c w in a layer of a normed network: the same relative step."""
    found = []
    for factor in (1.0, 8.0):
        model, variables, x, target = build(0, adaptive="layer", rho=0.3)
        chosen = participants(model)
        gradients = [np.ones(p.variable.shape, "float32") for p in chosen]
        weights = [
            np.random.default_rng(i).normal(size=p.variable.shape)
            for i, p in enumerate(chosen)
        ]
        weights[0] = factor * weights[0]
        # What a gradient becomes where the loss does not change.
        gradients[0] = gradients[0] / factor
        t = ascent.factors(chosen, weights, weights, "layer")
        eps = ascent.perturbation(gradients, 0.3, t)
        found.append(keras.ops.convert_to_numpy(eps[0]) / factor)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


def _small_network():
    inputs = keras.Input((6, 6, 1))
    x = layers.Conv2D(2, 3, name="conv")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.Dense(3, name="head")(layers.Flatten()(x))
    model = keras.Model(inputs, x)
    x = np.random.default_rng(0).normal(size=(8, 6, 6, 1)).astype("float32")
    return keras_saq.quantize_model(model, "w4a8", calibration=x)


def test_kinds_of_variables():
    q = _small_network()
    found = classify(q)
    norm = q.get_layer("norm")
    head = q.get_layer("head")
    assert found[id(norm.gamma)] == ("normalization", False)
    assert found[id(norm.beta)] == ("normalization", False)
    assert found[id(head.kernel)] == ("weights", True)
    assert found[id(head.bias)] == ("biases", False)
    (scale,) = head.kernel_quantizer.trainable_variables
    assert found[id(scale)] == ("weight_scales", False)
    kinds = [kind for kind, _ in found.values()]
    assert kinds.count("weight_scales") == 2
    assert kinds.count("activation_scales") >= 2
    assert set(found) == {id(v) for v in q.trainable_variables}
    # The released defaults: all but the scales of weights.
    chosen = {id(p.variable) for p in participants(q)}
    expected = {i for i, (kind, _) in found.items() if kind != "weight_scales"}
    assert chosen == expected
    q.get_layer("conv").trainable = False
    chosen = [p.variable for p in participants(q)]
    assert not any(v is q.get_layer("conv").kernel for v in chosen)


def _bn_after_one_step(batch_norm, strategy="full"):
    inputs = keras.Input((4,))
    norm = layers.BatchNormalization(momentum=0.8)
    model = keras.Model(inputs, layers.Dense(2)(norm(inputs)))
    saq = keras_saq.SAQModel(
        model, rho=0.1, batch_norm=batch_norm, strategy=strategy
    )
    saq.compile("sgd", "mse", jit_compile=False)
    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 1.0, size=(8, 4)).astype("float32")
    saq.fit(
        x,
        np.ones((8, 2)),
        batch_size=8,
        verbose=0,
        reestimate_batch_norm=False,
    )
    return keras.ops.convert_to_numpy(norm.moving_mean), x.mean(axis=0)


@pytest.mark.parametrize("strategy", ["full", "periodic", "looksam"])
def test_whose_batch_statistics_are_kept(strategy):
    """The inputs' statistics are the same in both passes: count updates."""
    moving, mean = _bn_after_one_step("first", strategy)
    np.testing.assert_allclose(moving, 0.2 * mean, rtol=1e-5)
    moving, mean = _bn_after_one_step("both", strategy)
    np.testing.assert_allclose(moving, (0.2 + 0.8 * 0.2) * mean, rtol=1e-5)
    moving, _ = _bn_after_one_step("neither", strategy)
    np.testing.assert_array_equal(moving, np.zeros(4))


@pytest.mark.parametrize(
    "name, value",
    [
        ("case", 4),
        ("case", True),
        ("adaptive", "adam"),
        ("adaptive", True),
        ("perturb", ("weights", "scales")),
        ("perturb", ()),
        ("batch_norm", "second"),
        ("strategy", "lazy"),
        ("sync_perturbation", "yes"),
        ("scale_learning_rate", -1.0),
        ("scale_learning_rate", (1.0, float("inf"))),
        ("scale_learning_rate", ((1.0, 1.0), 1.0)),
        ("distillation", "teacher"),
    ],
)
def test_bad_options(name, value):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(inputs))
    with pytest.raises(ValueError, match=name):
        keras_saq.SAQModel(model, **{name: value})


def test_every_option_survives_its_configuration():
    model, *_ = build(
        0,
        quantized=False,
        rho=keras.optimizers.schedules.CosineDecay(0.3, 100),
        case=2,
        adaptive="qasam",
        perturb=("weights", "biases"),
        batch_norm="both",
        strategy=keras_saq.sharpness.strategies.LookSAM(k=3, alpha=0.5),
        sync_perturbation=True,
        scale_learning_rate=0.1,
        decay_scales=True,
    )
    config = model.get_config()
    again = keras_saq.SAQModel.from_config(copy.deepcopy(config))
    assert again.get_config() == config
    assert again.rho.get_config() == model.rho.get_config()
    assert repr(again.strategy) == ("LookSAM(k=3, alpha=0.5, adapt=True)")
