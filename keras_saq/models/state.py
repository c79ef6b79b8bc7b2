"""What a layer holds beyond its settings, from a model to its copy.

Variables are one part of it. Others are what `adapt` found: vocabularies,
bin boundaries, tensors that were computed from variables. Keras's own way to
write and read a layer's state (`save_own_variables`, `save_assets`) is the
way that any layer with such state knows, so the copy takes it on that way.
Whether a layer is trainable is state, too.
"""

import contextlib
import tempfile

import keras
from keras import ops

from keras_saq.layers import Quantized
from keras_saq.layers.hidden import float_class
from keras_saq.layers.hidden import places
from keras_saq.layers.roles import is_weighted
from keras_saq.quantizers import Quantizer

# What `Discretization` has in no variable and in no asset.
_ATTRIBUTES = ("bin_boundaries", "summary")


def pairs(layer, copy):
    """A layer and every layer in it, each beside its copy."""
    copies = places(copy)
    found = [(layer, copy)]
    for place, part in places(layer).items():
        if place in copies:
            found.append((part, copies[place]))
    return found


def copy_other_state(layer, copy):
    """Gives a copy what a layer holds and what is in no variable.

    Args:
        layer: a built layer.
        copy: its copy, built.
    """
    for source, target in pairs(layer, copy):
        source_class = float_class(type(source))
        if source_class is not float_class(type(target)):
            continue
        if _overrides(source_class, "load_own_variables"):
            # Of layers with kernels the variables are all there is.
            if not is_weighted(source):
                store = {}
                source.save_own_variables(store)
                store = {
                    key: ops.convert_to_numpy(value)
                    for key, value in store.items()
                }
                target.load_own_variables(store)
        if _overrides(source_class, "load_assets"):
            with tempfile.TemporaryDirectory() as folder:
                source.save_assets(folder)
                target.load_assets(folder)
        if isinstance(source, keras.layers.Discretization):
            for name in _ATTRIBUTES:
                setattr(target, name, getattr(source, name))


def _overrides(layer_class, method):
    default = getattr(keras.layers.Layer, method, None)
    return getattr(layer_class, method, None) is not default


def copy_trainable(layer, copy):
    """Lets a copy be frozen where the layer is, at any depth.

    Args:
        layer: a layer or model.
        copy: its copy. Both may be something else than a layer.
    """
    for one in (layer, copy):
        if not isinstance(one, keras.layers.Layer):
            return
    for source, target in pairs(layer, copy):
        # Past Keras, which also sets it for all layers inside.
        target._trainable = source.trainable
        variables = _direct_variables(source), _direct_variables(target)
        if len(variables[0]) == len(variables[1]):
            for old, new in zip(*variables):
                new.trainable = old.trainable


def _direct_variables(layer):
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def freeze_quantizers(model):
    """Freezes the quantizers of frozen layers and of frozen weights."""
    for layer in model._flatten_layers():
        if not isinstance(layer, Quantized):
            continue
        frozen = {
            id(quantizer)
            for _, variable, quantizer in layer.quantized_weights()
            if not variable.trainable
        }
        for quantizer in layer.quantizers:
            if not layer.trainable or id(quantizer) in frozen:
                quantizer.trainable = False


def forget_functions(model):
    """Drops what Keras compiled from a model before it was quantized.

    `fit`, `evaluate` and `predict` of the model, or of a model in it, would
    otherwise go on with the float computation.
    """
    for layer in model._flatten_layers():
        if isinstance(layer, keras.Model):
            layer.train_function = None
            layer.test_function = None
            layer.predict_function = None
            layer.compiled = False


@contextlib.contextmanager
def merged_adapters(model):
    """Inside, layers with LoRA adapters look as if they had none.

    Yields:
        Ids of the adapters' variables, which a copy does not have, and a dict
        from `id` of a kernel to its value with the adapters merged in.
    """
    adapters, values, changed = set(), {}, []
    for layer in adapted_layers(model):
        for name in ("kernel", "embeddings"):
            if hasattr(layer, f"lora_{name}_a"):
                merged = ops.convert_to_numpy(getattr(layer, name))
                values[id(getattr(layer, f"_{name}"))] = merged
                for side in "ab":
                    variable = getattr(layer, f"lora_{name}_{side}")
                    adapters.add(id(variable))
        changed.append((layer, layer.lora_rank))
        layer.__dict__.update(lora_enabled=False, lora_rank=None)
    try:
        yield adapters, values
    finally:
        for layer, rank in changed:
            layer.__dict__.update(lora_enabled=True, lora_rank=rank)


def adapted_layers(model):
    """The layers of a model that have LoRA adapters."""
    return [
        layer
        for layer in model._flatten_layers()
        if getattr(layer, "lora_enabled", False)
        and not isinstance(layer, Quantizer)
    ]
