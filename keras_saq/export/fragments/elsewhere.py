"""Converts on a backend that has no converter, in a process that has one.

The sites go there as configurations and arrays, and come back as bytes. The
process is started when the first fragment needs it, and kept.
"""

import atexit
import os
import pickle
import subprocess
import sys
import tempfile

import keras
import numpy as np
from keras import ops
from keras import tree

from keras_saq.export.fragments.fragment import ConversionError
from keras_saq.export.fragments.fragment import Fragment
from keras_saq.export.fragments.parcel import Parcel
from keras_saq.export.fragments.parcel import ParcelledSite
from keras_saq.export.fragments.parcel import Place
from keras_saq.layers import Quantized
from keras_saq.layers.hidden import serialize_float

_child = None


def convert_elsewhere(sites, inputs, outputs):
    """`convert`, by a process whose backend is TensorFlow."""
    numbers = {}
    parcel = Parcel(
        [_packed(site, numbers) for site in sites],
        [(_number(v, numbers), v.shape, v.dtype) for v in inputs],
        [(_number(v, numbers), v.shape, v.dtype) for v in outputs],
    )
    answer = _ask(pickle.dumps(parcel))
    if isinstance(answer, str):
        raise ConversionError(answer)
    return Fragment(*answer)


def _number(value, numbers):
    return numbers.setdefault(id(value), len(numbers))


def _plain(config):
    """A configuration without Keras's containers, which know their layer."""
    if isinstance(config, dict):
        return {key: _plain(value) for key, value in config.items()}
    if isinstance(config, tuple):
        return tuple(map(_plain, config))
    if isinstance(config, list):
        return list(map(_plain, config))
    return config


def _packed(site, numbers):
    """A site as data that another process understands."""
    operation = site.operation
    is_layer = isinstance(operation, keras.layers.Layer)
    places = {}

    def pack(argument):
        if isinstance(argument, keras.KerasTensor):
            place = Place(len(places), argument.shape, argument.dtype)
            return places.setdefault(id(argument), place)
        if ops.is_tensor(argument):
            return ops.convert_to_numpy(argument)
        return argument

    args, kwargs = tree.map_structure(
        pack, (site.call.args, dict(site.call.kwargs))
    )
    args, kwargs = _plain((args, kwargs))
    masks = [(pack(t), pack(m)) for t, m in site.call.masks]
    if getattr(type(operation), "__module__", "") == "__main__":
        raise ConversionError(
            "its class is defined in the program that runs, where no other "
            "process finds it; move it into a module, or export on the "
            "TensorFlow backend"
        )
    return ParcelledSite(
        config=_plain(
            serialize_float(operation)
            if is_layer
            else keras.saving.serialize_keras_object(operation)
        ),
        build=_plain(operation.get_build_config()) if is_layer else None,
        weights=_weights(operation) if is_layer else [],
        args=args,
        kwargs=kwargs,
        masks=masks,
        inputs=[_number(value, numbers) for value in site.inputs],
        outputs=[(_number(v, numbers), v.shape, v.dtype) for v in site.outputs],
    )


def _weights(layer):
    """Values of all variables, the quantized ones as they are read."""
    read = {}
    for part in layer._flatten_layers():
        if isinstance(part, Quantized):
            read |= {id(v): value for v, value in part.overlaid_values()}
    from keras_saq.models.copy import own_variables

    return [
        np.asarray(ops.convert_to_numpy(read.get(id(v), v)))
        for v in own_variables(layer)
    ]


def _ask(message):
    child = _running()
    child.stdin.write(len(message).to_bytes(8, "little") + message)
    child.stdin.flush()
    size = child.stdout.read(8)
    if len(size) < 8:
        raise ConversionError(
            "the process with TensorFlow, which converts what has no integer "
            f"kernel, ended: {_last_line(child)}"
        )
    return pickle.loads(child.stdout.read(int.from_bytes(size, "little")))


def _running():
    global _child
    if _child is None or _child.poll() is not None:
        if _child is None:
            atexit.register(_stop)
        path = [entry or os.getcwd() for entry in sys.path]
        errors = tempfile.TemporaryFile()
        _child = subprocess.Popen(
            [sys.executable, "-m", "keras_saq.export.fragments.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={
                **os.environ,
                "KERAS_BACKEND": "tensorflow",
                "PYTHONPATH": os.pathsep.join(path),
            },
        )
        _child.errors = errors
    return _child


def _last_line(child):
    child.wait()
    child.errors.seek(0)
    lines = child.errors.read().decode(errors="replace").splitlines()
    return lines[-1] if lines else f"exit code {child.returncode}"


def _stop():
    if _child is not None and _child.poll() is None:
        _child.stdin.close()
        _child.stdout.close()
        _child.wait()
        _child.errors.close()
