"""`keras-saq search` and `latency`, as a user runs them."""

import json

import numpy as np

import keras_saq
from tests import networks
from tests.cli.test_cli import run


def test_search_and_latency(tmp_path):
    networks.sequential_network().save(tmp_path / "model.keras")
    x, y = networks.images()
    np.savez(tmp_path / "proxy.npz", x=x, y=y)
    result = run(
        *("latency", "model.keras", "--runs=2", "--json"), cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    table = json.loads((tmp_path / "latency.json").read_text())
    assert json.loads(result.stdout) == table
    result = run(
        *("search", "model.keras", "--proxy=proxy.npz", "--fraction=0.5"),
        *("--bops=w4a4", "--latency=1", "--latency-table=latency.json"),
        *("--method=mpiq", "--candidates=2,4,8", "--plot=bits.png", "--json"),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["cost"]["bops"] <= found["limits"]["bops"]
    assert found["proxy"]["samples"] == 34  # half of each class, rounded
    policy = keras_saq.QuantizePolicy.load(tmp_path / "policy.json")
    assert policy.provenance == found
    assert (tmp_path / "bits.png").read_bytes().startswith(b"\x89PNG")
    result = run(
        *("search", "model.keras", "--proxy=proxy.npz", "--bops=1"),
        cwd=tmp_path,
    )
    assert result.returncode == 1
    assert "reachable" in result.stderr and "Traceback" not in result.stderr
