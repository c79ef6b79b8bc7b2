"""Reading what somebody else wrote: only ever a `ValueError`."""

import json

# What code that expects its own format raises at another one.
MISFITS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


def parse_json(content):
    """The value of JSON text.

    Args:
        content: text, or bytes in UTF-8.

    Raises:
        ValueError: if it is none, whatever is wrong with it.

    Example:

    >>> from keras_saq.untrusted import parse_json
    >>> parse_json(b'{"a": [1]}')
    {'a': [1]}
    >>> parse_json(100_000 * "[")
    Traceback (most recent call last):
        ...
    ValueError: its parts are nested too deeply
    """
    if isinstance(content, bytes):
        content = content.decode()
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("its parts are nested too deeply") from None
