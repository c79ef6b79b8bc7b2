"""The flags that say which data a command reads, and how."""

import numpy as np

from keras_saq.cli import arguments
from keras_saq.cli import output

DATA_HELP = (
    "a data set of TensorFlow Datasets such as cifar10 or "
    "'cifar10:train[:10%%]', a folder with a folder of images per class, or "
    "an .npz with arrays x and y"
)


def add_preprocessing(parser):
    """How inputs are read and what is done with them."""
    parser.add_argument(
        "--data-dir", metavar="DIR", help="folder of TensorFlow Datasets"
    )
    parser.add_argument(
        "--image-size",
        type=arguments.size,
        metavar="H,W",
        help="resize images to this (default: the size of the model's input)",
    )
    parser.add_argument(
        "--scale",
        type=arguments.number,
        default=1.0,
        help="what inputs are multiplied with, such as 1/255 (default: 1)",
    )
    parser.add_argument(
        "--mean",
        type=arguments.numbers,
        default=(0.0,),
        help="what is subtracted after that, one number or one per channel "
        "(default: 0)",
    )
    parser.add_argument(
        "--std",
        type=arguments.numbers,
        default=(1.0,),
        help="what the difference is divided by (default: 1)",
    )


def preprocessing(args):
    """The `Preprocessing` that the flags say."""
    from keras_saq.data import Preprocessing

    mean, std = (v if len(v) > 1 else v[0] for v in (args.mean, args.std))
    return Preprocessing(args.scale, mean, std)


def image_shape(args, model):
    """Shape of the images that a model wants, or `None`.

    `None` inside it: any size will do.
    """
    shape = input_shape(model)
    if shape is None or len(shape) != 3:
        return None
    return (*(args.image_size or shape[:2]), shape[2])


def input_shape(model):
    """Shape of one input of a model; `None` where the model does not say.

    Raises:
        ValueError: if the model has several inputs.
    """
    inputs = getattr(model, "inputs", None)
    if not inputs:
        return None
    if len(inputs) > 1:
        raise ValueError(
            f"The model '{model.name}' has {len(inputs)} inputs. Data sets of "
            "the command line have one; train it in Python: "
            "`keras_saq.SAQModel(model).fit(...)`."
        )
    return tuple(inputs[0].shape[1:])


def load(source, split, args, model, limit=None):
    """Samples of a split in the shape that a model wants.

    Raises:
        ValueError: if they do not fit.
    """
    samples = source.load(
        split,
        image_shape(args, model),
        limit=limit,
        seed=getattr(args, "seed", 0),
        progress=output.progress,
    )
    expected, received = input_shape(model), tuple(samples.x.shape[1:])
    if expected is not None and (
        len(expected) != len(received)
        or any(e not in (None, r) for e, r in zip(expected, received))
    ):
        raise ValueError(
            f"The model '{model.name}' takes inputs of shape {expected}, and "
            f"those of '{source.name}' have shape {received}."
        )
    _check_finite(samples)
    return samples


def _check_finite(samples):
    """Raises for NaN, which ReLUs would turn into zeros silently."""
    for name, array in (("inputs", samples.x), ("labels", samples.y)):
        if array.dtype.kind == "f":
            axes = tuple(range(1, array.ndim))
            bad = np.flatnonzero(~np.isfinite(array).all(axes))
            if len(bad):
                raise ValueError(
                    f"The {name} of '{samples.name}' must be finite. Received "
                    f"NaN or infinity in {len(bad)} of {len(samples)} samples, "
                    f"the first of which is number {bad[0]}."
                )
