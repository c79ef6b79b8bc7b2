"""What training needs besides weights: a strategy's memory, and seeds."""

import contextlib
import weakref

import h5py
import keras


@keras.saving.register_keras_serializable("keras_saq")
class TrainingState(keras.layers.Layer):
    """The variables that a strategy keeps, saved with the seeds of a model.

    Keras does not save the seeds of dropout. They are stored here, so that
    training that goes on from a file draws the masks that it would have.
    Where a file has no such state, nothing is changed.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.built = True
        # Not tracked twice.
        self.__dict__["_slots"] = {}
        # Two sums over the steps of an epoch: losses before and after ascents.
        self.ascent = self.add_weight(
            name="ascent",
            shape=(2,),
            initializer="zeros",
            dtype="float32",
            trainable=False,
            autocast=False,
            aggregation="mean",
        )
        self.__dict__["_owner"] = lambda: None

    def attach(self, model):
        """Sets the model whose seeds are saved; it is not a part of this."""
        self.__dict__["_owner"] = weakref.ref(model)

    def slot(self, name, shape):
        """A variable of zeros that is kept, made at the first call."""
        shape = tuple(shape)
        if name not in self._slots or (tuple(self._slots[name].shape) != shape):
            was_locked = self._tracker.locked
            self._tracker.unlock()
            self._slots[name] = self.add_weight(
                name=name,
                shape=shape,
                initializer="zeros",
                dtype="float32",
                trainable=False,
                autocast=False,
                aggregation="mean",
            )
            if was_locked:
                self._tracker.lock()
        return self._slots[name]

    def _kept(self):
        return {"ascent": self.ascent, **self._slots}

    def _seeds(self):
        model = self._owner()
        return [
            v
            for v in (model.non_trainable_variables if model else ())
            if v.name == "seed_generator_state"
        ]

    def save_own_variables(self, store):
        for name, variable in self._kept().items():
            store[name] = keras.ops.convert_to_numpy(variable)
        for i, seed in enumerate(self._seeds()):
            store[f"seed_{i}"] = keras.ops.convert_to_numpy(seed)

    def load_own_variables(self, store):
        for name, variable in self._kept().items():
            if name in store.keys():
                variable.assign(store[name])
        for i, seed in enumerate(self._seeds()):
            if f"seed_{i}" in store.keys():
                seed.assign(store[f"seed_{i}"])


@contextlib.contextmanager
def training_attached(model, filepath=None):
    """Inside, the model inside a `SAQModel` has its optimizer and its state.

    So that they are in the file of weights that is written for it, and the
    file is what the model inside would have written.

    Args:
        model: the `SAQModel`.
        filepath: a file to be read; only what it has is attached.
    """
    inside = model.model.__dict__
    given = {"training_state": model.training_state}
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and optimizer.built:
        given["optimizer"] = optimizer
    if filepath is not None:
        stored = _groups(filepath)
        given = {k: v for k, v in given.items() if k in stored}
    before = {name: inside[name] for name in given if name in inside}
    inside.update(given)
    try:
        yield
    finally:
        for name in given:
            inside.pop(name)
        inside.update(before)


def _groups(filepath):
    if not str(filepath).endswith(".h5"):
        return set()
    with h5py.File(filepath, "r") as file:
        return set(file)
