"""Models and data that commands read from files."""

import importlib
import os
import pathlib
import re
import sys
import warnings
import zipfile

from keras_saq.cli import failures
from keras_saq.cli import guard
from keras_saq.data.arrays import ArrayFile
from keras_saq.models.graph import is_plain_graph_model
from keras_saq.models.wrapper import inner_model

_UNKNOWN = re.compile(r"(Unknown layer|Could not locate class):? '.{1,100}?'")
# What `keras.saving.load_model` reads.
MODEL_SUFFIXES = (".keras", ".h5", ".hdf5")


def add_model_arguments(parser, kind="quantized"):
    """The flags of every command that loads a `"quantized"` or float model."""
    what = "a .keras file" if kind == "quantized" else "a .keras or .h5 file"
    parser.add_argument("model", help=f"the {kind} model, {what}")
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
    """The Keras model of a `.keras` or `.h5` file.

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
    _check_model_file(path)
    print(f"loading {path} ...", file=sys.stderr)
    try:
        guard.check_readable(path)
        with guard.weights_as_in(path), warnings.catch_warnings():
            # What old files lack is filled in by Keras.
            warnings.simplefilter("ignore", UserWarning)
            model = keras.saving.load_model(path, compile=False)
            is_old = path.suffix != ".keras" and is_plain_graph_model(model)
            return _plain(model) if is_old else model
    except Exception as error:  # of Keras, of h5py, of somebody's layer
        raise ValueError(_why_not_loaded(path, error)) from error


def _plain(model):
    """A model of one input that takes it as such, not as a list of one.

    Files of Keras 2 have lists, and Keras 3 warns at each call without one.
    """
    import keras

    if isinstance(model, keras.Sequential):
        return model
    edges = model.input, model.output
    if not any(isinstance(e, list) and len(e) == 1 for e in edges):
        return model
    edges = (e[0] if isinstance(e, list) and len(e) == 1 else e for e in edges)
    return keras.Model(*edges, name=model.name)


def _check_model_file(path):
    """Raises for what is no file that could be a Keras model."""
    if path.is_dir():
        kind = "a folder"
        if (path / "saved_model.pb").is_file():
            kind = "a SavedModel: functions without layers"
        raise ValueError(
            f"'{path}' is {kind}, and Keras layers are needed. Load it where "
            "it was made (Keras 2: `tf_keras.models.load_model(folder)`) and "
            "save it as one file:\n\n    model.save('model.keras')"
            "   # with Keras 3\n    model.save('model.h5')      # with Keras 2"
        )
    if path.suffix not in MODEL_SUFFIXES or not path.is_file():
        raise ValueError(
            f"'{path}' is not a .keras file that exists, nor an .h5 file. Save "
            "the model with `model.save('model.keras')`."
        )
    with path.open("rb") as file:
        magic = file.read(8)
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):
        raise ValueError(
            f"'{path}' is not a readable .keras file: it is no zip archive."
        )
    if path.suffix != ".keras" and magic != b"\x89HDF\r\n\x1a\n":
        raise ValueError(
            f"'{path}' is not a readable {path.suffix} file: it is no HDF5 "
            "file."
        )


def _why_not_loaded(path, error):
    what = failures.first_line(error)
    if isinstance(error, MemoryError) or "OOM when" in what:
        return f"'{path}' needs more memory than there is: {what}"
    missing = _UNKNOWN.search(str(error))
    if missing:
        return (
            f"'{path}' cannot be loaded: {missing[0]}.\nClasses of your "
            "own must be registered by a module that `--import` names."
        )
    if "ambda" in what:
        return (
            f"'{path}' cannot be loaded: {what}\nA Lambda layer is Python "
            "code, which is not run from files. Make it a registered layer, "
            "or an operation of `keras.ops`."
        )
    hint = ""
    if path.suffix != ".keras":
        hint = "\nOf files of Keras 2: docs/howto/old_models.md."
    return f"'{path}' is not a readable {path.suffix} file: {what}{hint}"


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
        found = set(ArrayFile(path).names)
    except ValueError:
        return True  # `load_inputs` says what is wrong
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
    file = ArrayFile(path)
    if file.is_archive:
        arrays = {name: file.read(name) for name in file.names}
    else:
        arrays = {names[0]: file.read()}
    if any(array.ndim == 0 for array in arrays.values()):
        raise ValueError(
            f"'{path}' holds single numbers. Expected arrays with an axis of "
            "samples."
        )
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
    counts = {len(array) for array in chosen}
    if len(counts) > 1:
        raise ValueError(
            f"'{path}' must have as many samples of each input. Received: "
            f"{sorted(counts)}"
        )
    return chosen[0] if len(chosen) == 1 else chosen
