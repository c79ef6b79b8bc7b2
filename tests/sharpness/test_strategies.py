"""The efficient strategies against the oracle."""

import keras
import numpy as np
import pytest

import keras_saq
from keras_saq.sharpness import strategies
from tests.sharpness.oracle import build
from tests.sharpness.oracle import compare


@pytest.mark.parametrize("case", [2, 3])
def test_periodic(case):
    compare(
        "periodic",
        arguments=(2,),
        case=case,
        strategy=strategies.Periodic(k=2),
        oracle={"case": case},
    )


@pytest.mark.parametrize("adapt", [False, True])
def test_looksam(adapt):
    compare(
        "looksam",
        steps=6,
        arguments=(2, 3.0, adapt),
        strategy=strategies.LookSAM(k=2, alpha=3.0, adapt=adapt),
    )


def test_full_with_the_plain_gradient_mixed_in():
    compare("full", arguments=(0.3,), strategy=strategies.Full(mix=0.3))


@pytest.mark.parametrize("start, first", [(0.5, 2), (0.6, 3), (3, 3), (0, 0)])
def test_late(start, first):
    compare(
        "late",
        arguments=(first, 0.25),
        strategy=strategies.Late(start=start, mix=0.25),
    )


@pytest.mark.parametrize("start, first", [(0.5, 2), (0, 0)])
def test_mesa(start, first):
    compare(
        "mesa",
        steps=4,
        arguments=(first, 0.8, 2.0, 0.9),
        strategy=strategies.MESA(0.8, temperature=2.0, decay=0.9, start=start),
    )


@pytest.mark.parametrize("name", ["late", "mesa"])
def test_a_share_needs_the_number_of_steps(name):
    model, _, x, target = build(0, strategy=name)
    model.compile("sgd", "mse", jit_compile=False)

    def batches():
        while True:
            yield x, target

    with pytest.raises(ValueError, match="no length.*steps_per_epoch"):
        model.fit(batches(), epochs=2, shuffle=False, verbose=0)
    model.fit(batches(), epochs=2, steps_per_epoch=2, shuffle=False, verbose=0)


def test_late_counts_from_the_first_epoch_also_when_it_goes_on():
    """`fit` in one piece and in two begins at the same update."""
    first = []
    for pieces in ([(0, 4)], [(0, 3), (3, 4)]):
        model, _, x, target = build(0, strategy=strategies.Late(0.5))
        model.compile("sgd", "mse", jit_compile=False)
        for start, end in pieces:
            model.fit(
                x,
                target,
                batch_size=4,
                initial_epoch=start,
                epochs=end,
                verbose=0,
            )
        (slot,) = (v for v in model.variables if v.name == "late_first_full")
        first.append(float(keras.ops.convert_to_numpy(slot)))
    assert first == [4.0, 4.0]


def test_mesa_has_no_loss_of_numbers_that_are_none():
    """Before it starts, an average that is not finite adds nothing."""
    model, _, x, target = build(0, strategy=strategies.MESA(start=1))
    plain, *_ = build(0, strategy="none")
    for each in (model, plain):
        each.compile("sgd", "mse", jit_compile=False)
        each.fit(x, target, batch_size=8, epochs=2, verbose=0)
    for a, b in zip(
        model.trainable_variables, plain.trainable_variables, strict=True
    ):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(a),
            keras.ops.convert_to_numpy(b),
            atol=1e-6,
        )


def test_half_batch():
    compare(
        "half_batch",
        arguments=(3,),
        strategy=strategies.HalfBatch(fraction=0.3),  # ceil(2.4) samples
    )


@pytest.mark.parametrize("case", [2, 3])
def test_momentum(case):
    compare("momentum", case=case, strategy="momentum", oracle={"case": case})


def test_esam():
    strategy = strategies.ESAM(beta=0.5, gamma=0.3, seed=4)
    masks = strategy.masks(4)
    assert 0.4 < masks.mean() < 0.6 and 0 < masks[:4].mean() < 1
    compare("esam", arguments=(0.5, 3, masks), strategy=strategy)


def test_esam_without_savings_is_full():
    """beta = gamma = 1 perturbs everything and keeps every sample."""
    compare("full", strategy=strategies.ESAM(beta=1.0, gamma=1.0))


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="momentum is traced on JAX"
)
def test_adams_momentum_points_uphill():
    model, variables, x, target = build(0, strategy="momentum")
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    model.fit(x, target, batch_size=8, verbose=0)
    moments = strategies.momentum.momentum_of(model.optimizer)
    assert len(moments) == 4
    for variable, buffer, sign in moments:
        assert sign == -1 and buffer.shape == variable.shape


def test_momentum_needs_an_optimizer_with_momentum():
    model, _, x, target = build(0, strategy="momentum")
    model.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=False)
    with pytest.raises(ValueError, match="momentum of the optimizer"):
        model.fit(x, target, verbose=0)


