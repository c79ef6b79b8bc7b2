"""Checkpoints of a search: it goes on where it was stopped."""

import json
import pathlib

import keras
import numpy as np
from keras import ops

from keras_saq.tensorboard import ScalarWriter
from keras_saq.whole_file import replaced


class SearchCheckpoint(keras.callbacks.Callback):
    """Writes the state of a search after each epoch, whole or not at all.

    Args:
        folder: where `search.npz` goes; made if it is not there.
        settings: plain data that says which search it is; a file of another
            search is refused.

    Attributes:
        state: plain data that is stored with it.
    """

    def __init__(self, folder, settings):
        super().__init__()
        self._folder = pathlib.Path(folder)
        self._settings = json.dumps(settings, sort_keys=True, default=str)
        self.state = {}

    @property
    def path(self):
        return self._folder / "search.npz"

    def restore(self, model):
        """Reads the state, if there is one.

        Args:
            model: the compiled trainer.

        Returns:
            `(epochs that are done, the plain data)`.
        """
        if not self.path.exists():
            return 0, {}
        try:
            with np.load(self.path, allow_pickle=False) as file:
                stored = dict(file)
            settings = str(stored["settings"])
        except Exception as error:  # of zip, zlib, NumPy
            raise ValueError(
                f"The checkpoint '{self.path}' cannot be read: {error!r}. "
                "Give another folder, or delete the file."
            ) from error
        if settings != self._settings:
            raise ValueError(
                f"The checkpoint {self.path} is of another search. Its "
                f"settings: {stored['settings']}. Those of this one: "
                f"{self._settings}. Give another folder, or delete the file."
            )
        variables = _variables(model)
        for i, variable in enumerate(variables):
            variable.assign(stored[f"variable_{i}"])
        history = json.loads(str(stored["history"]))
        return int(stored["epochs"]), history

    def on_epoch_end(self, epoch, logs=None):
        self._folder.mkdir(parents=True, exist_ok=True)
        arrays = {
            f"variable_{i}": ops.convert_to_numpy(variable)
            for i, variable in enumerate(_variables(self.model))
        }
        history = json.dumps(self.state)
        with replaced(self.path) as file:
            np.savez(
                file,
                settings=self._settings,
                epochs=epoch + 1,
                history=history,
                **arrays,
            )


def _variables(model):
    """Everything that a step reads and changes, in a fixed order."""
    model.optimizer.build(model.trainable_variables)
    return [*model.variables, *model.optimizer.variables]


class ProbabilityHistory(keras.callbacks.Callback):
    """Notes the probabilities of every group after each epoch.

    Args:
        supernet: the `Supernet`.
        log_dir: a folder for TensorBoard, which then shows a curve for each
            group and candidate; `None` for none. Needs TensorFlow.

    Attributes:
        epochs: list, one entry an epoch, of lists of arrays.
    """

    def __init__(self, supernet, log_dir=None):
        super().__init__()
        self._supernet = supernet
        self._log_dir = log_dir
        self._writer = None
        self.epochs = []

    def on_epoch_end(self, epoch, logs=None):
        probabilities = self._supernet.probabilities()
        self.epochs.append([p.tolist() for p in probabilities])
        if self._log_dir is None:
            return
        if self._writer is None:
            self._writer = ScalarWriter(self._log_dir)
        curves = {f"search/{k}": value for k, value in (logs or {}).items()}
        for group, values in zip(self._supernet.space.groups, probabilities):
            for bits, value in zip(group.bits, values):
                curves[f"{group.name}/{bits} bits"] = value
        self._writer.write(curves, epoch)

    def on_train_end(self, logs=None):
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Recorder(keras.callbacks.Callback):
    """Adds the logs of each epoch to a dict of lists."""

    def __init__(self, history):
        super().__init__()
        self._history = history

    def on_epoch_end(self, epoch, logs=None):
        for name, value in (logs or {}).items():
            self._history.setdefault(name, []).append(float(value))
