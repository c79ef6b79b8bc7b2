"""Padding that a convolution can do by itself.

Keras's networks pad an image with ZeroPadding2D and convolve it with padding
"valid". Where the two together are what "same" means, one kernel does both, and
a copy of the image is saved.
"""

import dataclasses

_KINDS = ("conv", "depthwise")


def with_fused_padding(program):
    """The program without the PADs that convolutions can do by themselves.

    Args:
        program: a `Program`; it stays as it is.

    Returns:
        A `Program` that computes the same codes.
    """
    makers = {op.output: op for op in program.ops}
    fused = {}
    for op in program.ops:
        pad = makers.get(op.inputs[0]) if op.kind in _KINDS else None
        if pad is not None and pad.kind == "pad" and _is_same(pad, op):
            fused[op] = pad
    ops = [
        dataclasses.replace(
            op,
            inputs=[fused[op].inputs[0], *op.inputs[1:]],
            options={**op.options, "padding": "same"},
        )
        if op in fused
        else op
        for op in program.ops
    ]
    read = {t for op in ops for t in op.inputs} | set(program.outputs)
    pads = set(fused.values())
    ops = [op for op in ops if op not in pads or op.output in read]
    return dataclasses.replace(program, ops=ops)


def _is_same(pad, conv):
    """Whether padding and a "valid" kernel are one "same" kernel."""
    if conv.options["padding"] != "valid" or len(pad.output.shape) != 3:
        return False
    if None in pad.inputs[0].shape:
        return False
    codes = conv.inputs[1] if conv.weights is None else conv.weights.codes
    return all(
        pads == _same(size, (kernel - 1) * dilation + 1, stride)
        for size, pads, kernel, stride, dilation in zip(
            pad.inputs[0].shape,
            (tuple(int(n) for n in p) for p in pad.options["padding"]),
            codes.shape[1:3],
            conv.options["strides"],
            conv.options["dilation"],
        )
    )


def _same(size, reach, stride):
    """Pixels before and after that "same" adds."""
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2
