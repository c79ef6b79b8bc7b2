"""The process that converts for backends without a converter."""

import os
import pickle
import sys

import keras
from keras import tree

from keras_saq.export.fragments.convert import convert
from keras_saq.export.fragments.fragment import ConversionError
from keras_saq.export.fragments.parcel import Place
from keras_saq.models.copy import own_variables
from keras_saq.models.descent import Call
from keras_saq.models.graph import Site
from keras_saq.models.graph import Value


def answer(parcel):
    """What a `Fragment` is made of, or a text that says why there is none."""
    values = {}

    def value_of(number, shape, dtype):
        if number not in values:
            values[number] = Value(tuple(shape), None, f"value_{number}", dtype)
        return values[number]

    inputs = [value_of(*entry) for entry in parcel.inputs]
    sites = [_site(site, values, value_of) for site in parcel.sites]
    outputs = [value_of(*entry) for entry in parcel.outputs]
    try:
        fragment = convert(sites, inputs, outputs)
    except ConversionError as error:
        return str(error)
    return fragment.content, fragment.operators, fragment.single_sample


def _site(parcelled, values, value_of):
    operation = keras.saving.deserialize_keras_object(parcelled.config)
    if isinstance(operation, keras.layers.Layer):
        if not operation.built:
            operation.build_from_config(parcelled.build)
        for variable, value in zip(
            own_variables(operation), parcelled.weights, strict=True
        ):
            variable.assign(value)
    tensors = {}

    def unpack(argument):
        if not isinstance(argument, Place):
            return argument
        return tensors.setdefault(
            argument.number, keras.KerasTensor(argument.shape, argument.dtype)
        )

    args, kwargs = tree.map_structure(
        unpack, (parcelled.args, parcelled.kwargs)
    )
    masks = [(unpack(tensor), unpack(mask)) for tensor, mask in parcelled.masks]
    call = Call(args, kwargs, masks=masks)
    inputs = [values[number] for number in parcelled.inputs]
    outputs = [value_of(*entry) for entry in parcelled.outputs]
    return Site(operation, operation.name, inputs, outputs, call=call)


def main():
    requests = sys.stdin.buffer
    # Whatever else prints, prints elsewhere.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while len(size := requests.read(8)) == 8:
        parcel = pickle.loads(requests.read(int.from_bytes(size, "little")))
        try:
            made = answer(parcel)
        except Exception as error:  # whatever somebody's class may raise
            made = f"{type(error).__name__}: {error}"
        message = pickle.dumps(made)
        answers.write(len(message).to_bytes(8, "little") + message)
        answers.flush()


if __name__ == "__main__":
    main()
