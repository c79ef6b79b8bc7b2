"""An integer program: what a LiteRT file of ours computes, as data.

`lower.py` makes a program from a Keras model, `flatbuffer.py` writes it to a
file, `reference.py` runs it in NumPy. Tensors are NHWC with an open batch
axis; codes are int8.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(eq=False)
class Tensor:
    """A tensor between kernels, or a constant.

    Attributes:
        name: a readable name, unique in the program.
        shape: without the batch axis, `None` where it is open; of a constant,
            its whole shape.
        scale: real value of one step, float32; `None` for a float tensor. A
            constant can have one per index of `axis`.
        zero_point: the code of real 0.
        is_unsigned: whether no code is below the zero point.
        is_uint8: whether the codes are uint8, at the edge of the program.
        dtype: of what is no real number: `"int32"` (indices), `"bool"` (masks)
            or `"uint8"`; `None` of floats and of codes.
        is_exact: whether file and reference agree on it to the last bit,
            given the same inputs; not so behind some float kernels.
        is_static: whether it has no batch axis, as constants have none.
        rows: of how many elements the first axis consists per sample.
        data: the values of a constant, or `None`.
        num_bits: how a constant's code is stored: 2, 4 or 8.
        axis: of a constant's scales.
    """

    name: str
    shape: tuple
    scale: np.float32 | np.ndarray | None = None
    zero_point: int = 0
    is_unsigned: bool = False
    is_uint8: bool = False
    dtype: str | None = None
    is_exact: bool = True
    is_static: bool = False
    rows: int = 1
    data: np.ndarray | None = None
    num_bits: int = 8
    axis: int = 0

    @property
    def is_float(self):
        return self.scale is None and self.dtype is None

    @property
    def is_constant(self):
        return self.data is not None


@dataclasses.dataclass(eq=False)
class Weights:
    """Constant codes of a convolution or dense kernel.

    Attributes:
        codes: integers in the layout of the LiteRT kernel.
        scale: float32, one per output channel.
        num_bits: how a code is stored: 2, 4 or 8.
        axis: the output-channel axis of `codes`.
        bias: int32 codes on the grid `input scale * scale`.
    """

    codes: np.ndarray
    scale: np.ndarray
    num_bits: int
    axis: int
    bias: np.ndarray


@dataclasses.dataclass(eq=False)
class Op:
    """One kernel call.

    Attributes:
        kind: a name in `keras_saq.export.kernels.KERNELS`.
        inputs: the `Tensor`s it reads.
        output: the `Tensor` it makes.
        weights: `Weights` of kernels that have them.
        activation: `"linear"`, `"relu"` or `"relu6"`, fused into the kernel.
        options: kernel parameters by name.
        path: path of the Keras layer whose output this is.
        max_steps: by how many steps file and reference may differ in its
            codes, given the same inputs of the island that it ends: 0 but
            for the quantization of some float islands, where it is 1.
    """

    kind: str
    inputs: list
    output: Tensor
    weights: Weights | None = None
    activation: str = "linear"
    options: dict = dataclasses.field(default_factory=dict)
    path: str = ""
    max_steps: int = 0


@dataclasses.dataclass(eq=False)
class Program:
    """Ops in order, with the tensors that come in and go out.

    Attributes:
        inputs: list of `Tensor`, in the order of the Keras model's inputs.
        outputs: list of `Tensor`.
        ops: list of `Op`.
        output_scales: float32 scale of the integers behind each output, by
            which differences are measured; `None` behind a float island.
        islands: list of `(path, reason)` of float computations.
        output_names: the names of the outputs in the file's signature; those
            of the inputs are the tensors' own, and so are these if `None`.
    """

    inputs: list
    outputs: list
    ops: list
    output_scales: list
    islands: list
    output_names: list | None = None

    @property
    def single_sample(self):
        """Whether it computes one sample at a time only."""
        return any(
            getattr(op.options.get("fragment"), "single_sample", False)
            for op in self.ops
        )

    @property
    def inexact_ops(self):
        """The ops in whose codes file and reference may differ."""
        return [op for op in self.ops if op.max_steps]

    @property
    def is_exact(self):
        """Whether the file's integers are the reference's, every one."""
        return not self.inexact_ops
