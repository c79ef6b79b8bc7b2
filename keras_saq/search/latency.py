"""Seconds of single layers, measured, as the cost of a search.

A table has the time of each kind of layer at each size. It is measured with
the LiteRT interpreter on the machine at hand, on files of one layer each that
this library writes. In an integer file activations are int8 tensors whatever
their bits, and weights take 8, 4 or 2 bits (see
`keras_saq.layers.storage.storage_bits`), so a layer has up to three times.
"""

import dataclasses
import json
import os
import pathlib
import platform
import statistics
import tempfile
import time
import warnings

import keras
import numpy as np

from keras_saq.layers import roles
from keras_saq.layers.storage import storage_bits
from keras_saq.models import quantize_model
from keras_saq.models.model import EXPORTERS
from keras_saq.policy import QuantizePolicy
from keras_saq.search.space import SearchSpace
from keras_saq.untrusted import MISFITS
from keras_saq.untrusted import parse_json
from keras_saq.whole_file import replaced

_WARM_UP = 5
# What a kernel's time depends on, beside the shapes.
_SETTINGS = (
    "strides",
    "padding",
    "dilation_rate",
    "groups",
    "depth_multiplier",
    "equation",
)


@dataclasses.dataclass(frozen=True)
class LatencyTable:
    """Seconds by kind and size of a layer, and by bits of its weights.

    Attributes:
        seconds_by_layer: dict from a layer's key (see `layer_key`) to a dict
            from the bits in which its weights are stored to seconds.
        machine: what it was measured on.
        threads: threads of the interpreter.

    Example:

    >>> from keras_saq.search import LatencyTable
    >>> table = LatencyTable({"Dense 64": {8: 2e-6, 4: 3e-6}}, "mine", 1)
    >>> LatencyTable.from_json(table.to_json()) == table
    True
    """

    seconds_by_layer: dict
    machine: str = ""
    threads: int = 1

    def seconds(self, layer, site, weight_bits, input_bits):
        """Seconds of one call of a layer.

        Args:
            layer: a layer.
            site: its `Site`, which has the size of the input.
            weight_bits: bits of its weights.
            input_bits: bits of what it reads; all are bytes in the file.
        """
        entry = self.seconds_by_layer[layer_key(layer, site)]
        return entry[storage_bits(layer, weight_bits)]

    def check(self, space):
        """Raises unless all layers of a search space are in the table."""
        missing = []
        for site in space.sites:
            if site.site is None:
                continue
            bits = (site.weight_bits,)
            if site.weights is not None:
                bits = space.groups[site.weights].bits
            entry = self.seconds_by_layer.get(
                layer_key(site.layer, site.site), {}
            )
            stored = {storage_bits(site.layer, b) for b in bits}
            if stored - entry.keys():
                missing.append(f"{site.path} ({sorted(stored)} bits)")
        if missing:
            raise ValueError(
                f"The latency table lacks {len(missing)} layers of the model, "
                f"such as {', '.join(missing[:3])}. Measure it for this model:"
                "\n\n    table = keras_saq.search.measure_latency(model)\n\n"
                "or `keras-saq latency model.keras --output=table.json`."
            )

    def to_json(self):
        """The table as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text):
        """The table that `to_json` wrote."""
        try:
            fields = parse_json(text)
            fields["seconds_by_layer"] = {
                key: {int(bits): float(s) for bits, s in entry.items()}
                for key, entry in fields["seconds_by_layer"].items()
            }
            return cls(**fields)
        except MISFITS as error:
            raise ValueError(
                f"This is not a latency table of keras_saq: {error!r}. "
                "Expected JSON as written by `LatencyTable.save`."
            ) from error

    def save(self, path):
        """Writes the table as JSON."""
        with replaced(path) as file:
            file.write(self.to_json().encode())

    @classmethod
    def load(cls, path):
        """Reads a table that `save` wrote."""
        try:
            content = pathlib.Path(path).read_bytes()
        except OSError as error:
            raise ValueError(
                f"The latency table cannot be read: {error}"
            ) from error
        return cls.from_json(content)


def as_table(table):
    """A `LatencyTable`, of one or of its file."""
    if isinstance(table, LatencyTable):
        return table
    if isinstance(table, (str, os.PathLike)):
        return LatencyTable.load(table)
    raise ValueError(
        "`latency_table` must be a `keras_saq.search.LatencyTable` or the "
        f"path of its .json. Received: {table!r} of type "
        f"{type(table).__name__}"
    )


def layer_key(layer, site):
    """Text that says what a layer's time depends on, but for the bits."""
    config = layer.get_config()
    parts = [f"{type(layer).__name__} input {list(site.inputs[0].shape[1:])}"]
    parts.append(f"output {list(site.outputs[0].shape[1:])}")
    shapes = [list(v.shape) for v in layer.weights if len(v.shape) > 1]
    parts.append(f"weights {shapes}")
    for name in _SETTINGS:
        value = config.get(name)
        if value is not None:
            value = list(value) if isinstance(value, tuple) else value
            parts.append(f"{name} {value}")
    return ", ".join(parts)


