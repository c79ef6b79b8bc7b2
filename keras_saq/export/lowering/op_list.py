"""The ops and tensors of a program in the making."""

import numpy as np

from keras_saq.export.kernels import KERNELS
from keras_saq.export.program import Op
from keras_saq.export.program import Tensor


class OpList:
    """Ops in order, with unique names of tensors, and what moves codes.

    Attributes:
        ops: list of `Op`.
    """

    def __init__(self):
        self.ops = []
        self._names = set()
        self._makers = {}

    def tensor(self, name, shape, scale=None, zero_point=0, **kwargs):
        """A new tensor; its name gets a number where it is taken."""
        shape = tuple(None if n is None else int(n) for n in shape)
        return Tensor(
            self._unique(name), shape, scale, int(zero_point), **kwargs
        )

    def constant(self, name, data, scale=None, **kwargs):
        data = np.asarray(data)
        name = self._unique(name)
        return Tensor(
            name, data.shape, scale, data=data, is_static=True, **kwargs
        )

    def like(self, tensor, name, shape):
        """A tensor of another shape on the same grid."""
        return self.tensor(
            name,
            shape,
            tensor.scale,
            tensor.zero_point,
            is_unsigned=tensor.is_unsigned,
            dtype=tensor.dtype,
            is_exact=tensor.is_exact,
        )

    def emit(self, kind, inputs, output, path, options=None, **kwargs):
        return self.append(
            Op(kind, inputs, output, path=path, options=options or {}, **kwargs)
        )

    def append(self, op):
        """Adds an op; returns its output."""
        if op.output.is_float:
            op.output.is_exact = KERNELS[op.kind].is_exact and all(
                t.is_exact for t in op.inputs
            )
        elif any(not t.is_exact for t in op.inputs):
            op.max_steps = 1
        self.ops.append(op)
        self._makers[id(op.output)] = op
        return op.output

    def maker(self, tensor):
        """The op that makes a tensor, or `None`."""
        return self._makers.get(id(tensor))

    def _unique(self, name):
        unique, number = name, 1
        while unique in self._names:
            unique, number = f"{name}_{number}", number + 1
        self._names.add(unique)
        return unique

    # --- Moves

    def move(self, kind, source, shape, path, options=None):
        output = self.like(source, path, shape)
        return self.emit(kind, [source], output, path, options)

    def reshape(self, source, shape, path):
        shape = tuple(shape)
        if source.shape == shape:
            return source
        if None in (*shape, *source.shape):
            return self._with_unit_axes(source, shape, path)
        output = self.move("reshape", source, shape, path)
        elements = source.rows * np.prod(source.shape, dtype=int)
        output.rows = int(elements // np.prod(shape, dtype=int))
        return output

    def _with_unit_axes(self, source, shape, path):
        """Axes of length one more or less, between open sizes."""
        for kind, longer, shorter in (
            ("expand_dims", shape, source.shape),
            ("squeeze", source.shape, shape),
        ):
            for axis in range(len(longer)):
                rest = (*longer[:axis], *longer[axis + 1 :])
                if longer[axis] == 1 and rest == shorter:
                    options = {"axis": axis + 1}
                    return self.move(kind, source, shape, path, options)
        raise ValueError(
            f"'{path}' needs to know the sizes of its input, which are open: "
            f"{source.shape} to {shape}. Fix them for the file:\n\n"
            "    keras_saq.export_litert(q, path, input_shape=(224, 224, 3))"
        )

    def transpose(self, source, axes, path):
        """Axes count the batch axis, which stays the first."""
        if list(axes) == list(range(len(axes))):
            return source
        shape = [source.shape[a - 1] for a in axes[1:]]
        options = {"axes": tuple(int(a) for a in axes)}
        return self.move("transpose", source, shape, path, options)
