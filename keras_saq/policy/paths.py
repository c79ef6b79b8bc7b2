"""Where layers are in a model: the paths that rules are matched against."""

import keras

from keras_saq.quantizers import Quantizer


def layer_paths(model):
    """Every layer of a model, at any depth, with its path.

    A path is the name of the layer, behind the names of the models and
    composite layers that it is in, joined by `/`. The model itself has no
    part in it. A layer that is in two places has two paths, and appears
    twice. Quantizers are no layers of the model.

    Args:
        model: a Keras model, or a layer that consists of layers.

    Returns:
        List of `(path, layer)`, outer layers before those inside of them.

    Example:

    >>> import keras
    >>> from keras_saq.policy import layer_paths
    >>> logits = keras.layers.Dense(3, name="logits")
    >>> head = keras.Sequential([logits], name="head")
    >>> model = keras.Sequential([keras.Input((4,)), head])
    >>> [path for path, _ in layer_paths(model)]
    ['head', 'head/logits']
    """
    found = []

    def walk(outer, prefix, around):
        for layer in outer._flatten_layers(include_self=False, recursive=False):
            if isinstance(layer, Quantizer) or id(layer) in around:
                continue
            if isinstance(layer, keras.layers.InputLayer):
                continue
            path = f"{prefix}{layer.name}"
            found.append((path, layer))
            walk(layer, f"{path}/", around | {id(layer)})

    walk(model, "", {id(model)})
    return found
