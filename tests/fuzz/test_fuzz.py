"""A few of what `python -m tests.fuzz` runs 2,000 of."""

import json
import random

import pytest

from tests.fuzz import mutations
from tests.fuzz import targets
from tests.fuzz.names import TARGETS
from tests.fuzz.run import BAD
from tests.fuzz.run import Worker
from tests.fuzz.run import fuzz


def test_damaged_files_are_refused():
    counts, bad = fuzz(TARGETS, 3 * len(TARGETS), seed=10_000)
    assert not [row for row in bad if row[2] in BAD], bad
    assert sum(found.total() for found in counts.values()) == 3 * len(TARGETS)


def test_a_worker_that_ends_or_hangs_is_counted(tmp_path):
    worker = Worker(str(tmp_path))
    worker._start()
    outcome, text = worker._exchange({"target": "none", "seed": 0}, 100)
    assert outcome == "escaped" and "q.keras" in text
    assert worker._exchange({"make": True}, 0.01)[0] == "hang"
    worker._start()
    worker._child.kill()
    assert worker._exchange({"ready": True}, 100)[0] == "crash"
    worker.close()


def test_names_are_the_targets():
    assert TARGETS == tuple(targets.TARGETS)


@pytest.mark.parametrize("seed", range(20))
def test_mutations_are_the_same_each_time(seed):
    content = json.dumps({"a": [1, {"b": "c"}], "d": 2.5}).encode()
    first, second = (
        mutations.mutated_json(content, random.Random(seed)) for _ in range(2)
    )
    assert first == second
