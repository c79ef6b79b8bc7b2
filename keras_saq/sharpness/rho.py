"""The radius of the perturbation: a number, or a schedule over updates."""

import keras
import numpy as np


def check_rho(rho):
    """Returns `rho` as a float or a schedule, or raises.

    A serialized schedule is deserialized.
    """
    schedule = keras.optimizers.schedules.LearningRateSchedule
    if isinstance(rho, dict):
        rho = keras.saving.deserialize_keras_object(rho)
    if isinstance(rho, schedule):
        return rho
    number = isinstance(rho, (int, float, np.number))
    if not number or isinstance(rho, bool) or not 0 <= rho < np.inf:
        raise ValueError(
            "`rho` must be a finite number that is not negative, or a "
            "`keras.optimizers.schedules.LearningRateSchedule`. "
            f"Received: rho={rho!r}"
        )
    return float(rho)


def serialize(rho):
    """What `check_rho` makes the same `rho` of again."""
    if isinstance(rho, float):
        return rho
    return keras.saving.serialize_keras_object(rho)


def value_at(rho, update_count):
    """The radius after a number of updates; never negative."""
    if isinstance(rho, float):
        return rho
    value = keras.ops.cast(rho(update_count), "float32")
    return keras.ops.maximum(value, 0.0)
