"""Which elements of a tensor share a scale: all, a channel's, or a block's."""

import math

from keras import ops


class Granularity:
    """How scales spread over a tensor.

    Args:
        channel_axes: axes that have a scale per index, counted from the last
            axis: `(-1,)`, `(-2,)`, `(-2, -1)`; `()` for one scale in all.
        group_size: number of inputs that share a scale, for kernels of shape
            (inputs, outputs) and `channel_axes=(-1,)`; `None` for all.

    Scales have the shape of the channel axes, in their order; with groups,
    the shape (inputs / group_size, outputs).
    """

    def __init__(self, channel_axes=(), group_size=None):
        self.channel_axes = _check_axes(channel_axes)
        self.group_size = _check_group_size(group_size, self.channel_axes)

    def scale_shape(self, input_shape):
        """Shape of the scales of a tensor."""
        input_shape = tuple(input_shape)
        if self.group_size is not None:
            inputs, outputs = self._check_groups(input_shape)
            return (inputs // self.group_size, outputs)
        if self.channel_axes and len(input_shape) < -self.channel_axes[0]:
            raise ValueError(
                f"A tensor of shape {input_shape} has no axis "
                f"{self.channel_axes[0]}, which `channel_axes` names. "
                f"Received: channel_axes={self.channel_axes}"
            )
        shape = tuple(input_shape[axis] for axis in self.channel_axes)
        if None in shape:
            raise ValueError(
                "Axes with scales of their own must have a known size. "
                f"Received: a tensor of shape {input_shape} with "
                f"channel_axes={self.channel_axes}"
            )
        return shape

    def split(self, x):
        """A view of `x` against which `spread` scales broadcast."""
        if self.group_size is None:
            return x
        inputs, outputs = x.shape
        blocks = (inputs // self.group_size, self.group_size, outputs)
        return ops.reshape(x, blocks)

    def join(self, x, shape):
        """Undoes `split`."""
        return x if self.group_size is None else ops.reshape(x, shape)

    def spread(self, scale):
        """Reshapes scales so that they broadcast against a `split` tensor."""
        if self.group_size is not None:
            return ops.expand_dims(scale, 1)
        rank = -self.channel_axes[0] if self.channel_axes else 0
        if len(self.channel_axes) == rank:
            return scale
        sizes = dict(zip(self.channel_axes, scale.shape))
        shape = [sizes.get(axis, 1) for axis in range(-rank, 0)]
        return ops.reshape(scale, shape)

    def spread_over(self, scale, input_shape):
        """Reshapes scales so that they broadcast against the tensor itself."""
        if self.group_size is None:
            return self.spread(scale)
        self._check_groups(tuple(input_shape))
        return ops.repeat(scale, self.group_size, axis=0)

    def reduce(self, function, x):
        """Reduces a `split` tensor to one value per scale.

        Args:
            function: such as `ops.max`: called with a tensor and `axis`.
            x: a tensor, after `split`.

        Returns:
            A tensor of the shape of the scales.
        """
        rank = len(x.shape)
        if self.group_size is not None:
            return function(x, axis=1)
        kept = {axis + rank for axis in self.channel_axes}
        axes = tuple(axis for axis in range(rank) if axis not in kept)
        return function(x, axis=axes) if axes else x

    def rows(self, array):
        """NumPy: the elements of each scale as one row, in order."""
        if self.group_size is not None:
            inputs, outputs = self._check_groups(array.shape)
            blocks = (inputs // self.group_size, self.group_size, outputs)
            array = array.reshape(blocks).swapaxes(1, 2)
            return array.reshape(-1, self.group_size)
        kept = [axis + array.ndim for axis in self.channel_axes]
        others = [axis for axis in range(array.ndim) if axis not in kept]
        num_scales = math.prod(self.scale_shape(array.shape))
        return array.transpose(kept + others).reshape(max(num_scales, 1), -1)

    def _check_groups(self, shape):
        if len(shape) != 2:
            raise ValueError(
                "`group_size` is for kernels of shape (inputs, outputs). "
                f"Received: group_size={self.group_size} and a tensor of "
                f"shape {shape}. Leave `group_size` out for this layer."
            )
        if shape[0] % self.group_size:
            raise ValueError(
                "`group_size` must divide the number of inputs of a kernel. "
                f"Received: group_size={self.group_size} and a kernel of "
                f"shape {shape}, with {shape[0]} inputs."
            )
        return shape


def _check_axes(channel_axes):
    if isinstance(channel_axes, int):
        channel_axes = (channel_axes,)
    axes = tuple(sorted(int(axis) for axis in channel_axes))
    if any(axis >= 0 for axis in axes) or len(set(axes)) != len(axes):
        raise ValueError(
            "`channel_axes` must be distinct axes that are counted from the "
            "last one, such as (-1,), (-2,) or (-2, -1). "
            f"Received: channel_axes={tuple(channel_axes)}"
        )
    return axes


def _check_group_size(group_size, channel_axes):
    if group_size is None:
        return None
    if isinstance(group_size, bool) or int(group_size) != group_size:
        raise ValueError(
            "`group_size` must be an integer or `None`. "
            f"Received: group_size={group_size!r}"
        )
    if group_size < 1 or channel_axes != (-1,):
        raise ValueError(
            "`group_size` must be at least 1, and needs "
            "`channel_axes=(-1,)`. "
            f"Received: group_size={group_size}, channel_axes={channel_axes}"
        )
    return int(group_size)
