"""Settings of a command from a file: `--config=run.toml`."""

import argparse
import difflib
import json
import pathlib
import sys
import tomllib

from keras_saq.untrusted import MISFITS
from keras_saq.untrusted import parse_json

# In the namespace, and no setting of the user's.
_INTERNAL = ("command", "run", "config", "traceback")


def add_argument(parser):
    """The flag that every command has."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="read flags from a .toml or .json file, by their names; flags on "
        "the command line win",
    )


def settings_of(args):
    """Dict of the resolved flags of a command, as plain data."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in sorted(vars(args).items())
        if name not in _INTERNAL
    }


class _Replaceable(list):
    """A default that flags on the command line replace, not extend."""

    def __copy__(self):  # argparse appends to a copy
        return []


def apply(parser, path, output=None):
    """Makes the values of a file the defaults of a command's flags.

    Args:
        parser: the command's parser.
        path: a `.toml` or `.json` file with a key per flag, or a `run.json`,
            of which the `"settings"` are read.
        output: what `--output` on the command line says. Where a `run.json`
            is of another folder, its `export` is left out: the file is that
            run's.

    Raises:
        ValueError: if the file is missing or not readable, or if a key or a
            value is no flag's.
    """
    values = _read(pathlib.Path(path), output)
    actions = {
        name: action
        for action in parser._actions
        if action.default is not argparse.SUPPRESS
        for name in _names(action)
    }
    known = sorted({_names(action)[-1] for action in actions.values()})
    defaults = {}
    for key, value in values.items():
        action = actions.get(key.replace("-", "_"))
        if action is None or action.dest in ("help", "config"):
            close = difflib.get_close_matches(
                key.replace("-", "_"), [k for k in known if k != "config"], 1
            )
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise ValueError(
                f"'{path}' has the key '{key}', which is no flag of "
                f"`{parser.prog}`.{hint}"
            )
        if value is None:  # JSON's null: not given
            continue
        defaults[action.dest] = _converted(action, key, value, path)
        action.required = False
        if not action.option_strings:
            action.nargs = "*" if action.nargs == "+" else "?"
    parser.set_defaults(**defaults)


def _names(action):
    """What an argument may be called in a file, its usual name last."""
    options = [o.lstrip("-").replace("-", "_") for o in action.option_strings]
    return [action.dest, *options]


def _read(path, output):
    try:
        content = path.read_bytes()
        if path.suffix == ".toml":
            values = tomllib.loads(content.decode())
        elif path.suffix == ".json":
            values = parse_json(content)
        else:
            raise ValueError("expected a name that ends in .toml or .json")
    except (OSError, *MISFITS) as error:
        raise ValueError(
            f"The config file '{path}' cannot be read: {error}"
        ) from error
    if not isinstance(values, dict):
        raise ValueError(
            f"The config file '{path}' must hold a table of flags. "
            f"Received: {type(values).__name__}"
        )
    if isinstance(values.get("settings"), dict):
        return _settings_of_run(values["settings"], output)
    return values


def _settings_of_run(settings, output):
    there = settings.get("output")
    if None in (there, output) or not settings.get("export"):
        return settings
    if pathlib.Path(output).resolve() == pathlib.Path(there).resolve():
        return settings
    print(
        f"note: --export={settings['export']} is of the run in '{there}' and "
        "is left out; give --export for a file of this one",
        file=sys.stderr,
    )
    return {k: v for k, v in settings.items() if k != "export"}


def _converted(action, key, value, path):
    """The value that the command line would have made of it."""

    def refuse(expected):
        return ValueError(
            f"'{path}' has {key} = {json.dumps(value, default=str)}: "
            f"{expected}."
        )

    if action.nargs == 0:  # a switch
        if not isinstance(value, bool):
            raise refuse("expected true or false")
        return value
    many = isinstance(action, argparse._AppendAction) or action.nargs == "+"
    if many:
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(v, str) for v in values):
            raise refuse("expected a list of texts")
        return _Replaceable(values)
    if isinstance(value, (bool, dict)):
        raise refuse("expected a text or a number")
    parts = value if isinstance(value, list) else [value]
    if not all(isinstance(v, (str, int, float)) for v in parts):
        raise refuse("expected a text, a number or a list of them")
    text = ",".join(map(str, parts))
    try:
        converted = text if action.type is None else action.type(text)
    except (argparse.ArgumentTypeError, ValueError, TypeError) as error:
        raise refuse(error) from error
    if action.choices is not None and converted not in action.choices:
        close = difflib.get_close_matches(text, map(str, action.choices), 1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise refuse(
            f"expected one of {', '.join(map(str, action.choices))}{hint}"
        )
    return converted
