"""Files that appear whole or not at all."""

import contextlib
import os
import pathlib
import stat
import tempfile


@contextlib.contextmanager
def replaced(path):
    """A binary file to write, which takes the place of `path` at the end.

    Where the block raises, nothing is left and an older file stays.

    Args:
        path: a path in a folder that exists. A link is followed.

    Raises:
        ValueError: if there is something that is no file, such as a folder
            or a device.
        OSError: if writing fails, on a full disk for example.

    Example:

    >>> import pathlib, tempfile
    >>> from keras_saq.whole_file import replaced
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "numbers.bin"
    >>> with replaced(path) as file:
    ...     written = file.write(bytes(3))
    >>> path.stat().st_size
    3
    """
    with replaced_path(path) as temporary, temporary.open("wb") as file:
        yield file


@contextlib.contextmanager
def replaced_path(path):
    """As `replaced`, for what writes a file by its name.

    The name that is given to the block ends as `path` does.

    Example:

    >>> import pathlib, tempfile
    >>> from keras_saq.whole_file import replaced_path
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "note.txt"
    >>> with replaced_path(path) as temporary:
    ...     written = temporary.write_text("done")
    >>> path.read_text()
    'done'
    """
    path = target(path)
    handle, temporary = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.stem}.", suffix=f".part{path.suffix}"
    )
    os.close(handle)
    temporary = pathlib.Path(temporary)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def target(path):
    """Where what is written to a path goes: links are followed.

    Raises:
        ValueError: if there is something that is no file.

    Example:

    >>> from keras_saq.whole_file import target
    >>> target("/dev/null")
    Traceback (most recent call last):
        ...
    ValueError: '/dev/null' is no file that could be replaced.
    """
    resolved = pathlib.Path(os.path.realpath(path))
    try:
        mode = resolved.lstat().st_mode
    except OSError:
        return resolved  # nothing is there
    if not stat.S_ISREG(mode):
        raise ValueError(f"'{path}' is no file that could be replaced.")
    return resolved