def measure_latency(
    model, weight_bits=(2, 4, 8), threads=1, runs=50, verbose=1
):
    """Measures a `LatencyTable` for the layers of a model.

    Args:
        model: a built float model with a static input size.
        weight_bits: bits of weights that shall be in the table.
        threads: threads of the interpreter.
        runs: inferences per layer and bits; the median counts.
        verbose: 1 for a progress bar, 0 for none.

    Returns:
        A `LatencyTable`, in seconds. Layers that have no integer kernel are
        not in it.

    Example:

    >>> import keras
    >>> from keras_saq.search import measure_latency
    >>> inputs = keras.Input((16,))
    >>> model = keras.Model(inputs, keras.layers.Dense(4)(inputs))
    >>> table = measure_latency(model, weight_bits=(8,), runs=3, verbose=0)
    >>> [seconds > 0 for entry in table.seconds_by_layer.values()
    ...  for seconds in entry.values()]
    [True]
    """
    sites = {}
    space = SearchSpace(model, tuple(weight_bits), target="litert")
    for site in space.sites:
        if site.site is not None:
            sites.setdefault(layer_key(site.layer, site.site), site)
    progress = keras.utils.Progbar(len(sites), verbose=verbose)
    table = {}
    for key, site in sites.items():
        stored = {storage_bits(site.layer, b) for b in (*weight_bits, 8)}
        entry = {}
        for bits in sorted(stored):
            content = _single_layer_file(site.layer, site.site, bits)
            if content is not None:
                entry[bits] = _seconds(content, threads, runs)
        if entry:
            table[key] = entry
        progress.add(1)
    machine = f"{platform.machine()} {platform.processor()}".strip()
    return LatencyTable(table, machine, threads)


def _single_layer_file(layer, site, bits):
    """Bytes of an integer file of one layer; `None` if there is none."""
    value = site.inputs[0]
    config = layer.get_config()
    if roles.activation_is_last(layer):
        config["activation"] = "linear"
    inputs = keras.Input(value.shape[1:], dtype=value.dtype)
    single = keras.Model(inputs, type(layer).from_config(config)(inputs))
    policy = QuantizePolicy.preset(f"w{bits}a8", first_last_bits=None)
    rng = np.random.default_rng(0)
    shape = (2, *value.shape[1:])
    x = rng.normal(size=shape) if value.is_real else np.zeros(shape)
    try:
        with warnings.catch_warnings():
            # About random weights, which nobody will use.
            warnings.simplefilter("ignore")
            q = quantize_model(
                single, policy, calibration=x.astype(value.dtype)
            )
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "layer.tflite"
            EXPORTERS["litert"](q, path, input_type="int8", output_type="int8")
            return path.read_bytes()
    except ValueError:
        return None


def _seconds(content, threads, runs):
    """Median time of the integer operators, without the conversions."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=threads)
    interpreter.allocate_tensors()
    for _ in range(_WARM_UP):
        interpreter.invoke()
    found = []
    for _ in range(runs):
        start = time.perf_counter()
        interpreter.invoke()
        found.append(time.perf_counter() - start)
    return statistics.median(found)
