"""Where samples come from: a file of arrays, a folder of images, TFDS."""

import dataclasses
import pathlib
import re

import keras
import numpy as np

from keras_saq.data.arrays import ArrayFile
from keras_saq.data.images import SUFFIXES
from keras_saq.data.images import ImageFiles
from keras_saq.data.images import fit_image
from keras_saq.data.images import read_image
from keras_saq.data.samples import Samples
from keras_saq.integers import as_type

_TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "validation", "val", "valid")
_VERSION = re.compile(r"\d+\.[\d*]+\.[\d*]+")


def open_source(text, data_dir=None):
    """Finds a data set.

    Args:
        text: one of

            * a file `.npz` with arrays `x` and `y`, and, where there is test
              data, `x_test` and `y_test`,
            * a folder with a folder of images per class, or with such folders
              in `train/` and `test/` (or `training/`, `testing/`,
              `validation/`, `val/`, `valid/`, in any case). Folders without
              images are no classes, and hidden files are not read,
            * a data set of TensorFlow Datasets, such as `cifar10`, or a
              folder in which one was prepared,

            and after a colon the part that is for training, such as
            `cifar10:train[:10%]` with TensorFlow Datasets' syntax.
        data_dir: folder of TensorFlow Datasets.

    Returns:
        A source. It has `name`, `splits` (a tuple of names), `train_split`
        and `test_split` (`None` without test data), and
        `load(split, image_shape=None, limit=None, seed=0, progress=None)`,
        which returns `Samples`.

    Raises:
        ValueError: if there is no such data set, or it is no such thing.
        ImportError: if the package that reads it is not installed.

    Example:

    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from keras_saq.data import open_source
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "small.npz"
    >>> np.savez(path, x=np.zeros((6, 4)), y=np.arange(6) % 3)
    >>> source = open_source(str(path))
    >>> source.splits, len(source.load("train")), source.test_split
    (('train',), 6, None)
    """
    text = str(text)
    name, _, split = text.partition(":")
    version = _VERSION.match(split)
    if version:
        name = f"{name}:{version[0]}"
        split = split[version.end() :].removeprefix(":")
    path = pathlib.Path(name)
    if name.endswith((".npz", ".npy")):
        source = ArraySource(path)
    elif path.is_dir() and not any(path.rglob("dataset_info.json")):
        source = FolderSource(path)
    elif path.is_dir() or _may_be_tfds(name):
        from keras_saq.data.tfds_source import TfdsSource

        source = TfdsSource(name, data_dir)
    else:
        raise ValueError(
            f"'{name}' is no data set: there is no such file or folder. "
            "Expected an .npz, a folder with a folder of images per class, or "
            "the name of a data set of TensorFlow Datasets such as cifar10."
        )
    if split:
        source.train_split = split
    return source


def _may_be_tfds(name):
    return re.fullmatch(r"[a-zA-Z]\w*(/\w+)?(:[\d.*]+)?", name) is not None


def check_split(source, split):
    """Raises if a source has no such split."""
    if split not in source.splits:
        raise ValueError(
            f"'{source.name}' has no split '{split}'. It has: "
            f"{', '.join(source.splits)}."
        )


@dataclasses.dataclass
class ArraySource:
    """Arrays in an `.npz`."""

    path: pathlib.Path

    def __post_init__(self):
        self.name = str(self.path)
        self._file = ArrayFile(self.path, ".npz")
        if not self._file.is_archive:
            raise ValueError(
                f"'{self.path}' holds one array. Expected an .npz with arrays "
                "x and y: `np.savez(path, x=x, y=y)`."
            )
        names = set(self._file.names)
        pairs = {
            "train": (("x", "y"), ("x_train", "y_train")),
            "test": (("x_test", "y_test"),),
        }
        self._pairs = {
            split: pair
            for split, choices in pairs.items()
            for pair in choices
            if names.issuperset(pair)
        }
        if "train" not in self._pairs:
            raise ValueError(
                f"'{self.path}' must have arrays named x and y. It has: "
                f"{sorted(names)}"
            )
        self.splits = tuple(self._pairs)
        self.train_split = "train"
        self.test_split = "test" if "test" in self._pairs else None

    def load(self, split, image_shape=None, limit=None, seed=0, progress=None):
        """The samples of a split."""
        check_split(self, split)
        x, y = map(self._file.read, self._pairs[split])
        if x.ndim < 2 or y.ndim < 1 or len(x) != len(y) or not len(x):
            raise ValueError(
                f"'{self.path}' must have at least one sample in "
                f"{' and '.join(self._pairs[split])}, and as many labels. "
                f"Received shapes: {x.shape} and {y.shape}."
            )
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        for name, array in (("inputs", x), ("labels", y)):
            if array.dtype.kind not in "biuf":
                raise ValueError(
                    f"The {name} of '{self.path}' must be numbers. Received "
                    f"the type {array.dtype}."
                )
        samples = Samples(x, _plain_labels(y), self.name)
        if limit is not None:
            samples = samples.choose(limit, seed)
        if image_shape is None:
            return samples
        x = _resized(samples.x, image_shape)
        return dataclasses.replace(samples, x=x)


