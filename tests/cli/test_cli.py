"""The installed command, as a user runs it."""

import json
import subprocess
import sys

import pytest

import keras_saq


def run(*args, cwd=None):
    command = [sys.executable, "-m", "keras_saq.cli.main", *args]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, timeout=600
    )


def test_version():
    result = run("--version")
    assert result.returncode == 0
    assert result.stdout.strip() == f"keras-saq {keras_saq.__version__}"


def test_help():
    result = run("demo", "--help")
    assert result.returncode == 0
    for flag in ("--output", "--seeds", "--epochs", "--rho", "--no-plot"):
        assert flag in result.stdout


@pytest.mark.parametrize(
    "args", [(), ("dream",), ("demo", "--seeds=0"), ("demo", "--rho=-1")]
)
def test_bad_usage_exits_with_2(args, tmp_path):
    result = run(*args, cwd=tmp_path)
    assert result.returncode == 2
    assert "usage:" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_error_is_one_line_and_exits_with_1(tmp_path):
    (tmp_path / "file").write_text("in the way")
    result = run("demo", "--output=file", cwd=tmp_path)
    assert result.returncode == 1
    assert "keras-saq demo: The folder 'file' cannot be made" in result.stderr
    assert "Traceback" not in result.stderr


def test_demo(tmp_path):
    result = run("demo", "--epochs=1", "--output=out", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    names = {p.name for p in (tmp_path / "out").iterdir()}
    files = {
        f"{bits}-{method}.tflite"
        for bits in ("w4a8", "w2a4")
        for method in ("qat", "saq")
    }
    assert files | {"results.json", "results.png"} <= names
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert json.loads(result.stdout) == results
    runs = results["runs"]
    assert len(runs) == 5
    for record in runs:
        if record["method"] != "float":
            path = tmp_path / "out" / f"{record['bits']}-{record['method']}"
            size = path.with_suffix(".tflite").stat().st_size
            assert record["file_bytes"] == size
            assert record["reference_exact"] is True
            assert record["resolver"] == "XNNPACK"
            assert (
                record["keras_accuracy"] > 0.12
            )  # after one epoch; chance is 0.1
