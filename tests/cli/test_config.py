"""Flags from files: every kind of value, and every way to get one wrong."""

import json

import pytest

from keras_saq.cli import config
from keras_saq.cli import main
from tests.cli.commands import run


def parse(*args):
    return main.parse(["keras-saq", *map(str, args)])


def test_every_kind_of_value(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        'model = "float.keras"\n'
        'data = "cifar10"\n'
        'output = "run"\n'
        'scale = "1/255"\n'
        "mean = [0.1, 0.2, 0.3]\n"
        'image-size = "32,24"\n'
        "learning_rate = 1e-2\n"
        "batch-size = 7\n"
        "tensorboard = true\n"
        'import = ["a", "b"]\n'
        "rho = 0.5\n"
    )
    args = parse("train", f"--config={path}", "--rho=0.25", "--epochs=3")
    assert (args.model, args.data, args.output) == (
        *("float.keras", "cifar10", "run"),
    )
    assert args.scale == 1 / 255 and args.mean == (0.1, 0.2, 0.3)
    assert args.image_size == (32, 24) and args.learning_rate == 0.01
    assert args.batch_size == 7 and args.epochs == 3
    assert args.tensorboard is True and args.imports == ["a", "b"]
    assert args.rho == 0.25  # the command line wins
    assert parse("train", "x.keras", "--config", path).model == "x.keras"


def test_a_run_can_be_given_back(tmp_path):
    flags = ("--data=a.npz", "--output=run", "--mean=1,2", "--image-size=3")
    args = parse("train", "m.keras", *flags, "--import=a", "--case=2")
    settings = config.settings_of(args)
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"version": "1", "settings": settings}))
    again = config.settings_of(parse("train", f"--config={path}"))
    assert again == settings
    assert json.loads(json.dumps(settings)) == settings


def test_an_export_is_of_one_run(tmp_path, capsys):
    flags = ("--data=a.npz", f"--output={tmp_path}/run", "--export=a.tflite")
    settings = config.settings_of(parse("train", "m.keras", *flags))
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"version": "1", "settings": settings}))
    given = f"--config={path}"
    assert parse("train", given).export == "a.tflite"
    same = f"--output={tmp_path}/./run"
    assert parse("train", given, same).export == "a.tflite"
    assert capsys.readouterr().err == ""
    assert parse("train", given, "--output=again").export is None
    assert "--export=a.tflite is of the run in" in capsys.readouterr().err
    again = parse("train", given, "--output=again", "--export=b.tflite")
    assert again.export == "b.tflite"


def test_lists_on_the_command_line_win(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('import = ["a", "b"]\n')
    flags = ("train", "m.keras", "--data=d", "--output=o", f"--config={path}")
    assert parse(*flags).imports == ["a", "b"]
    assert parse(*flags, "--import=c", "--import=d").imports == ["c", "d"]


def test_flags_are_not_shortened(capsys):
    code, _, err = run(capsys, "train", "m.keras", "--conf=no.toml")
    assert code == 2
    flags = ("m.keras", "--data=d", "--output=o", "--conf=no.toml")
    code, _, err = run(capsys, "train", *flags)
    assert code == 2 and "unrecognized arguments: --conf=no.toml" in err


def test_several_files_and_switches(tmp_path):
    path = tmp_path / "b.json"
    path.write_text('{"files": ["a.tflite", "b.tflite"], "no-delegate": true}')
    args = parse("benchmark", f"--config={path}")
    assert args.files == ["a.tflite", "b.tflite"] and args.no_delegate
    assert parse("benchmark", "c", f"--config={path}").files == ["c"]


WRONG = {
    "epoch = 3": "the key 'epoch', which is no flag of `keras-saq train`. "
    "Did you mean 'epochs'?",
    "learning-rat = 3": "Did you mean 'learning_rate'?",
    "help = true": "is no flag",
    'config = "x.toml"': "is no flag",
    "epochs = 0": "epochs = 0: expected an integer of at least 1",
    "epochs = 1.5": "expected an integer of at least 1, received '1.5'",
    'epochs = "many"': "expected an integer of at least 1",
    "epochs = true": "epochs = true: expected a text or a number",
    'tensorboard = "yes"': "expected true or false",
    "rho = -1": "rho = -1: expected a number that is not negative",
    'rho = "nan"': "expected a number such as",
    'mean = [0.1, "x"]': "expected a number such as",
    "mean = [[1]]": "a list of them",
    'method = "sqa"': "expected one of saq, qat, float; did you mean 'saq'?",
    "case = 4": "expected one of 1, 2, 3",
    "import = [1]": "expected a list of texts",
    "model = {a = 1}": "expected a text or a number",
    "epochs = ": "cannot be read",
}


@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_is_named(line, tmp_path, capsys):
    path = tmp_path / "run.toml"
    path.write_text(line)
    code, out, err = run(capsys, "train", f"--config={path}")
    assert code == 2 and out == "" and "Traceback" not in err
    assert WRONG[line] in err and str(path) in err


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("run.yaml", "epochs: 3", "ends in .toml or .json"),
        ("run.json", "[1]", "must hold a table of flags"),
        ("run.json", "{", "cannot be read"),
        ("nothing.toml", None, "No such file"),
    ],
)
def test_files_that_are_none(name, content, message, tmp_path, capsys):
    if content is not None:
        (tmp_path / name).write_text(content)
    code, _, err = run(capsys, "train", f"--config={tmp_path / name}")
    assert code == 2 and message in err and name in err


def test_config_without_a_file(capsys):
    code, _, err = run(capsys, "train", "--config")
    assert code == 2 and "expected one argument" in err
    code, _, err = run(capsys, "train", "--config=no.toml", "--help")
    assert code == 2 and "no.toml" in err
