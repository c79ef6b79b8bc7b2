"""Runs an example in this process, with flags of its own."""

import contextlib
import importlib.util
import pathlib

from absl import flags
from absl.testing import flagsaver

FOLDER = pathlib.Path(__file__).parents[2] / "examples"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))


@contextlib.contextmanager
def example(name, *arguments):
    """The module of an example, its flags defined and parsed.

    Args:
        name: of the file, without `.py`.
        *arguments: as on the command line.
    """
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with flagsaver.flagsaver():  # takes away what is defined inside
        module.define_flags()
        flags.FLAGS([name, *arguments])
        yield module


def run(name, *arguments):
    with example(name, *arguments) as module:
        module.main([name])
