"""Other backends, more devices, and a process that is killed."""

import importlib.util
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BACKEND = keras.backend.backend()


def start(*arguments, backend=BACKEND, **environment):
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.sharpness.programs",
            *map(str, arguments),
        ],
        cwd=os.environ.get("PYTEST_ROOT", ROOT),
        env={**os.environ, "KERAS_BACKEND": backend, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, expected=0):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == expected, output[-4000:]


def run(*arguments, expected=0, **kwargs):
    finish(start(*arguments, **kwargs), expected)


def assert_same(first, second, atol):
    a, b = np.load(first), np.load(second)
    assert set(a) == set(b) and len(a.files) > 8
    for name in a.files:
        np.testing.assert_allclose(a[name], b[name], atol=atol, err_msg=name)


def test_backends_agree(tmp_path):
    """Every backend that is installed, from the same weights."""
    if BACKEND != "tensorflow":
        pytest.skip("the run on TensorFlow compares all of them")
    backends = [
        name
        for name in ("tensorflow", "jax", "torch")
        if importlib.util.find_spec(name)
    ]
    assert len(backends) > 1
    processes = [start("agree", tmp_path / b, backend=b) for b in backends]
    for process in processes:
        finish(process)
    first, *others = (tmp_path / f"{name}.npz" for name in backends)
    for other in others:
        assert_same(first, other, 1e-5)


def test_killed_and_started_again(tmp_path):
    """Ends exactly where a run that was not killed ends.

    With dropout, batch norm, Adam and LookSAM, whose state is all restored.
    """
    whole = start("resume", tmp_path / "whole", tmp_path / "a", "go")
    run(
        "resume",
        tmp_path / "killed",
        tmp_path / "b",
        "kill",
        expected=-signal.SIGKILL,
    )
    assert not (tmp_path / "killed.npz").exists()
    run("resume", tmp_path / "killed", tmp_path / "b", "go")
    finish(whole)
    assert_same(tmp_path / "whole.npz", tmp_path / "killed.npz", 0)


tensorflow_only = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="tf.distribute"
)
jax_only = pytest.mark.skipif(BACKEND != "jax", reason="keras.distribution")


@tensorflow_only
def test_two_replicas(tmp_path):
    """Synchronised, without batch statistics, they are one: to 1e-5.

    With perturbations of their own, the papers' way, they are not.
    """
    shared = {"rho": 0.2, "sync_perturbation": True}
    same = {"full": shared, "looksam": {**shared, "strategy": "looksam"}}
    other = {
        "sync": {**shared, "norm": True},
        "own": {"rho": 0.2, "norm": True},
    }
    one = start("mirrored", tmp_path / "one", 1, json.dumps(same))
    two = start("mirrored", tmp_path / "two", 2, json.dumps({**same, **other}))
    finish(one)
    finish(two)
    one, two = np.load(tmp_path / "one.npz"), np.load(tmp_path / "two.npz")
    assert len(one.files) > 16
    for name in one.files:
        np.testing.assert_allclose(one[name], two[name], atol=1e-5)
    assert np.isfinite(two["own_loss"]).all()
    names = [n.removeprefix("own_") for n in two.files if n.startswith("own_")]
    moved = [np.abs(two[f"own_{n}"] - two[f"sync_{n}"]).max() for n in names]
    assert max(moved) > 1e-4


@tensorflow_only
def test_several_workers_are_refused_and_told_the_way(tmp_path):
    run("multi_worker", tmp_path / "message")
    message = (tmp_path / "message").read_text()
    assert "keras.distribution" in message and "KERAS_BACKEND=jax" in message


FLAGS = "--xla_force_host_platform_device_count=2"


@jax_only
def test_data_parallel_is_one_device(tmp_path):
    options = json.dumps({"rho": 0.2})
    run("data_parallel", tmp_path / "one", 1, options)
    run("data_parallel", tmp_path / "two", 2, options, XLA_FLAGS=FLAGS)
    assert_same(tmp_path / "one.npz", tmp_path / "two.npz", 1e-5)


@jax_only
def test_a_perturbation_per_device_is_refused_on_jax(tmp_path):
    process = start(
        "data_parallel",
        tmp_path / "two",
        2,
        json.dumps({"rho": 0.2, "sync_perturbation": False}),
        XLA_FLAGS=FLAGS,
    )
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "always synchronised, here over 2 devices" in output


@jax_only
def test_two_processes_are_one(tmp_path):
    """Data parallel over two processes on loopback."""
    run("data_parallel", tmp_path / "one", 1, json.dumps({"rho": 0.2}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [
        start("two_processes", tmp_path / "two", address, i) for i in (0, 1)
    ]
    for process in processes:
        finish(process)
    assert_same(tmp_path / "one.npz", tmp_path / "two.npz", 1e-5)
