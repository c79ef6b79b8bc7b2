"""The handwritten digits that come with scikit-learn: 8x8, no download."""

import dataclasses

import numpy as np

_NUM_TEST = 497


@dataclasses.dataclass(frozen=True)
class Digits:
    """The digits, split once and for all.

    Attributes:
        x_train, y_train: 1300 images `(8, 8, 1)` in [0, 1] and their labels.
        x_test, y_test: 497 more.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def load_digits():
    """Loads the digits (Alpaydin and Kaynak 1998, UCI repository).

    Returns:
        A `Digits`; the split is stratified and always the same.

    Raises:
        ImportError: if scikit-learn is missing.
    """
    try:
        from sklearn import datasets
        from sklearn import model_selection
    except ImportError as error:
        raise ImportError(
            "The digits come with scikit-learn, which is not installed. "
            'Install it with `pip install "keras-saq[demo]"`.'
        ) from error
    data = datasets.load_digits()
    images = (data.images / 16).astype("float32")[..., None]
    labels = data.target.astype("int32")
    x_train, x_test, y_train, y_test = model_selection.train_test_split(
        images, labels, test_size=_NUM_TEST, random_state=0, stratify=labels
    )
    return Digits(x_train, y_train, x_test, y_test)
