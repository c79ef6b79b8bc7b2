"""A supernet with certain bits is the quantized model with these bits."""

import numpy as np
import pytest
from keras import ops

import keras_saq
from keras_saq.models import calibrate
from keras_saq.search import SearchSpace
from keras_saq.search import Supernet
from keras_saq.search.mixture import Mixture
from tests import networks
from tests.search.test_space import at_random


@pytest.mark.parametrize("target", ["litert", "paper"])
@pytest.mark.parametrize("network", ["residual", "nested"])
def test_certain_bits(network, target):
    x, _ = networks.images()
    model = networks.NETWORKS[network]()
    networks.fit(model, 1)
    space = SearchSpace(model, (2, 4, 8), target=target)
    chosen = at_random(space, 1)
    supernet = Supernet(space.on(model))
    policy = space.policy(chosen)
    q = keras_saq.quantize_model(model, policy, calibration=x)
    with supernet.decided(chosen) as net:
        calibrate(net, x)
        found = net.predict(x, verbose=0)
    np.testing.assert_allclose(
        found, q.predict(x, verbose=0), rtol=1e-5, atol=1e-5
    )


def test_a_mixture_is_the_sum_of_its_candidates():
    x, _ = networks.images()
    model = networks.NETWORKS["sequential"]()
    space = SearchSpace(model, (2, 4, 8), target="paper")
    supernet = Supernet(space, x)
    mixtures = [
        layer
        for layer in supernet.model._flatten_layers()
        if isinstance(layer, Mixture)
    ]
    assert {m.choice.bits for m in mixtures} == {(2, 4, 8)}
    rng = np.random.default_rng(0)
    for mixture in mixtures:
        values = ops.convert_to_tensor(rng.normal(size=(3, 3, 8, 8)), "float32")
        logits = rng.normal(size=3)
        mixture.choice.logits.assign(logits)
        mixed = ops.convert_to_numpy(mixture(values))
        total = 0.0
        for i, p in enumerate(np.exp(logits) / np.exp(logits).sum()):
            mixture.choice.decide(i)
            total = total + p * ops.convert_to_numpy(mixture(values))
        np.testing.assert_allclose(mixed, total, rtol=1e-4, atol=1e-5)


def test_there_is_one_convolution_per_layer_and_one_kernel():
    model = networks.NETWORKS["sequential"]()
    supernet = Supernet(SearchSpace(model, (2, 3, 4, 5, 6), target="paper"))
    kernels = [
        v for v in supernet.model.trainable_variables if v.name == "kernel"
    ]
    assert len(kernels) == 3
    assert sum(v.name == "logits" for v in supernet.model.variables) == 2


def test_a_search_starts_at_its_budget():
    model = networks.NETWORKS["residual"]()
    space = SearchSpace(model, (2, 3, 4, 6), target="paper")
    supernet = Supernet(space.on(model))
    limits = keras_saq.Budget(bops="w3a3").resolve(space)
    supernet.start_at(limits)
    given = [choice.softmax() for choice in supernet.choices]
    expected = float(limits[0].cost.expected(given))
    assert expected == pytest.approx(limits[0].limit, rel=1e-3)
    supernet.start_at(keras_saq.Budget(bops="w8a8").resolve(space))
    for p in supernet.probabilities():
        np.testing.assert_allclose(p, 0.25, atol=1e-6)


def test_features_are_what_the_last_layer_reads():
    x, _ = networks.images(8)
    model = networks.NETWORKS["preactivation"]()
    supernet = Supernet(SearchSpace(model, (4, 8), target="paper"), x)
    supernet.model(ops.convert_to_tensor(x))
    assert supernet.take_features().shape == (8, 8)
    assert supernet.take_features() is None
