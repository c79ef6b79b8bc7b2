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
@pytest.mark.parametrize("strategy", ["full", "looksam"])
def test_two_replicas_with_one_perturbation_are_one_replica(tmp_path, strategy):
    """Synchronised, without batch statistics: to 1e-5."""
    options = {"rho": 0.2, "sync_perturbation": True, "strategy": strategy}
    options = json.dumps(options)
    run("mirrored", tmp_path / "one", 1, options)
    run("mirrored", tmp_path / "two", 2, options)
    assert_same(tmp_path / "one.npz", tmp_path / "two.npz", 1e-5)


@tensorflow_only
def test_replicas_with_perturbations_of_their_own(tmp_path):
    """The papers' way: each replica ascends on its part of the batch."""
    options = {"rho": 0.2, "norm": True}
    run("mirrored", tmp_path / "own", 2, json.dumps(options))
    options["sync_perturbation"] = True
    run("mirrored", tmp_path / "sync", 2, json.dumps(options))
    own, sync = np.load(tmp_path / "own.npz"), np.load(tmp_path / "sync.npz")
    assert np.isfinite(own["loss"]).all()
    assert max(np.abs(own[n] - sync[n]).max() for n in own.files) > 1e-4


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
