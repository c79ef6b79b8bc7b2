"""What happens to files: on the way, and by somebody's hand."""

import io
import json
import re
import zipfile

import numpy as np

_ABSURD_BYTES = (
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x00\x00\x00\x80",
    b"\x00\x00\x00\x00",
    b"\x00\x00\xc0\x7f",  # NaN
    b"\x01\x00\x00\x00",
    b"\x00\x00\x01\x00",
)
_ABSURD = (
    *(0, 1, -1, 2**31, 2**40, -(2**63), 10**30, 3000),
    *(0.5, 1e308, -1e-300, float("nan"), float("inf")),
    *("", "a", "\x1b[2J\n\u202e", "x" * 3000, "(a+)+b", "w99a-1"),
    *([], {}, None, True, False, [[1]], {"class_name": "Dense", "config": {}}),
    *({"class_name": "No", "config": None}, [None] * 9, ["w4a8"]),
)


def mutated_bytes(content, rng):
    """A file's bytes with a few of them changed, moved or gone."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        size = len(content)
        if not size:
            break
        place = rng.randrange(size)
        how = rng.randrange(7)
        if how == 0:
            content[place] ^= 1 << rng.randrange(8)
        elif how == 1:
            content[place] = rng.randrange(256)
        elif how == 2:
            del content[place:]
        elif how == 3:
            start = rng.randrange(size)
            chunk = content[start : start + rng.randrange(1, 65)]
            content[place : place + len(chunk)] = chunk
        elif how == 4:
            place -= place % 4
            content[place : place + 4] = rng.choice(_ABSURD_BYTES)
        elif how == 5:
            length = rng.randrange(1, 33)
            content[place : place + length] = bytes(length)
        else:
            del content[place : place + rng.randrange(1, 9)]
    return bytes(content)


def mutated_value(value, rng):
    """A JSON value with a part that is another, gone or doubled."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(value))
        if not places:
            return rng.choice(_ABSURD)
        holder, key = rng.choice(places)
        how = rng.randrange(6)
        if how < 3:
            holder[key] = rng.choice(_ABSURD)
        elif how == 3:
            del holder[key]
        elif how == 4:
            other, other_key = rng.choice(places)
            try:
                holder[key] = json.loads(json.dumps(other[other_key]))
            except (LookupError, TypeError):
                holder[key] = None
        elif isinstance(holder, dict):
            holder[f"{key}_"] = holder.pop(key)
        else:
            holder.append(holder[key])
    return value


def _places(value):
    if isinstance(value, dict):
        entries = list(value.items())
    elif isinstance(value, list):
        entries = list(enumerate(value))
    else:
        return
    for key, entry in entries:
        yield value, key
        yield from _places(entry)


def mutated_json(content, rng):
    """JSON text: its value changed, or its text, or nested without end."""
    how = rng.randrange(10)
    if how == 0:
        return b"[" * 100_000
    if how < 3:
        return mutated_bytes(content, rng)
    value = mutated_value(json.loads(content), rng)
    return json.dumps(value).encode("utf-8", "surrogatepass")


def mutated_toml(content, rng):
    """TOML text: a value or a key changed, or its bytes."""
    if rng.randrange(3) == 0:
        return mutated_bytes(content, rng)
    lines = content.decode().splitlines()
    i = rng.randrange(len(lines))
    key, _, value = lines[i].partition("=")
    how = rng.randrange(4)
    if how < 2:
        new = json.dumps(rng.choice(_ABSURD))
        lines[i] = f"{key}={new}"
    elif how == 2:
        lines[i] = f"{re.sub('a|e|o', 'x', key)}={value}"
    else:
        lines[i] = f"[{key.strip()}]\n{lines[i]}"
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def mutated_zip(content, rng):
    """An archive: its bytes, or those of a part, put together again."""
    if rng.randrange(3) == 0:
        return mutated_bytes(content, rng)
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        chosen = rng.choice(names)
        with zipfile.ZipFile(made, "w") as result:
            for name in names:
                part = archive.read(name)
                if name == chosen:
                    if rng.randrange(20) == 0:
                        continue
                    change = mutated_bytes
                    if name.endswith(".json"):
                        change = mutated_json
                    part = change(part, rng)
                result.writestr(name, part)
    return made.getvalue()


_NUMBERS = (-(2**31), -1, 0, 1, 2, 3, 7, 255, 2**16, 2**20, 2**31 - 1)


def mutated_tflite(content, rng):
    """A `.tflite`: its bytes, or a number in one of its tables.

    The second leaves a sound flatbuffer, which gets further into LiteRT.
    """
    if rng.randrange(2):
        return mutated_bytes(content, rng)
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    for _ in range(rng.choice((1, 1, 2, 3))):
        holder, name = rng.choice(list(_fields(model)))
        value = getattr(holder, name)
        if isinstance(value, (bool, int)):
            setattr(holder, name, _other_number(value, rng))
        elif isinstance(value, float):
            setattr(holder, name, rng.choice((0.0, -1.0, 1e30, float("nan"))))
        else:
            setattr(holder, name, _other_vector(value, rng))
    try:
        return bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    except Exception:  # noqa: BLE001 (a number that no flatbuffer holds)
        return mutated_bytes(content, rng)


def _other_number(value, rng):
    if rng.randrange(2):
        return rng.choice(_NUMBERS)
    return max(0, int(value) + rng.choice((-1, 1)))


def _other_vector(values, rng):
    values = np.array(values)
    how = rng.randrange(4)
    if how == 0 or not len(values):
        return values[: rng.randrange(len(values) + 1)]
    place = rng.randrange(len(values))
    if how == 1:
        values = np.insert(values, place, values[place])
    elif values.dtype.kind == "f":
        values[place] = rng.choice((0.0, -1.0, 1e30, 1e-40, np.nan, np.inf))
    else:
        limits = np.iinfo(values.dtype)
        number = _other_number(values[place], rng)
        values[place] = min(max(number, limits.min), limits.max)
    return values


def _fields(table, depth=0):
    """`(table, name)` of every number and list of numbers below a table."""
    for name, value in vars(table).items():
        if isinstance(value, (bool, int, float)):
            yield table, name
        elif isinstance(value, np.ndarray) and value.dtype.kind in "iuf":
            yield table, name
        elif isinstance(value, list):
            for entry in value:
                if hasattr(entry, "__dict__"):
                    yield from _fields(entry, depth + 1)
        elif hasattr(value, "__dict__") and depth < 6:
            yield from _fields(value, depth + 1)