def _plain_labels(y):
    if y.dtype.kind in "iub":
        return as_type(y, "int32", "the labels")
    return y.astype("float32")


def _resized(x, shape):
    """Images in another size; of other inputs nothing is changed."""
    wanted = tuple(w or a for a, w in zip(x.shape[1:], shape))
    if x.ndim != 4 or len(shape) != 3 or x.shape[1:] == wanted:
        return x
    if x.dtype == np.uint8:
        return np.stack([fit_image(image, wanted) for image in x])
    if x.shape[3] != wanted[2]:
        raise ValueError(
            f"The model's inputs have {wanted[2]} channels, and the data have "
            f"{x.shape[3]}. Only images of bytes (uint8) are converted."
        )
    return np.concatenate(
        [
            keras.ops.convert_to_numpy(
                keras.ops.image.resize(
                    part.astype("float32"),
                    wanted[:2],
                    antialias=True,
                    data_format="channels_last",
                )
            )
            for part in np.array_split(x, -(-len(x) // 256))
        ]
    )


@dataclasses.dataclass
class FolderSource:
    """Image files in a folder per class."""

    path: pathlib.Path

    def __post_init__(self):
        self.name = str(self.path)
        folders = _split_folders(self.path)
        trains = [name for name in _TRAIN_NAMES if name in folders]
        tests = [name for name in TEST_NAMES if name in folders and trains]
        if len(trains) > 1:
            raise ValueError(
                f"The folder '{self.path}' has both train and training. "
                "Expected one of them."
            )
        self._folders = {n: folders[n] for n in (*trains, *tests)}
        if not trains:
            self._folders = {"train": self.path}
        self.splits = tuple(self._folders)
        self.train_split = self.splits[0]
        self.test_split = tests[0] if tests else None
        root = self._folders[self.train_split]
        self.class_names = tuple(p.name for p in _class_folders(root))
        if not _folders(root):
            raise ValueError(
                f"The folder '{root}' has no folders. Expected one per class, "
                "with the images of that class: folder/cat/1.png."
            )
        if not self.class_names:
            names = [p.name for p in _folders(root)]
            raise ValueError(
                f"The folder '{root}' has no images. Expected files "
                f"{', '.join('*' + s for s in SUFFIXES)} in the folders "
                f"{names}."
            )

    def load(self, split, image_shape=None, limit=None, seed=0, progress=None):
        """The samples of a split."""
        check_split(self, split)
        root = self._folders[split]
        names = [p.name for p in _class_folders(root)]
        if not names:
            raise ValueError(
                f"The folder '{root}' has no images in folders of classes, so "
                "there are no labels. Expected one folder per class, with its "
                f"images: {root.name}/{self.class_names[0]}/1.png. Without "
                "such test data train with `--test-split=none`."
            )
        unknown = sorted(set(names) - set(self.class_names))
        if unknown:
            raise ValueError(
                f"The folder '{root}' has the classes {unknown}, which the "
                f"training data lack. Expected some of: "
                f"{list(self.class_names)}."
            )
        paths, labels = [], []
        for name in names:
            found = sorted(_images(root / name))
            paths += found
            labels += [self.class_names.index(name)] * len(found)
        # The first tells what a model that takes any size will get.
        shape = read_image(paths[0], image_shape or (None,) * 3).shape
        samples = Samples(
            ImageFiles(paths, shape),
            np.array(labels, "int32"),
            self.name,
            self.class_names,
        )
        if limit is not None:
            samples = samples.choose(limit, seed)
        bar = progress and progress(len(samples), f"reading {root}")
        return dataclasses.replace(samples, x=samples.x.kept(bar))


def _split_folders(path):
    """Dict from the names of splits, in lower case, to their folders."""
    found = {}
    for folder in _folders(path):
        name = folder.name.lower()
        if name not in (*_TRAIN_NAMES, *TEST_NAMES):
            continue
        if name in found:
            raise ValueError(
                f"The folder '{path}' has both {found[name].name} and "
                f"{folder.name}. Expected one of them."
            )
        found[name] = folder
    return found


def _class_folders(path):
    """The folders with images."""
    return [p for p in _folders(path) if next(_images(p), None)]


def _images(path):
    """Image files below a folder, without what is hidden."""
    for file in path.rglob("*"):
        if file.suffix.lower() not in SUFFIXES or not file.is_file():
            continue
        if not any(p.startswith(".") for p in file.relative_to(path).parts):
            yield file


def _folders(path):
    return sorted(
        p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")
    )
