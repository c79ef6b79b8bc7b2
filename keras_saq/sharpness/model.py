"""`SAQModel`: a Keras model whose train step is SAQ's."""

import keras
import numpy as np

from keras_saq.models import Trainable
from keras_saq.sharpness.ascent import Participants


@keras.saving.register_keras_serializable("keras_saq")
class SAQModel(Trainable, keras.Model):
    """Trains a quantized model for a flat loss (SAQ, arXiv 2111.12273).

    Each step computes the gradient at the quantized weights, moves by `rho`
    along it, to where the loss is higher, and updates the weights with the
    gradient found there (case 3 of the paper; see
    `keras_saq.sharpness.ascent` for the equations). The weights themselves
    are never perturbed: the perturbation lives in a scope of the step.
    Evaluation, prediction and export use the clean quantized weights. A model
    without quantized layers is trained with SAM (arXiv 2010.01412).

    Args:
        model: the model to train, usually from `keras_saq.quantize_model`.
            It is wrapped, not copied: it holds the weights.
        rho: radius of the perturbation, in units of the weights. 0 is plain
            quantization-aware training.

    Example:

    >>> import keras, keras_saq, numpy as np
    >>> inputs = keras.Input((16,))
    >>> model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    >>> q = keras_saq.quantize_model(model, "w4a8")
    >>> saq = keras_saq.SAQModel(q, rho=0.05)
    >>> saq.compile("sgd", "mse")
    >>> history = saq.fit(np.ones((8, 16)), np.ones((8, 3)), verbose=0)
    """

    def __init__(self, model, rho=0.05, **kwargs):
        if not isinstance(model, keras.Model):
            raise ValueError(
                "`model` must be a `keras.Model`. "
                f"Received: {model!r} of type {type(model).__name__}"
            )
        if not isinstance(rho, (int, float)) or not 0 <= rho < np.inf:
            raise ValueError(
                "`rho` must be a finite number that is not negative. "
                f"Received: rho={rho!r}"
            )
        kwargs.setdefault("name", model.name)
        super().__init__(**kwargs)
        self.model = model
        self.rho = float(rho)
        self.built = model.built

    def call(self, inputs, training=None):
        return self.model(inputs, training=training)

    def train_step(self, *args):
        """SAQ's step; the arguments are those of the Keras backend."""
        participants = Participants(self)
        if not (participants.quantized or participants.direct):
            raise ValueError(
                f"The model '{self.name}' has no trainable weights. Set "
                "`layer.trainable = True` for the layers to be trained, and "
                "compile the model again."
            )
        return _backend_step()(self, participants, self.rho, *args)

    # What belongs to the model inside.

    @property
    def inputs(self):
        """Symbolic inputs of the model inside."""
        return self.model.inputs

    @property
    def outputs(self):
        """Symbolic outputs of the model inside."""
        return self.model.outputs

    def get_layer(self, name=None, index=None):
        """A layer of the model inside."""
        return self.model.get_layer(name=name, index=index)

    def summary(self, *args, **kwargs):
        """Prints the summary of the model inside."""
        self.model.summary(*args, **kwargs)

    def save_weights(self, filepath, **kwargs):
        """Saves the weights of the model inside, as that model would."""
        self.model.save_weights(filepath, **kwargs)

    def load_weights(self, filepath, **kwargs):
        """Loads weights into the model inside."""
        self.model.load_weights(filepath, **kwargs)

    def get_config(self):
        model = keras.saving.serialize_keras_object(self.model)
        return {"model": model, "rho": self.rho, "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        model = keras.saving.deserialize_keras_object(
            config.pop("model"), custom_objects=custom_objects
        )
        return cls(model, **config)


def _backend_step():
    backend = keras.backend.backend()
    if backend == "tensorflow":
        from keras_saq.sharpness import tensorflow_step as step
    elif backend == "jax":
        from keras_saq.sharpness import jax_step as step
    else:
        raise ValueError(
            "`SAQModel` trains on the TensorFlow and JAX backends of Keras. "
            f"Received: backend='{backend}'. Set the environment variable "
            "KERAS_BACKEND to 'tensorflow' or 'jax'."
        )
    return step.train_step
