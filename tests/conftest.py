"""Shared by all tests."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def seed():
    """Every test starts from the same seed and an empty Keras state."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