@pytest.mark.parametrize("name", sorted(strategies.STRATEGIES))
@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="torch is not compiled"
)
def test_a_strategy_is_traced_once(name):
    """Steps with and without a second pass are one compiled function."""
    calls = []

    def loss(y_true, y_pred):
        calls.append(None)
        return keras.ops.mean((y_true - y_pred) ** 2, axis=-1)

    model, _, x, target = build(0, strategy=name)
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9), loss, jit_compile=True
    )
    x, target = np.tile(x, (4, 1)), np.tile(target, (4, 1))
    model.fit(x, target, batch_size=8, epochs=1, verbose=0)
    traced = len(calls)
    model.fit(x, target, batch_size=8, epochs=3, verbose=0)
    assert len(calls) == traced


@pytest.mark.parametrize("name", sorted(strategies.STRATEGIES))
def test_a_last_batch_that_is_smaller(name):
    model, _, x, target = build(0, strategy=name)
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9), "mse", jit_compile=False
    )
    history = model.fit(x, target, batch_size=5, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_esam_with_several_outputs():
    inputs = keras.Input((4,))
    outputs = {
        "a": keras.layers.Dense(2)(inputs),
        "b": keras.layers.Dense(3)(inputs),
    }
    model = keras_saq.SAQModel(
        keras.Model(inputs, outputs), rho=0.1, strategy="esam"
    )
    model.compile("sgd", {"a": "mse", "b": "mae"}, jit_compile=False)
    rng = np.random.default_rng(0)
    y = {"a": rng.normal(size=(8, 2)), "b": rng.normal(size=(8, 3))}
    x = rng.normal(size=(8, 4))
    history = model.fit(x, y, epochs=2, verbose=0).history
    assert history["loss"][1] < history["loss"][0]


def test_esam_needs_a_loss_with_sample_weights():
    class Unweighted(keras_saq.SAQModel):
        def compute_loss(self, x, y, y_pred, sample_weight, training=True):
            return keras.ops.mean((y - y_pred) ** 2)

    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    model = Unweighted(model, strategy="esam")
    model.compile("sgd", "mse", jit_compile=False)
    x, y = np.ones((4, 4)), np.ones((4, 2))
    if keras.backend.backend() == "jax":  # its gradient is zero there
        model.fit(x, y, verbose=0)
        return
    with pytest.raises(ValueError, match="derivative of the loss"):
        model.fit(x, y, verbose=0)


@pytest.mark.parametrize(
    "make, cost",
    [
        (strategies.Full, 2.0),
        (lambda: strategies.Periodic(4), 1.25),
        (lambda: strategies.LookSAM(5), 1.2),
        (lambda: strategies.HalfBatch(0.25), 1.25),
        (lambda: strategies.ESAM(gamma=0.5), 11 / 6),
        (strategies.Momentum, 1.0),
        (lambda: strategies.Late(0.7, mix=0.5), 1.3),
        (lambda: strategies.MESA(decay=0.5, from_logits=False), 4 / 3),
    ],
)
def test_cost_and_configuration(make, cost):
    strategy = make()
    assert abs(strategy.cost - cost) < 1e-12
    config = keras.saving.serialize_keras_object(strategy)
    again = strategies.get(config)
    assert type(again) is type(strategy)
    assert again.get_config() == strategy.get_config()
    assert strategies.get(strategy) is strategy


@pytest.mark.parametrize(
    "make",
    [
        lambda: strategies.Periodic(0),
        lambda: strategies.LookSAM(1.5),
        lambda: strategies.LookSAM(alpha=-1),
        lambda: strategies.HalfBatch(0),
        lambda: strategies.HalfBatch(1.1),
        lambda: strategies.ESAM(beta=0),
        lambda: strategies.ESAM(gamma=2),
        lambda: strategies.Full(mix=1),
        lambda: strategies.Late(-1),
        lambda: strategies.Late("half"),
        lambda: strategies.MESA(decay=1),
        lambda: strategies.MESA(weight=-1),
        lambda: strategies.MESA(temperature=0),
    ],
)
def test_bad_arguments(make):
    with pytest.raises(ValueError, match="Received"):
        make()


def test_looksam_goes_on_from_a_file(tmp_path):
    """The reused component is saved with the model."""
    strategy = strategies.LookSAM(k=3)
    model, _, x, target = build(0, quantized=False, strategy=strategy)
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(x, target, batch_size=8, epochs=2, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    kept = [keras.ops.convert_to_numpy(v) for v in loaded.variables]
    for a, b in zip(model.variables, kept, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(a), b)
    assert any(v.name.startswith("looksam") for v in loaded.variables)
    for each in (model, loaded):
        each.fit(x, target, batch_size=8, epochs=2, verbose=0)
    for a, b in zip(model.variables, loaded.variables, strict=True):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(a),
            keras.ops.convert_to_numpy(b),
            atol=1e-6,
        )


def test_none_trains_as_the_model_inside_does():
    """And makes no second pass, whatever rho is."""
    found = []
    for is_wrapped in (True, False):
        model, _, x, target = build(0, strategy="none", rho=0.5)
        model = model if is_wrapped else model.model
        model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
        model.fit(x, target, batch_size=4, shuffle=False, epochs=2, verbose=0)
        found.append([np.array(v) for v in model.trainable_variables])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
