"""Separable convolution in two steps, with a quantizer between them.

Keras computes it as one operation. An integer file has two kernels, and so a
tensor of integers between them.
"""

from keras import ops


def call_in_two_steps(layer, inputs):
    """The `call` of a separable convolution."""
    x = ops.depthwise_conv(
        inputs,
        layer.depthwise_kernel,
        strides=layer.strides,
        padding=layer.padding,
        data_format=layer.data_format,
        dilation_rate=layer.dilation_rate,
    )
    if layer.inner_quantizer is not None:
        x = ops.cast(layer.inner_quantizer(x), x.dtype)
    x = ops.conv(
        x,
        layer.pointwise_kernel,
        padding="valid",
        data_format=layer.data_format,
    )
    if layer.use_bias:
        shape = [1] * len(x.shape)
        shape[-1 if layer.data_format == "channels_last" else 1] = -1
        x = x + ops.reshape(layer.bias, shape)
    return x if layer.activation is None else layer.activation(x)
