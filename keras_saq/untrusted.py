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


def root_cause(error):
    """What an exception is about, below those that were made of it.

    Example:

    >>> from keras_saq.untrusted import root_cause
    >>> try:
    ...     try:
    ...         int("one")
    ...     except ValueError as error:
    ...         raise TypeError("no number") from error
    ... except TypeError as error:
    ...     print(root_cause(error))
    invalid literal for int() with base 10: 'one'
    """
    seen = set()
    while id(error) not in seen:
        seen.add(id(error))
        error = error.__cause__ or error.__context__ or error
    if isinstance(error, ValueError):
        return str(error)
    return f"{type(error).__name__}: {error}"
