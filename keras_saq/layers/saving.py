"""How look-alikes are pickled, renamed, and kept out of `.h5` files.

The class of a quantized layer or model is made when it is first needed. So it
has no name under which a pickle could find it, and none that the legacy
`.h5` format could write: only its registered name leads back to it.
"""

import keras
from keras.src.backend.common import global_state


class Saveable:
    """Mixin of layers and models of a class that was made here."""

    def __reduce__(self):
        # Keras's own, which would name the class.
        _, arguments = super().__reduce__()
        return unpickled, arguments


def unpickled(file):
    """What Keras makes of a pickle's bytes."""
    return keras.layers.Layer._unpickle_model(file)


def renamed(config, name):
    """A serialised layer or model with another name; `None` keeps it."""
    if name is None or "name" not in config["config"]:
        return config
    return {**config, "config": {**config["config"], "name": name}}


def refuse_legacy_format(name, filepath=None):
    """Raises while Keras writes an `.h5` file of a whole model.

    Args:
        name: of the model or layer.
        filepath: where a model is to be saved; `None` asks Keras what it is
            writing.

    Raises:
        ValueError: if it is the legacy format.
    """
    if filepath is None:
        is_legacy = global_state.get_global_attribute("use_legacy_config")
    else:
        is_legacy = str(filepath).endswith((".h5", ".hdf5"))
    if is_legacy:
        raise ValueError(
            f"'{name}' is quantized, and the legacy .h5 format cannot hold "
            "quantized layers. Save it in Keras's own format:\n\n"
            "    model.save('model.keras')\n\n"
            "Weights alone can be .h5: `model.save_weights('x.weights.h5')`."
        )
