"""`search_policy`: every method, its budget, and what it leaves behind."""

import json

import keras
import numpy as np
import pytest

import keras_saq
from keras_saq.search import Candidates
from keras_saq.search import trainer
from keras_saq.search.search import METHODS
from keras_saq.sharpness.participants import participants
from tests import networks

layers = keras.layers
QUICK = {"epochs": 2, "batch_size": 32, "verbose": 0}


@pytest.fixture(scope="module", name="trained")
def make_trained():
    keras.utils.set_random_seed(0)
    return networks.fit(small_network(), 2)


def small_network(classes=10):
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, name="stem")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.8)(x))
    y = layers.Conv2D(4, 3, padding="same", name="a")(x)
    y = layers.ReLU()(layers.BatchNormalization(momentum=0.8)(y))
    y = layers.Conv2D(4, 3, padding="same", name="b")(y)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.Add()([x, y])))
    return keras.Model(inputs, layers.Dense(classes, name="head")(x))


@pytest.mark.parametrize("method", METHODS)
def test_every_policy_meets_its_budgets_as_the_counter_measures(
    method, trained, tmp_path
):
    x, y = networks.images()
    budget = keras_saq.Budget(bops="w3a3", average_bits=4.5)
    target = "paper" if METHODS.index(method) % 2 else "litert"
    policy = keras_saq.search_policy(
        trained, (x, y), budget, method, target=target, **QUICK
    )
    q = keras_saq.quantize_model(trained, policy, calibration=x)
    found, summary = policy.provenance, keras_saq.summary(q, print_fn=False)
    assert summary.bops == found["cost"]["bops"] <= found["limits"]["bops"]
    assert summary.stored_bytes == found["cost"]["stored_bytes"]
    assert found["cost"]["average_bits"] <= 4.5
    assert found["method"] == method and found["proxy"]["samples"] == 64
    bits = {f"{r.path} weights": r.weight_bits for r in summary.rows}
    assert all(
        bits[name] == b
        for name, b in found["bits"].items()
        if name.endswith("weights")
    )
    policy.save(tmp_path / "policy.json")
    loaded = keras_saq.QuantizePolicy.load(tmp_path / "policy.json")
    assert loaded == policy and loaded.provenance == found
    assert not policy.diff(loaded)


def test_an_impossible_budget_says_what_can_be_reached(trained):
    x, y = networks.images()
    search = keras_saq.PolicySearch(
        trained, (x, y), "random", candidates=(4, 8), target="paper"
    )
    with pytest.raises(ValueError, match="bops: .*reachable: [0-9,]+ to"):
        search.fit(keras_saq.Budget(bops=1000))
    budget = keras_saq.Budget(bops="w4a4", average_bits=4.0)
    with pytest.raises(ValueError, match="average_bits: received 4, reach"):
        search.fit(budget)


@pytest.fixture(scope="module", name="searched")
def make_searched(trained, tmp_path_factory):
    x, y = networks.images()
    tensorboard = keras.backend.backend() == "tensorflow"
    search = keras_saq.PolicySearch(
        trained,
        (x, y),
        candidates=(2, 4, 8),
        target="paper",
        epochs=6,
        batch_size=16,
        verbose=0,
        log_dir=tmp_path_factory.mktemp("logs") if tensorboard else None,
    )
    return search.fit(keras_saq.Budget(bops="0.9x w4a4"))


def test_training_moves_logits_to_the_budget_and_is_noted(searched):
    history = searched.history
    assert {"bops", "margin", "loss", "accuracy"} <= history.keys()
    assert history["margin"][-1] < history["margin"][0]
    assert 0.7 < history["bops"][-1] < 1.15  # in units of the limit
    assert len(searched.probabilities) == 6
    logits = [
        keras.ops.convert_to_numpy(c.logits) for c in searched.supernet.choices
    ]
    slopes = {round(float(v[0] - v[1]), 4) for v in logits}
    assert len(slopes) == len(logits)  # groups are told apart
    if searched.log_dir is not None:
        (file,) = searched.log_dir.iterdir()
        assert b"a weights/4 bits" in file.read_bytes()


