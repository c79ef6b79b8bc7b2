"""Sliding windows, tap by tap: convolutions and pools in NumPy.

A convolution is a sum over the places of its kernel, each a plain product of
a shifted image with a slice of the kernel. Sums of integers below 2**24 are
exact in float32 in any order.
"""

import numpy as np


def taps(x, kernel_size, strides, padding, dilation=(1, 1), fill=0):
    """The parts of an image that each place of a kernel sees.

    Args:
        x: images `[batch, height, width, channels]`.
        kernel_size: height and width of the kernel.
        strides: along height and width.
        padding: `"SAME"` or `"VALID"`, as TensorFlow means them.
        dilation: distance of the kernel's rows and columns.
        fill: the value around the image.

    Yields:
        `((row, column), part)` for each place of the kernel; a part has the
        height and width of the output.
    """
    pads, counts = [(0, 0)], []
    for size, kernel, stride, step in zip(
        x.shape[1:3], kernel_size, strides, dilation
    ):
        reach = (kernel - 1) * step + 1
        if padding == "SAME":
            counts.append(-(-size // stride))
            total = max((counts[-1] - 1) * stride + reach - size, 0)
            pads.append((total // 2, total - total // 2))
        else:
            counts.append((size - reach) // stride + 1)
            pads.append((0, 0))
    x = np.pad(x, [*pads, (0, 0)], constant_values=fill)
    for place in np.ndindex(*kernel_size):
        window = tuple(
            slice(i * step, i * step + (count - 1) * stride + 1, stride)
            for i, step, count, stride in zip(place, dilation, counts, strides)
        )
        yield place, x[(slice(None), *window)]


def conv(x, kernel, strides, padding, dilation):
    """A convolution; `kernel` is `[height, width, channels, filters]`."""
    places = taps(x, kernel.shape[:2], strides, padding, dilation)
    return sum(part @ kernel[place] for place, part in places)


def depthwise(x, kernel, strides, padding, dilation):
    """A depthwise convolution; `kernel` is `[height, width, channels, m]`."""
    places = taps(x, kernel.shape[:2], strides, padding, dilation)
    made = sum(part[..., None] * kernel[place] for place, part in places)
    return made.reshape(*made.shape[:3], -1)


def transpose_conv(x, kernel, output_shape, strides, padding):
    """What convolving `output_shape` would read, added up from `x`.

    Args:
        x: images `[batch, height, width, channels]`.
        kernel: `[height, width, filters, channels]`.
        output_shape: `(height, width)` of the result.
        strides: of the convolution.
        padding: of the convolution.
    """
    batch, *counts, _ = x.shape
    before, sizes = [], []
    for size, kernel_size, stride, count in zip(
        output_shape, kernel.shape, strides, counts
    ):
        reach = (count - 1) * stride + kernel_size
        total = max(reach - size, 0) if padding == "SAME" else 0
        before.append(total // 2)
        sizes.append(max(reach, size + total // 2))
    canvas = np.zeros((batch, *sizes, kernel.shape[2]), x.dtype)
    for place in np.ndindex(*kernel.shape[:2]):
        window = tuple(
            slice(i, i + (count - 1) * stride + 1, stride)
            for i, count, stride in zip(place, counts, strides)
        )
        canvas[(slice(None), *window)] += x @ kernel[place].T
    window = tuple(
        slice(first, first + size) for first, size in zip(before, output_shape)
    )
    return canvas[(slice(None), *window)]


def max_pool(x, window, strides, padding):
    """The largest element of each window."""
    lowest = -np.inf
    if np.issubdtype(x.dtype, np.integer):
        lowest = np.iinfo(x.dtype).min
    places = taps(x, window, strides, padding, fill=lowest)
    return np.maximum.reduce([part for _, part in places])
