"""The folder of a training run: what it was, how far it is, what came out.

.lock         while a process writes to it
run.json      settings, state and results, always valid
history.csv   one row per epoch
backup/       weights and optimizer after the last epoch, while it runs
model.keras   the model at the end
best.keras    the best epoch's, where there is validation data
"""

import contextlib
import csv
import hashlib
import io
import json
import pathlib
import re
import shutil

import keras

from keras_saq.cli import lock
from keras_saq.cli import output
from keras_saq.cli.lock import FolderLock
from keras_saq.untrusted import MISFITS
from keras_saq.untrusted import parse_json
from keras_saq.version import __version__
from keras_saq.whole_file import replaced

# What may be another at the second start: where things go, not what is done.
_FREE = ("export", "imports", "json", "model", "output", "teacher")
_BACKUP = re.compile(r"epoch-(\d+)\.weights\.h5")


class RunFolder:
    """Reads and writes the folder of a run.

    Args:
        path: the folder.
        command: the command line, a list.
        settings: dict of every flag, plain data.
        inputs: dict from a flag's name to a file that it names, whose content
            must stay the same too.

    Raises:
        ValueError: if the folder holds something else, or a run with other
            settings, or if another process is writing to it.
    """

    def __init__(self, path, command, settings, inputs):
        self.path = pathlib.Path(path)
        self.record = {
            "version": __version__,
            "command": command,
            "settings": settings,
            "fingerprints": {k: _fingerprint(p) for k, p in inputs.items()},
            "status": "running",
            "method": settings["method"],
            "seed": settings["seed"],
            "epochs_done": 0,
            "test": None,
            "float_test": None,
            "before_test": None,
            "seconds": 0.0,
        }
        self._lock = None
        if (self.path / "run.json").is_file():
            self._lock = FolderLock(self.path)
        try:
            found = self._read()
            # Where no epoch is done there is nothing to go on with or to lose.
            if found is not None and found["epochs_done"]:
                self._check_same(found)
                new = {"command": command, "settings": settings}
                self.record = {**found, **new}
        except BaseException:
            self.release()
            raise

    @property
    def is_finished(self):
        return self.record["status"] == "finished"

    @property
    def history(self):
        return self.path / "history.csv"

    def create(self):
        """Makes the folder, or goes on in it."""
        output.make_folder(self.path)
        if self._lock is None:
            self._lock = FolderLock(self.path)
            if self._read() is not None:
                raise ValueError(
                    f"Another process has begun a run in '{self.path}' in the "
                    "meantime. Give `--output` the name of another folder."
                )
        self.write(status="running")

    def release(self):
        """Gives the folder back to whoever wants to write to it."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def write(self, **values):
        """Updates the record and writes it whole."""
        self.record.update(values)
        text = json.dumps(self.record, indent=2, default=str) + "\n"
        with replaced(self.path / "run.json") as file:
            file.write(text.encode())

    # The state of training.

    def restore(self, model):
        """Loads the state after the last whole epoch into a compiled model.

        Returns:
            The number of epochs that are done.
        """
        epochs, path = self._last_backup()
        if path is not None:
            if not model.optimizer.built:
                model.optimizer.build(model.trainable_variables)
            try:
                model.load_weights(path)
            except Exception as error:  # of HDF5, of Keras
                raise ValueError(
                    f"The state in '{path}' cannot be read: {error}\nDelete "
                    f"the folder '{self.path}' to start from the beginning."
                ) from error
        self._cut_history(epochs)
        return epochs

    def backup(self, model, epochs):
        """Saves the state after an epoch; the older one goes then."""
        folder = self.path / "backup"
        folder.mkdir(exist_ok=True)
        part = folder / "part.weights.h5"
        model.save_weights(part)
        part.replace(folder / f"epoch-{epochs:05d}.weights.h5")
        for count, path in self._backups():
            if count < epochs:
                path.unlink()

    def finish(self, **values):
        """Marks the run as done and removes what only a restart needs."""
        self.write(status="finished", **values)
        shutil.rmtree(self.path / "backup", ignore_errors=True)
        # Half-written files of a run that was killed.
        for pattern in (".*.part.keras", ".*.part.json", ".*.part.csv"):
            for path in self.path.glob(pattern):
                path.unlink()

    def best_so_far(self, name, largest):
        """The best value of a column of the history, or `None`."""
        values = [float(r[name]) for r in self._rows() if r.get(name)]
        return (max if largest else min)(values, default=None)

    def _backups(self):
        folder = self.path / "backup"
        found = folder.iterdir() if folder.is_dir() else ()
        named = ((_BACKUP.fullmatch(p.name), p) for p in found)
        return [(int(match[1]), path) for match, path in named if match]

    def _last_backup(self):
        return max(self._backups(), default=(0, None))

    def _rows(self):
        if not self.history.is_file():
            return []
        with self.history.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def _cut_history(self, epochs):
        """Drops rows of epochs that will be trained again."""
        rows = self._rows()
        kept = [r for r in rows if (r["epoch"] or "").isdigit()]
        kept = [r for r in kept if int(r["epoch"]) < epochs]
        if len(kept) == len(rows):
            return
        if not kept:
            self.history.unlink()
            return
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(kept)
        with replaced(self.history) as file:
            file.write(text.getvalue().encode())

    # The folder as it was found.

    def _read(self):
        """The record that is there, or `None`."""
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"'{self.path}' is a file. Expected a folder.")
        record = self.path / "run.json"
        if not record.is_file():
            if self.path.is_dir() and any(
                p.name != lock.NAME for p in self.path.iterdir()
            ):
                raise ValueError(
                    f"The folder '{self.path}' is not empty and holds no run. "
                    "Give `--output` the name of a new folder."
                )
            return None
        try:
            found = parse_json(record.read_bytes())
            _check_record(found)
            return {**self.record, **found}
        except (OSError, *MISFITS) as error:
            raise ValueError(
                f"'{record}' is not the record of a run: {error}. Give "
                "`--output` the name of a new folder."
            ) from error

    def _check_same(self, found):
        there, here = found["settings"], self.record["settings"]
        names = sorted((there.keys() | here.keys()) - set(_FREE))
        rows = [
            f"  {_flag(name)}: {_value(there, name)} there, "
            f"{_value(here, name)} here"
            for name in names
            if json.dumps(there.get(name)) != json.dumps(here.get(name))
        ]
        prints = found["fingerprints"], self.record["fingerprints"]
        rows += [
            f"  {_flag(name)}: the file's content is another"
            for name in sorted(prints[0].keys() | prints[1].keys())
            if prints[0].get(name) != prints[1].get(name)
        ]
        if rows:
            raise ValueError(
                f"The folder '{self.path}' holds a run with other settings:\n"
                + "\n".join(rows)
                + "\nGive `--output` the name of a new folder, or the settings "
                f"of that run: `--config={self.path / 'run.json'}`."
            )


class EpochRecord(keras.callbacks.Callback):
    """Keeps a run's folder up to date; the last of all callbacks.

    Args:
        folder: the `RunFolder`.
        clock: `function()`, seconds of this run, interrupted parts included.
    """

    def __init__(self, folder, clock):
        super().__init__()
        self.folder = folder
        self.clock = clock

    def on_epoch_end(self, epoch, logs=None):
        if self.model.stop_training:  # the loss is not finite
            return
        self.folder.backup(self.model, epoch + 1)
        self.folder.write(epochs_done=epoch + 1, seconds=round(self.clock(), 1))


class BestModel(keras.callbacks.Callback):
    """Saves the model of the epoch with the best validation metric.

    Args:
        folder: the `RunFolder`.
        name: the metric's name in the logs.
        largest: whether the largest is the best.
        as_saved: `function()`, a context in which the model is saved.
    """

    def __init__(self, folder, name, largest, as_saved=contextlib.nullcontext):
        super().__init__()
        self.as_saved = as_saved
        self.folder = folder
        self.name = name
        self.largest = largest
        self.best = folder.best_so_far(name, largest)

    def on_epoch_end(self, epoch, logs=None):
        value = logs[self.name]
        if self.model.stop_training:
            return
        if self.best is not None and not (
            value > self.best if self.largest else value < self.best
        ):
            return
        self.best = value
        with self.as_saved():
            output.save_model(self.model.model, self.folder.path / "best.keras")
        self.folder.write(best={"epoch": epoch, self.name: float(value)})


def _fingerprint(path):
    path = pathlib.Path(path)
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_record(found):
    """Raises for a record of which a part is not what it was."""
    expected = {
        "settings": dict,
        "fingerprints": dict,
        "epochs_done": int,
        "seconds": (int, float),
        "status": str,
    }
    for name, kind in expected.items():
        value = found.get(name, kind() if isinstance(kind, type) else 0.0)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise TypeError(f"its '{name}' is {value!r}")
    if "settings" not in found:
        raise TypeError("it has no settings")


def _flag(name):
    return "--" + name.replace("_", "-")


def _value(settings, name):
    value = settings.get(name)
    return "not given" if value is None else value