def test_a_search_that_was_stopped_goes_on(trained, tmp_path):
    x, y = networks.images()
    budget = keras_saq.Budget(bops="w4a4")

    class Stop(Exception):
        pass

    def search(folder, stop=None):
        def augment(batch, rng):
            if stop and len(calls) == stop:
                raise Stop("stopped here")
            calls.append(1)
            return batch

        calls = []
        return keras_saq.PolicySearch(
            trained,
            (x, y),
            candidates=(2, 4),
            target="paper",
            epochs=3,
            batch_size=32,
            checkpoint=folder,
            augment=augment,
            verbose=0,
        )

    whole = search(tmp_path / "whole").fit(budget)
    with pytest.raises(Exception, match="stopped here"):
        search(tmp_path / "parts", stop=3).fit(budget)
    again = search(tmp_path / "parts").fit(budget)
    for a, b in zip(whole.scores, again.scores, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert again.history["loss"] == pytest.approx(whole.history["loss"], 1e-4)
    other = keras_saq.PolicySearch(
        trained, (x, y), checkpoint=tmp_path / "parts", verbose=0
    )
    with pytest.raises(ValueError, match="is of another search"):
        other.fit(budget)


def test_front_from_one_supernet(searched):
    search = searched
    before = networks.numpy_variables(search.supernet.model)
    names = [v.path for v in search.supernet.model.variables]
    scores = search.scores
    budgets = [keras_saq.Budget(bops=f"w{b}a{b}") for b in (2, 8)]
    points = search.front(budgets, epochs=1)
    costs = [point.cost["bops"] for point in points]
    assert costs == sorted(costs) and costs[0] < costs[-1]
    assert all(0 <= point.accuracy <= 1 for point in points)
    assert search.scores is scores
    after = networks.numpy_variables(search.supernet.model)
    for name, a, b in zip(names, before, after, strict=True):
        if "logits" not in name:  # weights, scales and statistics stay
            np.testing.assert_array_equal(a, b, err_msg=name)


def test_a_proxy_of_other_classes(trained):
    x, y = networks.images()
    policy = keras_saq.search_policy(
        trained,
        (x, (y + 3 * (np.arange(64) % 2)).astype("int32")),  # 13 classes
        keras_saq.Budget(bops="w4a4"),
        target="paper",
        adapt_epochs=1,
        **QUICK,
    )
    q = keras_saq.quantize_model(trained, policy)
    assert q.get_layer("head").units == 10


def test_sharpness_in_the_search(trained):
    x, y = networks.images()
    search = keras_saq.PolicySearch(
        trained,
        (x, y),
        target="paper",
        candidates=(2, 4),
        rho=0.5,
        epochs=1,
        verbose=0,
    ).fit(keras_saq.Budget(bops="w4a4"))
    assert search.policy().provenance["rho"] == 0.5
    assert np.isfinite(search.history["loss"][0])
    # Logits and scales are not perturbed.
    named = participants(search.supernet.model, trainer._PERTURBED)
    assert named and all(p.kind in trainer._PERTURBED for p in named)
    assert not any("logits" in p.variable.path for p in named)


def test_a_loss_without_classes(trained):
    x, _ = networks.images()
    targets = np.random.default_rng(0).normal(size=(64, 10)).astype("float32")
    budget = keras_saq.Budget(bops="w4a4")
    with pytest.raises(ValueError, match='method="ce" with your `loss`'):
        keras_saq.search_policy(
            trained, (x, targets), budget, loss="mse", **QUICK
        )
    policy = keras_saq.search_policy(
        trained, (x, targets), budget, "mpiq", loss="mse", **QUICK
    )
    assert policy.provenance["epochs"] == 0


def test_candidates_for_some_layers_only(trained):
    x, y = networks.images()
    policy = keras_saq.search_policy(
        trained,
        (x, y),
        keras_saq.Budget(bops="w8a8"),
        "uniform",
        candidates=[Candidates(path="a", weight_bits=(2, 3))],
        target="paper",
    )
    assert policy.provenance["bits"] == {"a weights": 3, "a input": 3}


def test_wrong_arguments(trained):
    x, y = networks.images()
    with pytest.raises(ValueError, match="`method` must be one of"):
        keras_saq.PolicySearch(trained, (x, y), "guess")
    with pytest.raises(ValueError, match="`budget` must be a"):
        keras_saq.PolicySearch(trained, (x, y), "random").fit(3e6)
    with pytest.raises(ValueError, match="`proxy` must be"):
        keras_saq.PolicySearch(trained, x)
    with pytest.raises(ValueError, match="has not been made"):
        keras_saq.PolicySearch(trained, (x, y)).policy()


def test_provenance_is_plain_data(trained):
    x, y = networks.images()
    policy = keras_saq.search_policy(
        trained, (x, y), keras_saq.Budget(bops="0.02x float"), "random"
    )
    found = policy.provenance
    assert json.loads(json.dumps(found)) == found
    assert found["budget"] == {"bops": "0.02x float"}
    assert set(found["scores"]) == set(found["bits"])
