"""Float models that are none: what is refused before anything is copied."""

import keras

from keras_saq.models.state import adapted_layers


def require_float32(model, inplace=False):
    """Raises if a layer has weights that are not float32.

    Args:
        model: the model that is to be quantized.
        inplace: whether it is itself, and no copy of it.

    Raises:
        ValueError: naming the first layer that Keras has quantized, whose
            weights have another dtype, or, in place, that has LoRA adapters.
    """
    for layer in model._flatten_layers():
        if getattr(layer, "quantization_mode", None) is not None:
            raise ValueError(
                f"The layer '{layer.name}' has been quantized by Keras "
                f"already: its dtype policy is '{layer.dtype_policy.name}', "
                "and its float weights are gone. Quantize the model as it was "
                'before `model.quantize("'
                f'{layer.quantization_mode}")`:\n\n'
                '    model = keras.saving.load_model("float.keras")\n'
                "    q = keras_saq.quantize_model(model, policy)"
            )
        for variable in _direct_float_variables(layer):
            if variable.dtype != "float32":
                raise ValueError(
                    f"The weights of the layer '{layer.name}' are "
                    f"{variable.dtype}. Scales are learned, and integer files "
                    "written, from float32 weights. Make the model with the "
                    "dtype policy 'float32' (or 'mixed_float16' or "
                    "'mixed_bfloat16', whose weights are float32), and give "
                    "it the weights:\n\n"
                    '    keras.config.set_dtype_policy("float32")\n'
                    "    model = build_model()\n"
                    "    model.set_weights(old_model.get_weights())"
                )
    if inplace and adapted_layers(model):
        layer = adapted_layers(model)[0]
        raise ValueError(
            f"The layer '{layer.name}' has LoRA adapters, which a copy of the "
            "model merges into its kernel. The model itself keeps them. "
            "Quantize a copy:\n\n"
            "    q = keras_saq.quantize_model(model, policy)"
        )
    if inplace:
        _refuse_compiled_calls(model)


def _direct_float_variables(layer):
    for variable in layer._trainable_variables + layer._non_trainable_variables:
        if keras.backend.is_float_dtype(variable.dtype):
            yield variable


def _refuse_compiled_calls(model):
    for layer in model._flatten_layers():
        call = type(layer).call
        has_parts = any(p.weights for p in layer._layers)
        if has_parts and hasattr(call, "get_concrete_function"):
            raise ValueError(
                f"The `call` of the layer '{layer.name}' is a `tf.function`, "
                "and keeps the float computation that it was traced with. "
                "Quantize a copy, which is traced anew:\n\n"
                "    q = keras_saq.quantize_model(model, policy)"
            )
