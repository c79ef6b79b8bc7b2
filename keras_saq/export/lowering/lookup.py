"""Embeddings: rows of a table of codes, each row with its scale."""

import numpy as np
from keras import ops

from keras_saq.export.lowering.dense import packed_bits
from keras_saq.layers import Quantized


def obstacle(site):
    if "int" not in site.inputs[0].dtype:
        return (
            f"its indices are {site.inputs[0].dtype}; make the model's input "
            "with keras.Input(shape, dtype='int32')"
        )
    return None


def lower(builder, site, inputs):
    """A float tensor: codes times scales, rounded once each."""
    layer, (indices,) = site.operation, inputs
    path = site.path
    quantizer = None
    if isinstance(layer, Quantized):
        quantizer = layer.quantize_config.weights.get("embeddings")
    if quantizer is None:
        values = ops.convert_to_numpy(layer.embeddings).astype(np.float32)
        table = builder.constant(f"{path}/weights", values)
    else:
        codes = quantizer.codes(layer.embeddings)
        scale = ops.convert_to_numpy(quantizer.scale).reshape(-1)
        scale = np.broadcast_to(scale, len(codes)).astype(np.float32)
        bits = packed_bits(builder, quantizer.code_bits, codes.shape[1])
        table = builder.constant(f"{path}/weights", codes, scale, num_bits=bits)
    shape = tuple(site.outputs[0].shape[1:])
    flat = builder.reshape(indices, (), path)
    output = builder.tensor(path, shape[-1:])
    output.rows = flat.rows
    output = builder.emit("lookup", [flat, table], output, path)
    return builder.reshape(output, shape, path)
