"""What a file will be like, said before a training instead of after it."""

import dataclasses

import keras

from keras_saq.export.fragments import find_groups
from keras_saq.export.lowering.fragment import find_refused
from keras_saq.export.lowering.rules import why_float
from keras_saq.export.refusals import find_impossible
from keras_saq.export.wording import class_name
from keras_saq.layers import roles
from keras_saq.models.graph import Graph


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What an export of a quantized model would say of its layers.

    Attributes:
        refused: lines, one for each layer that no file can hold: its path, its
            class and the reason.
        islands: `(path, class, reason)` of each layer or operation that has no
            integer kernel and becomes a float island.
    """

    refused: tuple = ()
    islands: tuple = ()


def forecast(model):
    """The `Forecast` of a quantized model, calibrated or not.

    Nothing is converted, but for layers and operations that the library does
    not know: whether LiteRT has them shows only then. Where Keras does not run
    on TensorFlow that takes a process of its own, and is left to the export.

    Args:
        model: a model from `keras_saq.quantize_model`.

    Example:

    >>> import keras, keras_saq
    >>> from keras_saq.export.forecast import forecast
    >>> inputs = keras.Input((4, 4, 2))
    >>> x = keras.layers.Conv2D(2, 3, padding="same")(inputs)
    >>> x = keras.layers.UpSampling2D(interpolation="bicubic")(x)
    >>> model = keras.Model(inputs, keras.layers.Conv2D(2, 1)(x))
    >>> q = keras_saq.quantize_model(model, "w8a8")
    >>> [path for path, *_ in forecast(q).islands]
    ['up_sampling2d']
    """
    try:
        graph = Graph(model)
    except ValueError as error:
        return Forecast((f"  {model.name}: {error}",))
    refused = find_impossible(graph)
    found = find_groups(graph, why_float)
    groups = {id(group): group for group in found.values()}.values()
    if keras.backend.backend() == "tensorflow" and not refused:
        for group in groups:
            if any(roles.find(site.operation) is None for site in group.sites):
                refused |= find_refused(group)
    islands = [
        (site.path, class_name(site.operation), reason)
        for group in groups
        for site, reason in zip(group.sites, group.reasons)
        # Masks and indices are no numbers that could be integers instead.
        if any(value.is_real for value in site.outputs)
        and site.path not in refused
    ]
    return Forecast(tuple(refused.values()), tuple(dict.fromkeys(islands)))
