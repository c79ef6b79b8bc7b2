"""A searched policy is never worse than equal bits, as far as is measured."""

import json
import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_saq
from keras_saq.search import gate
from keras_saq.search.search import PolicySearch

RNG = np.random.default_rng(0)
X = RNG.normal(size=(256, 12)).astype("float32")
Y = RNG.integers(0, 4, 256)
# Four bits for all, but for both ends.
BUDGET = keras_saq.Budget(average_bits=4.8)


def network(outputs=4):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12,))
    x = layers.Dense(24, activation="relu", name="first")(inputs)
    for name in "abc":
        x = layers.Dense(24, activation="relu", name=name)(x)
    return keras.Model(inputs, layers.Dense(outputs, name="head")(x))


def searched(scores, model=None, y=Y, budget=BUDGET, **kwargs):
    """A search that has found what the scores say."""
    kwargs = {"method": "sensitivity", "candidates": (2, 4, 8), **kwargs}
    search = PolicySearch(
        model or network(), (X, y), target="paper", verbose=0, **kwargs
    )
    search.budget, search.limits = budget, budget.resolve(search.space)
    search.scores = [
        np.asarray(scores.get(g.name, np.zeros(len(g.bits))), "float64")
        for g in search.space.groups
    ]
    return search


def bad():
    """Two bits for one layer, for which another one gets eight."""
    return {"a weights": [9.0, 0, 0], "b weights": [0, 0, 9.0]}


def test_what_is_worse_is_not_returned():
    search = searched(bad())
    bits = search.policy().provenance["bits"]
    assert {bits[f"{n} weights"] for n in "abc"} == {4}
    verdict = search.verdict()
    assert verdict.chosen == "uniform" and verdict.measure == "loss"
    assert verdict.gain <= gate.ERRORS * verdict.error
    # And without the gate it is.
    bits = searched(bad(), gate=0).policy().provenance["bits"]
    assert bits["a weights"] == 2


def test_numbers_are_those_of_numpy():
    search = searched(bad())
    x, y = search.held_out
    verdict = search.verdict()
    model = network()
    uniform = search.space.policy(search.assignment())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        q = keras_saq.quantize_model(
            model, uniform, calibration=search.proxy.x[:256]
        )
    logits = keras.ops.convert_to_numpy(q(x)).astype("float64")
    largest = logits.max(-1, keepdims=True)
    log_p = logits - largest
    log_p -= np.log(np.exp(log_p).sum(-1, keepdims=True))
    loss = -log_p[np.arange(len(x)), y]
    assert verdict.means["uniform"] == pytest.approx(loss.mean(), rel=1e-4)
    assert verdict.samples == len(x) == 51


def test_what_is_much_better_is_returned():
    """A layer that few bits ruin, and one that hardly counts."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12,))
    x = layers.Dense(24, activation="relu", name="first")(inputs)
    x = layers.Add()(
        [
            layers.Dense(24, name="a")(x),
            layers.Rescaling(1e-3)(layers.Dense(24, name="b")(x)),
        ]
    )
    model = keras.Model(inputs, layers.Dense(4, name="head")(x))
    head = model.get_layer("head").kernel
    head.assign(20.0 * head)
    labels = keras.ops.convert_to_numpy(model(X)).argmax(-1)
    scores = {"b weights": [9.0, 0], "a weights": [0, 9.0]}
    budget = keras_saq.Budget(average_bits=5.8)
    search = searched(scores, model, labels, budget, candidates=(2, 8))
    verdict = search.verdict()
    assert verdict.chosen == "searched"
    assert verdict.gain > gate.ERRORS * verdict.error
    told = search.policy().provenance["gate"]
    assert told["chosen"] == "searched"
    json.dumps(told)


def test_held_out_samples_choose_nothing():
    search = PolicySearch(network(), (X, Y), "sensitivity", verbose=0)
    kept = {row.tobytes() for row in search.proxy.x}
    apart = {row.tobytes() for row in search.held_out[0]}
    assert not kept & apart and len(kept) + len(apart) == len(X)
    for method in ("random", "uniform"):
        baseline = PolicySearch(network(), (X, Y), method, verbose=0)
        assert baseline.held_out is None and len(baseline.proxy.x) == len(X)


def test_a_proxy_of_other_classes_is_judged_by_the_outputs():
    search = searched(bad(), network(outputs=7), new_head=True)
    assert search.verdict().measure == "distance"


def test_depthwise_and_ends_have_the_most_bits():
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(8, 3, name="first")(inputs)
    for i in range(2):
        x = layers.DepthwiseConv2D(3, padding="same", name=f"depth{i}")(x)
        x = layers.Conv2D(16, 1, name=f"point{i}")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(4, name="head")(x))
    space = keras_saq.search.SearchSpace(
        model, (2, 4, 8), target="paper", first_last_bits=None
    )
    limits = keras_saq.Budget(average_bits=6.2).resolve(space)
    found = space.bits(gate.heuristic_assignment(space, limits))
    bits = dict(zip((g.name for g in space.groups), found))
    assert bits["first weights"] == bits["head weights"] == 8
    assert bits["depth0 weights"] == bits["depth1 weights"] == 8
    assert bits["point0 weights"] == bits["point1 weights"] == 4
    limits = keras_saq.Budget(average_bits=2.1).resolve(space)
    assert gate.heuristic_assignment(space, limits) is None


@pytest.mark.parametrize("share", [-0.1, 1, True])
def test_a_share_is_below_1(share):
    with pytest.raises(ValueError, match="gate"):
        PolicySearch(network(), (X, Y), "ce", gate=share)
