"""`keras-saq search` and `latency`, and each way they end."""

import json

import keras
import numpy as np
import pytest

import keras_saq
from tests import networks
from tests.cli import commands
from tests.cli.commands import run


@pytest.fixture
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    networks.sequential_network().save("model.keras")
    x, y = networks.images()
    np.savez("proxy.npz", x=x, y=y)
    return tmp_path


def test_search_and_latency(inside, capsys):
    code, out, err = run(capsys, "latency", "model.keras", "--runs=2", "--json")
    assert code == 0, err
    assert json.loads(out) == json.loads((inside / "latency.json").read_text())
    code, out, err = run(
        *(capsys, "search", "model.keras", "--proxy=proxy.npz"),
        *("--bops=w4a4", "--latency=1", "--latency-table=latency.json"),
        *("--method=mpiq", "--candidates=2,4,8", "--plot=bits.png", "--json"),
        "--fraction=0.5",
    )
    assert code == 0, err
    found = json.loads(out)
    assert found["cost"]["bops"] <= found["limits"]["bops"]
    assert found["proxy"]["samples"] == 34  # half of each class, rounded
    assert found["proxy"]["fraction"] == 0.5
    assert found["proxy"]["name"] == "proxy.npz"
    policy = keras_saq.QuantizePolicy.load("policy.json")
    assert policy.provenance == found
    assert (inside / "bits.png").read_bytes().startswith(b"\x89PNG")


def test_search_on_an_image_folder(inside, capsys):
    commands.write_image_folder(inside / "images", per_class=4)
    code, out, err = run(
        *(capsys, "search", "model.keras", "--proxy=images", "--fraction=0.5"),
        *("--scale=1/255", "--average-bits=7", "--method=scale"),
        "--epochs=1",
    )
    assert code == 0, err
    assert "written to policy.json" in out
    proxy = keras_saq.QuantizePolicy.load("policy.json").provenance["proxy"]
    assert proxy["samples"] == 6 and proxy["classes"] == 3


ERRORS = {
    "search model.keras --proxy=proxy.npz --bops=1": "reachable",
    "search model.keras --proxy=proxy.npz": "budget",
    "search model.keras --proxy=proxy.npz --bops=x": "bops",
    "search model.keras --proxy=nothing.npz --bops=w4a4": "not a readable .npz",
    "search model.keras --proxy=./none --bops=w4a4": "is no data set",
    "search model.keras --proxy=wide.npz --bops=w4a4": "takes inputs of shape",
    "search model.keras --proxy=real.npz --bops=w4a4": "one integer per sample",
    "search model.keras --proxy=proxy.npz --bops=w4a4 --fraction=0": "above 0",
    "search model.keras --proxy=proxy.npz --bops=w4a4 --output=p.txt": ".json",
    "search model.keras --proxy=proxy.npz --bops=w4a4 --plot=no/p.png": (
        "does not exist"
    ),
    "search model.keras --proxy=proxy.npz --latency=1": "latency_table",
    "search none.keras --proxy=proxy.npz --bops=w4a4": "is not a .keras file",
    "latency none.keras": "is not a .keras file",
    "latency model.keras --output=no/table.json": "does not exist",
}


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="once is enough"
)
@pytest.mark.parametrize("line", ERRORS)
def test_errors_are_one_message_and_exit_with_1(line, inside, capsys):
    np.savez("wide.npz", x=np.zeros((8, 8), "float32"), y=np.arange(8))
    np.savez("real.npz", x=np.zeros((8, 8, 8, 1)), y=np.linspace(0, 1, 8))
    before = sorted(p.name for p in inside.iterdir())
    code, _, err = run(capsys, *line.split())
    assert code == 1 and ERRORS[line] in err and "Traceback" not in err
    assert sorted(p.name for p in inside.iterdir()) == before


@pytest.mark.parametrize(
    "flags",
    ["--fraction=2", "--epochs=0", "--rho=-1", "--candidates=2,x", "--seed=-1"],
)
def test_wrong_usage_exits_with_2(flags, capsys):
    code, _, err = run(capsys, "search", "a.keras", "--proxy=b", flags)
    assert code == 2 and flags.split("=")[0] in err and "expected" in err
