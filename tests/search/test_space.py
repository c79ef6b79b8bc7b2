"""Decisions and their costs, against what `quantize_model` makes of them."""

import keras
import numpy as np
import pytest

import keras_saq
from keras_saq.search import Candidates
from keras_saq.search import SearchSpace
from keras_saq.search import cost_models
from keras_saq.search import layer_costs
from keras_saq.search import result
from keras_saq.search.budget import float_cost
from tests.networks import NETWORKS
from tests.search.test_cost import resnet20

layers = keras.layers


def at_random(space, seed):
    rng = np.random.default_rng(seed)
    return [int(rng.integers(len(group.bits))) for group in space.groups]


@pytest.mark.parametrize("target", ["litert", "paper"])
@pytest.mark.parametrize("network", ["residual", "nested"])
def test_costs_are_those_of_the_counter(network, target):
    model = NETWORKS[network]()
    space = SearchSpace(model, (2, 3, 4, 8), target=target)
    bops = cost_models.bit_operations(space)
    stored = cost_models.stored(space)
    for seed in range(2):
        chosen = at_random(space, seed)
        policy = space.policy(chosen)
        result.verify(space, chosen, policy)
        rows = layer_costs(keras_saq.quantize_model(model, policy))
        assert bops.value(chosen) == sum(row.bops for row in rows)
        assert stored.value(chosen) == sum(row.stored_bytes for row in rows)


@pytest.mark.parametrize(
    "bits, millions", [(2, 190.2), (3, 392.05), (4, 674.64)]
)
def test_resnet20_has_the_published_bit_operations(bits, millions):
    space = SearchSpace(resnet20(), bits_only(bits), target="paper")
    bops = cost_models.bit_operations(space).value([0] * len(space.groups))
    assert round(bops / 1e6, 1 if bits == 2 else 2) == millions


def bits_only(bits):
    return Candidates(weight_bits=bits)


def test_depthwise_convolutions_are_int8_in_files_only():
    model = NETWORKS["residual"]()
    for target, expected in (("litert", (8,)), ("paper", (2, 4))):
        space = SearchSpace(model, (2, 4), target=target)
        found = {
            group.bits
            for group in space.groups
            if any("depthwise" in path for path in group.paths)
        }
        assert found == {expected}


def test_one_tensor_is_one_decision_and_a_shared_layer_too():
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 3, padding="same", name="first")(inputs)
    x = layers.ReLU()(x)
    shared = layers.Conv2D(4, 3, padding="same", name="shared")
    y = layers.ReLU()(shared(layers.ReLU()(shared(x))))
    a, b = layers.Conv2D(4, 1, name="a")(y), layers.Conv2D(4, 3, name="b")(y)
    x = layers.Flatten()(
        layers.Concatenate(axis=1)([layers.Flatten()(t) for t in (a, b)])
    )
    model = keras.Model(inputs, layers.Dense(3, name="last")(x))
    space = SearchSpace(model, (2, 4), target="litert")
    names = [group.name for group in space.groups]
    assert names.count("shared weights") == 1
    reading = [g for g in space.groups if g.kind == "activations"]
    assert {g.paths for g in reading if "a" in g.paths} == {("a", "b")}


def test_ties():
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 1, name="stem")(inputs)
    for i in range(2):
        y = layers.ReLU()(layers.Conv2D(4, 3, padding="same", name=f"a{i}")(x))
        y = layers.Conv2D(4, 3, padding="same", name=f"b{i}")(y)
        x = layers.Add()([x, y])
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))

    def weights(ties):
        space = SearchSpace(model, (2, 4), target="paper", ties=ties)
        return [g.paths for g in space.groups if g.kind == "weights"]

    assert weights(()) == [("a0",), ("b0",), ("a1",), ("b1",)]
    assert weights("a.") == [("a0", "a1"), ("b0",), ("b1",)]
    assert weights("residual") == [("a0",), ("b0", "b1"), ("a1",)]
    candidates = [
        Candidates(path="a0", weight_bits=(2, 3)),
        Candidates(path="a1", weight_bits=(4, 5)),
    ]
    with pytest.raises(ValueError, match="none in common"):
        SearchSpace(model, candidates, target="paper", ties="a.")


def test_rules_fix_what_they_match():
    model = NETWORKS["sequential"]()
    (path,) = {group.paths[0] for group in SearchSpace(model, (2, 4)).groups}
    rule = keras_saq.Rule(path=path, weight_bits=5, activation_bits=6)
    entries = [rule, Candidates(weight_bits=(2, 4))]
    space = SearchSpace(model, entries, first_last_bits=None, target="paper")
    assert all(path not in group.paths for group in space.groups)
    chosen = [0] * len(space.groups)
    q = keras_saq.quantize_model(model, space.policy(chosen))
    row = next(r for r in layer_costs(q) if r.path == path)
    assert (row.weight_bits, row.activation_bits) == (5, 6)
    bops = cost_models.bit_operations(space).value(chosen)
    assert bops == sum(r.bops for r in layer_costs(q))


def test_average_bits_and_memory_by_hand():
    inputs = keras.Input((4,))
    x = layers.Dense(8, name="a")(inputs)
    x = layers.Dense(16, name="b")(x)
    model = keras.Model(inputs, layers.Dense(2, name="c")(x))
    space = SearchSpace(model, (2, 4), target="paper")
    names = [g.name for g in space.groups]
    assert names == ["b weights", "b input"]
    average = cost_models.average_bits(space)
    assert average.value([0, 1]) == (32 * 8 + 128 * 2 + 32 * 8) / 192
    # At `b`: 8 numbers of 4 bits and 16 of 8. At `c`: these and 2 floats.
    memory = cost_models.activation_bytes(space)
    assert memory.value([0, 1]) == max(8 * 4 // 8 + 16, 16 + 2 * 4)
    # In a file every number is a byte; in float it has four.
    files = SearchSpace(model, (2, 4), target="litert")
    assert cost_models.activation_bytes(files).value([0, 0]) == 24
    assert float_cost("activation_bytes", space) == 4 * 24
    assert float_cost("bops", space) == 192 * 32 * 32


def test_unknown_target_and_candidates():
    model = NETWORKS["sequential"]()
    with pytest.raises(ValueError, match="`target` must be one of"):
        SearchSpace(model, target="gpu")
    with pytest.raises(ValueError, match="between 2 and 8"):
        SearchSpace(model, (2, 9))
    with pytest.raises(ValueError, match="must be numbers of bits"):
        SearchSpace(model, ())
