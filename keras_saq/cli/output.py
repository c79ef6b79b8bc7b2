"""Where results and progress go."""

import contextlib
import os
import sys
import warnings

from keras_saq.plain_text import printable_lines
from keras_saq.whole_file import replaced_path
from keras_saq.whole_file import target


@contextlib.contextmanager
def progress_apart(apart):
    """With `apart`, what is printed inside goes to standard error."""
    if not apart:
        yield
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield


def say(text, file=None):
    """Prints a message without what a terminal would obey."""
    print(printable_lines(str(text)), file=file or sys.stderr)


def show(result, as_json=False):
    """Prints a result: as JSON, or as the page of text that it is."""
    text = result.to_json() if as_json else str(result)
    print(printable_lines(text))


def verbosity():
    """Keras's `verbose`: a bar for people, lines for files and pipes."""
    return 1 if sys.stdout.isatty() else 2


def progress(total, label):
    """A bar; returns `function(count)` that moves it on."""
    import keras

    print(f"{label} ...", flush=True)
    bar = keras.utils.Progbar(total, verbose=verbosity(), unit_name="sample")
    return bar.add


def make_folder(path):
    """Makes a folder that can be written to, or raises."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"The folder '{path}' cannot be made: {error}"
        ) from error
    if not os.access(path, os.W_OK):
        raise ValueError(f"The folder '{path}' is not writable.")


def check_file(path, suffix):
    """Raises if a file cannot be written later, before hours of work."""
    if path.suffix != suffix:
        raise ValueError(
            f"The name of the file to write must end in '{suffix}'. "
            f"Received: '{path}'"
        )
    if path.is_dir():
        raise ValueError(f"'{path}' is a folder.")
    folder = target(path).parent
    if not folder.is_dir():
        raise ValueError(f"The folder of '{path}' does not exist.")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"The folder of '{path}' is not writable.")


def save_model(model, path):
    """Saves a `.keras` file that appears whole or not at all."""
    with replaced_path(path) as temporary, warnings.catch_warnings():
        # Of a class of its own, which is calibrated later, Keras thinks so.
        # Its layers are built.
        warnings.filterwarnings("ignore", ".*has not yet been built")
        model.save(temporary)
