"""Models and data that commands read from files."""

import importlib
import os
import pathlib
import sys
import zipfile

import numpy as np

from keras_saq.models.wrapper import inner_model


def add_model_arguments(parser, kind="quantized"):
    """The flags of every command that loads a `"quantized"` or float model."""
    parser.add_argument("model", help=f"the {kind} model, a .keras file")
    add_import_argument(parser)


def add_import_argument(parser):
    """The flag of every command that loads a `.keras` file."""
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="a Python module that registers classes of the model; may be "
        "given several times",
    )


def load_model(path, imports=()):
    """The Keras model of a `.keras` file.

    Args:
        path: the file.
        imports: names of modules that register its custom classes.

    Raises:
        ValueError: if the file is missing or is no Keras model.
    """
    import keras

    # As `python -m` does: modules of the folder that the command runs in.
    sys.path.insert(0, os.getcwd())
    try:
        for module in imports:
            importlib.import_module(module)
    finally:
        sys.path.remove(os.getcwd())
    path = pathlib.Path(path)
    if path.suffix != ".keras" or not path.is_file():
        raise ValueError(
            f"'{path}' is not a .keras file that exists. Save the quantized "
            "model with `model.save('model.keras')`."
        )
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"'{path}' is not a readable .keras file: it is no zip archive."
        )
    print(f"loading {path} ...", file=sys.stderr)
    try:
        return keras.saving.load_model(path, compile=False)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise ValueError(
            f"'{path}' is not a readable .keras file: {error}"
        ) from error
    except TypeError as error:
        raise ValueError(
            f"'{path}' cannot be loaded: {error}\nClasses of your own must "
            "be registered by a module that `--import` names."
        ) from error


def _input_names(model):
    """Of the model's inputs; of a class of its own none are known."""
    inputs = getattr(inner_model(model), "inputs", None)
    return [t.name for t in inputs or ()]


def are_inputs(path, model):
    """Whether a file is for `load_inputs`, and no data set with labels.

    Args:
        path: name of a file or of a data set.
        model: the Keras model.
    """
    if not path.endswith(".npz"):
        return path.endswith(".npy")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = set(arrays.files)
    except (OSError, ValueError, EOFError, AttributeError, TypeError):
        return True  # `load_inputs` says what is wrong
    except zipfile.BadZipFile:
        return True
    names = _input_names(model)
    if names and found.issuperset(names):
        return True
    pairs = {"x", "y"}, {"x_train", "y_train"}
    return not any(found.issuperset(pair) for pair in pairs)


def load_inputs(path, model):
    """Inputs of a model from a `.npy` or `.npz` file.

    Args:
        path: the file. An `.npz` holds an array per input, with the input's
            name; for a model with one input also one array of any name, or
            one that is named `x`.
        model: the Keras model.

    Returns:
        An array, or a list of arrays in the order of the model's inputs.
    """
    names = _input_names(model) or ["x"]
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                arrays = {names[0]: loaded}
            else:
                arrays = {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"'{path}' is not a readable .npy or .npz file: {error}"
        ) from error
    if len(names) == 1 and names[0] not in arrays:
        if len(arrays) == 1:
            return next(iter(arrays.values()))
        names = ["x"]
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ValueError(
            f"'{path}' has no array for the inputs {missing} of the model. It "
            f"has: {sorted(arrays)}"
        )
    chosen = [arrays[name] for name in names]
    return chosen[0] if len(chosen) == 1 else chosen
