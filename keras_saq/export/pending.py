"""A kernel call whose output scale is not known yet.

A weighted layer, the batch norm and the ReLU behind it are one integer
kernel. While the graph is walked they are collected here in the domain of the
accumulator: real output = slope * step * (accumulator + bias).
"""

import collections.abc
import dataclasses

import numpy as np

from keras_saq.export.accumulator import check_reach
from keras_saq.export.accumulator import largest_code
from keras_saq.export.program import Op
from keras_saq.export.program import Weights

# Beyond these a channel's kernel adds nothing that its output could show, or
# its bias does not fit into 32 bits: it is stored as a constant.
_SMALLEST_MULTIPLIER = np.float32(2.0**-31)
_LARGEST_BIAS = 2.0**30
_CONSTANT_BIAS = 2**15


@dataclasses.dataclass(eq=False)
class Pending:
    """Attributes:
    kind: kernel, as in `kernels.KERNELS`.
    inputs: the `Tensor`s it reads.
    shape: output shape without the batch axis.
    path: path of the layer that began it.
    made: shape that the kernel makes, where it is another one.
    moves: function of a `Builder` and the tensor that the kernel made, which
        gives it its `shape`; `None` for a reshape.
    build: function of a `Builder` and float inputs that computes the result
        in float; `None` for kernels that are the same in float.
    what: what is computed, for the list of islands.
    codes: integer kernel in LiteRT's layout, or `None`.
    axis: output-channel axis of `codes`.
    num_bits: stored bits of a code.
    weight_scale: float32 per channel.
    bias: float32 per channel, of the weighted layer itself.
    bias_in_steps: float32 per channel, batch norm included, not rounded.
    slope: float32 per channel, of a folded batch norm.
    offset: float32 per channel, the output where the accumulator is zero.
    activation: fused into the kernel.
    options: kernel parameters.
    """

    kind: str
    inputs: list
    shape: tuple
    path: str
    codes: np.ndarray | None = None
    axis: int = 0
    num_bits: int = 8
    weight_scale: np.ndarray | None = None
    bias: np.ndarray | float = 0.0
    bias_in_steps: np.ndarray | None = None
    slope: np.ndarray | None = None
    offset: np.ndarray | float = 0.0
    activation: str = "linear"
    options: dict = dataclasses.field(default_factory=dict)
    made: tuple | None = None
    moves: collections.abc.Callable | None = None
    build: collections.abc.Callable | None = None
    what: str = ""

    @property
    def is_weighted(self):
        return self.codes is not None

    @property
    def is_integer(self):
        """Whether it reads integers and there is an integer kernel for it."""
        return self.kind != "float" and not any(t.is_float for t in self.inputs)

    @property
    def step(self):
        """Real value of one accumulator step before the slope, float32."""
        return self._input_scale * self.weight_scale

    @property
    def _input_scale(self):
        (source, *_) = self.inputs
        return np.float32(1.0 if source.is_float else source.scale)

    @property
    def clips_below(self):
        """Whether no negative number can come out, ReLU aside."""
        if self.kind in ("mean", "batch_matmul", "multiply"):
            return all(t.is_unsigned for t in self.inputs)
        return False

    @property
    def can_clip(self):
        """Whether a ReLU can be fused into the kernel."""
        return self.is_weighted or self.kind in ("add", "subtract", "multiply")

    def to_op(self, output):
        """The kernel call that makes the `Tensor` `output`."""
        weights = None
        if self.codes is not None:
            weights = self._fold(np.float32(output.scale))
        return Op(
            self.kind,
            self.inputs,
            output,
            weights,
            self.activation,
            self.options,
            self.path,
        )

    def in_float(self):
        """Codes, scale and bias of the kernel on float inputs.

        Returns:
            `(codes, scale, bias)`: integers or, of a layer that is not
            quantized, the kernel itself; float32 per channel.
        """
        sign = np.where(self.slope < 0, -1, 1)
        scale = (self.weight_scale * np.abs(self.slope)).astype(np.float32)
        bias = np.broadcast_to(self.offset, scale.shape).astype(np.float32)
        return self.codes * self._along_channels(sign), scale, bias

    def _fold(self, output_scale):
        """Folds the slope into codes, scale and bias.

        q' = q * sign(a), s' = s * |a|, bias' = sign(a) * round(b / g): exact,
        because the codes are symmetric.
        """
        sign = np.where(self.slope < 0, -1, 1)
        scale = (self.weight_scale * np.abs(self.slope)).astype(np.float32)
        bias = sign * np.rint(self.bias_in_steps.astype(np.float64))
        input_scale = self._input_scale
        multiplier = input_scale * scale / output_scale
        constant = (multiplier < _SMALLEST_MULTIPLIER) | (
            np.abs(bias) >= _LARGEST_BIAS
        )
        codes = self.codes * self._along_channels(np.where(constant, 0, sign))
        if constant.any():
            value = np.broadcast_to(self.offset, scale.shape).astype(float)
            magnitude = np.maximum(np.abs(value), output_scale)
            stored = magnitude / _CONSTANT_BIAS / input_scale
            scale = np.where(constant, stored, scale).astype(np.float32)
            bias = np.where(
                constant, np.rint(value / (input_scale * scale)), bias
            )
        bias = bias.astype(np.int64)
        self._check_accumulator(codes, bias)
        return Weights(codes, scale, self.num_bits, self.axis, bias)

    def _check_accumulator(self, codes, bias):
        """Raises if some input in range makes a sum that 32 bits do not hold.

        Per channel, sum of |codes| times the largest code of the input.
        """
        (source, *_) = self.inputs
        others = tuple(i for i in range(codes.ndim) if i != self.axis)
        sums = np.abs(codes).sum(axis=others, dtype=np.int64)
        sums = sums * largest_code(source) + np.abs(bias)
        check_reach(
            sums.max(initial=0),
            self.path,
            f"{codes[0].size:,} products per output",
            "Give its weights fewer bits, "
            f"Rule(path={self.path!r}, weight_bits=4, activation_bits=8), or "
            "split the layer",
        )

    def _along_channels(self, values):
        shape = [1] * self.codes.ndim
        shape[self.axis] = -1
        return values.reshape(shape)
