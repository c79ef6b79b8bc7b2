"""An integer program: what a LiteRT file of ours computes, as data.

`lower.py` makes a program from a Keras model, `flatbuffer.py` writes it to a
file, `reference.py` runs it in NumPy. Tensors are NHWC with an open batch
axis; codes are int8.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(eq=False)
class Tensor:
    """A tensor between kernels.

    Attributes:
        name: a readable name, unique in the program.
        shape: without the batch axis.
        scale: real value of one step, float32; `None` for a float tensor.
        zero_point: the code of real 0.
        is_unsigned: whether no code is below the zero point.
        is_uint8: whether the codes are uint8, at the edge of the program.
    """

    name: str
    shape: tuple
    scale: np.float32 | None = None
    zero_point: int = 0
    is_unsigned: bool = False
    is_uint8: bool = False

    @property
    def is_float(self):
        return self.scale is None


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
        kind: a name in `KINDS`.
        inputs: the `Tensor`s it reads.
        output: the `Tensor` it makes.
        weights: `Weights` of kernels that have them.
        activation: `"linear"`, `"relu"` or `"relu6"`, fused into the kernel.
        options: kernel parameters by name.
        path: path of the Keras layer whose output this is.
    """

    kind: str
    inputs: list
    output: Tensor
    weights: Weights | None = None
    activation: str = "linear"
    options: dict = dataclasses.field(default_factory=dict)
    path: str = ""


# Kernel of the program -> LiteRT builtin operator.
KINDS = {
    "add": "ADD",
    "concatenate": "CONCATENATION",
    "conv": "CONV_2D",
    "depthwise": "DEPTHWISE_CONV_2D",
    "dequantize": "DEQUANTIZE",
    "fully_connected": "FULLY_CONNECTED",
    "max_pool": "MAX_POOL_2D",
    "mean": "MEAN",
    "pad": "PAD",
    "quantize": "QUANTIZE",
    "requantize": "QUANTIZE",
    "reshape": "RESHAPE",
    "slice": "SLICE",
    "space_to_depth": "SPACE_TO_DEPTH",
    "softmax": "SOFTMAX",
    "sigmoid": "LOGISTIC",
    "tanh": "TANH",
}


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
    """

    inputs: list
    outputs: list
    ops: list
    output_scales: list
    islands: list
