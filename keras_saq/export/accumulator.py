"""Sums of products of codes, which a kernel holds in 32 bits."""

LARGEST_SUM = 2**31 - 1


def largest_code(tensor):
    """The largest distance of an int8 code from the zero point of a tensor."""
    return int(max(127 - tensor.zero_point, tensor.zero_point + 128))


def check_reach(reach, path, terms, mend):
    """Raises if some input in range makes a sum that 32 bits do not hold.

    Args:
        reach: the largest sum, a number.
        path: of the layer.
        terms: what is added up, such as `"100,000 products per output"`.
        mend: what to do about it.
    """
    if reach > LARGEST_SUM:
        raise ValueError(
            f"The sums of '{path}' can overflow: {reach:,} for some inputs in "
            f"range, and a file sums up to 2^31 - 1 = {LARGEST_SUM:,}. Its "
            f"kernel adds up {terms}. {mend}, or keep it in float with "
            "keep_float=True."
        )
