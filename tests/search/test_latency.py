"""Latency tables, from measurement to a budget."""

import numpy as np
import pytest

import keras_saq
from keras_saq.search import LatencyTable
from keras_saq.search import SearchSpace
from keras_saq.search import measure_latency
from tests import networks


@pytest.fixture(scope="module", name="table")
def make_table():
    model = networks.sequential_network()
    return measure_latency(model, runs=3, verbose=0)


def test_every_layer_has_a_time_for_the_bits_it_is_stored_in(table):
    model = networks.sequential_network()
    entries = list(table.seconds_by_layer.values())
    # The 3x3 convolution is stored in bytes only; 1x1 and Dense are packed.
    assert [sorted(e) for e in entries] == [[8], [2, 4, 8], [2, 4, 8]]
    assert all(0 < s < 1 for e in entries for s in e.values())
    table.check(SearchSpace(model, (2, 3, 5), target="litert"))


def test_a_policy_meets_a_latency_budget(table, tmp_path):
    model = networks.sequential_network()
    x, y = networks.images()
    # Made-up times, so that the fewest bits are the fastest.
    made_up = LatencyTable(
        {
            key: {bits: 1e-6 * bits for bits in entry}
            for key, entry in table.seconds_by_layer.items()
        }
    )
    made_up.save(tmp_path / "table.json")
    assert LatencyTable.load(tmp_path / "table.json") == made_up
    budget = keras_saq.Budget(
        latency=20e-6, latency_table=tmp_path / "table.json"
    )
    policy = keras_saq.search_policy(
        model, (x, y), budget, "uniform", candidates=(2, 4, 8)
    )
    # 8 and 8 for the first and the last layer leave 4.
    assert policy.provenance["bits"]["conv2d_1 weights"] == 4
    np.testing.assert_allclose(policy.provenance["cost"]["latency"], 20e-6)


def test_a_table_of_another_model(table):
    model = networks.residual_network()
    x, y = networks.images()
    budget = keras_saq.Budget(latency=1.0, latency_table=table)
    with pytest.raises(ValueError, match="(?s)lacks 8 layers .*keras-saq lat"):
        keras_saq.search_policy(model, (x, y), budget, "random")
    with pytest.raises(ValueError, match="not a latency table"):
        LatencyTable.from_json("[]")
