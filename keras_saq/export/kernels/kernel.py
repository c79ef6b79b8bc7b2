"""What a kernel is, and the arithmetic that integer kernels share."""

import collections.abc
import dataclasses

import numpy as np

INT8_MIN, INT8_MAX = -128, 127


def _no_options(op, schema):
    return None


def _never(op):
    return False


def always(op):
    """For `Kernel.has_sizes`."""
    return True


def _no_constants(op):
    return {}


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One LiteRT operator, used in one way.

    Attributes:
        operator: its name in LiteRT's schema.
        version: at which LiteRT's kernels learned what we use.
        run: function of an `Op` and the arrays of its inputs that returns the
            array of its output: what the kernel computes, bit for bit unless
            `is_exact` says otherwise.
        options: function of an `Op` and the schema module that returns the
            operator's options object, or `None`.
        constants: function of an `Op` that returns a dict of int32 arrays,
            the operator's last inputs.
        has_sizes: function of an `Op` that says whether the file has the
            size of what it reads or makes, and does not follow a resized
            input.
        write: function of the file's writer and an `Op` for what is more than
            one operator; `None` for what is one.
        is_exact: whether `run` gives a float kernel's result to the last bit.
            That is so where IEEE 754 fixes it: one rounding per element, no
            sums, no transcendental functions. Integer kernels all are exact.
    """

    operator: str
    version: int
    run: collections.abc.Callable
    options: collections.abc.Callable = _no_options
    constants: collections.abc.Callable = _no_constants
    has_sizes: collections.abc.Callable = _never
    write: collections.abc.Callable | None = None
    is_exact: bool = True


def make_options(name, **fields):
    """A function that makes the schema's `<name>OptionsT` object.

    Args:
        name: such as `"Pool2D"`.
        **fields: what the object's fields are set to.
    """

    def options(op, schema):
        made = getattr(schema, f"{name}OptionsT")()
        for field, value in fields.items():
            setattr(made, field, value)
        return made

    return options


def centred(tensor, codes):
    """Codes relative to the zero point, int32."""
    return codes.astype(np.int32) - tensor.zero_point


def store(op, real_codes):
    """Rounded codes relative to zero -> int8, with the fused activation."""
    output = op.output
    low, high = INT8_MIN, INT8_MAX
    if op.activation != "linear":
        low = max(low, output.zero_point)
    if op.activation == "relu6":
        six = np.rint(np.float32(6.0) / np.float32(output.scale))
        high = min(high, int(six) + output.zero_point)
    codes = np.clip(real_codes + output.zero_point, low, high)
    return codes.astype(np.int8)


def rescale(op, accumulator, multiplier):
    """Integers times a float32 multiplier, rounded to even and stored."""
    scaled = accumulator.astype(np.float32) * multiplier
    # Far outside of int8 nothing changes, and the cast stays defined.
    return store(op, np.rint(np.clip(scaled, -1e4, 1e4)).astype(np.int64))


def activate(op, real):
    """The fused activation of a float kernel."""
    if op.activation == "linear":
        return real
    high = np.float32(6.0 if op.activation == "relu6" else np.inf)
    return np.clip(real, np.float32(0.0), high)
