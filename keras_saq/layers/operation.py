"""An operation of a Functional model as a layer, which can hold a quantizer."""

import inspect

import keras


@keras.saving.register_keras_serializable("keras_saq")
class OperationLayer(keras.layers.Layer):
    """Calls a Keras operation, such as the `Add` that `x + y` puts in a graph.

    Args:
        operation: a `keras.Operation` that is no layer.

    Example:

    >>> import keras
    >>> from keras_saq.layers.operation import OperationLayer
    >>> x = keras.Input((4,))
    >>> add = (x + x)._keras_history.operation
    >>> OperationLayer(add)(x, x).shape
    (None, 4)
    """

    def __init__(self, operation, **kwargs):
        # An operation takes its tensors as they are.
        kwargs["autocast"] = False
        super().__init__(**kwargs)
        self.operation = operation
        # Arguments have the operation's names: a tensor and a number do not
        # become one tuple, in which Keras allows no mixture.
        self._call_signature = inspect.signature(operation.call)
        self._allow_non_tensor_positional_args = True
        self._convert_input_args = False
        self.built = True

    def call(self, *args, **kwargs):
        return self.operation.call(*args, **kwargs)

    def compute_output_spec(self, *args, **kwargs):
        kwargs.pop("training", None)
        return self.operation.compute_output_spec(*args, **kwargs)

    def get_config(self):
        config = super().get_config()
        config.pop("autocast", None)
        operation = keras.saving.serialize_keras_object(self.operation)
        return {**config, "operation": operation}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        operation = config.pop("operation")
        if isinstance(operation, dict):
            operation = keras.saving.deserialize_keras_object(operation)
        return cls(operation, **config)
