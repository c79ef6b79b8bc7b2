"""What a converted part of a model is, and what is known of its operators."""

import dataclasses
import functools

# Operators that move elements, or choose between them: no number is rounded.
MOVING = {
    "BROADCAST_TO",
    "CONCATENATION",
    "DEPTH_TO_SPACE",
    "EXPAND_DIMS",
    "FILL",
    "GATHER",
    "GATHER_ND",
    "MAXIMUM",
    "MAX_POOL_2D",
    "MINIMUM",
    "MIRROR_PAD",
    "PACK",
    "PAD",
    "PADV2",
    "REDUCE_MAX",
    "REDUCE_MIN",
    "RELU",
    "RESHAPE",
    "RESIZE_NEAREST_NEIGHBOR",
    "REVERSE_V2",
    "SELECT",
    "SELECT_V2",
    "SHAPE",
    "SLICE",
    "SPACE_TO_DEPTH",
    "SPLIT",
    "SPLIT_V",
    "SQUEEZE",
    "STRIDED_SLICE",
    "TILE",
    "TOPK_V2",
    "TRANSPOSE",
    "UNPACK",
}
# Operators of which IEEE 754 fixes every bit, and comparisons.
_EXACT = MOVING | {
    "ABS",
    "ADD",
    "CAST",
    "DIV",
    "EQUAL",
    "FLOOR",
    "GREATER",
    "GREATER_EQUAL",
    "LESS",
    "LESS_EQUAL",
    "LOGICAL_AND",
    "LOGICAL_NOT",
    "LOGICAL_OR",
    "MUL",
    "NEG",
    "NOT_EQUAL",
    "ONE_HOT",
    "PRELU",
    "RANGE",
    "RELU6",
    "RELU_0_TO_1",
    "RELU_N1_TO_1",
    "ROUND",
    "SIGN",
    "SQRT",
    "SQUARE",
    "SQUARED_DIFFERENCE",
    "SUB",
    "ZEROS_LIKE",
}


class ConversionError(ValueError):
    """LiteRT has no operator for something."""


@dataclasses.dataclass(frozen=True, eq=False)
class Fragment:
    """A float LiteRT graph that stands in the middle of an integer one.

    Attributes:
        content: the bytes of a LiteRT file that is this graph alone.
        operators: LiteRT's names of its operators, those of inner graphs too.
        single_sample: whether it computes one sample at a time only, as loops
            over steps do whose number is not known.
    """

    content: bytes
    operators: tuple
    single_sample: bool = False

    @property
    def is_exact(self):
        """Whether its result is fixed to the last bit."""
        return set(self.operators) <= _EXACT

    @property
    def only_moves(self):
        """Whether its elements are those of its inputs, or constants."""
        return set(self.operators) <= MOVING

    @functools.cached_property
    def sources(self):
        """Where each output comes from.

        A list with `("input", i)` for an output that is the i-th input itself,
        `("output", i)` for one that is an earlier output, and `None` for one
        that is computed.
        """
        graph = self.model.subgraphs[0]
        inputs = [int(i) for i in graph.inputs]
        outputs = [int(i) for i in graph.outputs]
        found = []
        for i, tensor in enumerate(outputs):
            if tensor in inputs:
                found.append(("input", inputs.index(tensor)))
            elif tensor in outputs[:i]:
                found.append(("output", outputs.index(tensor)))
            else:
                found.append(None)
        return found

    @functools.cached_property
    def model(self):
        """The graph as the schema's `ModelT`; not to be changed."""
        from ai_edge_litert.tools import flatbuffer_utils

        return flatbuffer_utils.read_model_from_bytearray(
            bytearray(self.content)
        )
