"""Draws every picture of the documentation, with the library itself.

    python docs/pictures/draw.py [--only=grid,weights] [--models=FOLDER]

Trains the four networks of `networks.py` first, which takes a minute or two
on two CPU cores; with `--models` they are kept in that folder and read from
there the next time. Needs the extras `demo` and `docs`.
"""

import pathlib
import tempfile

import biases
import networks
import quantizer
import search
import sharpness
from absl import app
from absl import flags

PICTURES = {
    "grid": lambda models: quantizer.grid(),
    "weights": quantizer.weights,
    "scale-error": quantizer.scale_error,
    "bias-grid": biases.bias_grid,
    "landscape": sharpness.landscape,
    "cases": sharpness.cases,
    "front": search.front,
}

FLAGS = flags.FLAGS
flags.DEFINE_list("only", list(PICTURES), "Which pictures to draw.")
flags.DEFINE_string("models", None, "Folder to keep the trained models in.")


def main(argv):
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(FLAGS.models or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        models = networks.trained(folder)
        for name in FLAGS.only:
            PICTURES[name](models)


if __name__ == "__main__":
    app.run(main)
