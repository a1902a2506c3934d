"""Errors that a user can act on, and how the command line prints them."""

from __future__ import annotations

import difflib
import inspect
import json
import re
import sys
import traceback
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser, run

__all__ = ["InputError", "check_command_line", "input_error"]


class InputError(ValueError):
    """Something the user gave cannot be used. The message names what, why, and the way out, on one line."""


def input_error(error: BaseException | None) -> InputError | None:
    """The `InputError` behind an error, or None: MONAI wraps what a transform raises."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__
    return error


def _one_line_hook(error_type, error, trace) -> None:
    # The text, not the chain of causes: an error of a data loader's worker arrives as text.
    report = "".join(traceback.format_exception(error_type, error, trace))
    own = re.search(rf"{InputError.__name__}: (.+)", report)
    print(f"error: {own.group(1)}" if own else report, file=sys.stderr)


def _given(argv: Sequence[str]) -> dict[str, Any]:
    """What a command line and its ``--args_file`` set, as Fire and MONAI read them."""
    words = [
        word for argument in argv for word in (argument.split("=", 1) if argument.startswith("--") else [argument])
    ]
    given = {}
    for key, value in pairwise([*words, "--"]):
        if key.startswith("--"):  # a key without a value is a switch
            given[key[2:]] = True if value.startswith("--") else DefaultParseValue(value)
    file = given.get("args_file")
    return {**(ConfigParser.load_config_file(file) if file else {}), **given}


def _kind(value: Any) -> str | None:
    """What a value of a config is; None for what only its evaluation tells."""
    if value is None or (isinstance(value, str) and value.startswith(("$", "@", "%"))):
        return None
    kinds = {bool: "True or False", int: "a number", float: "a number", str: "a text", list: "a list", tuple: "a list"}
    return kinds.get(type(value), "a dictionary")


def _check_type(key: str, value: Any, usual: Any) -> None:
    if value in ("true", "false"):
        raise InputError(f"--{key} {value} would be taken as text, which counts as true; write --{key} {value.title()}")
    found, wanted = _kind(value), _kind(usual)
    if found != wanted and None not in (found, wanted):
        raise InputError(f"--{key} {value!r} is {found}; the config has {wanted} there, {usual!r}")
    if wanted == "a number" and isinstance(usual, int) and isinstance(value, float) and value != int(value):
        raise InputError(f"--{key} {value!r} is no whole number; the config has {usual!r}")


def check_command_line(argv: Sequence[str] | None = None) -> None:
    """Refuse configuration keys that nothing uses and values of another type, and print an `InputError` on one line from now on.

    ``monai.bundle run`` adds an unknown ``--key value`` to the config without a word, so that a misspelt key changes
    nothing. A key on the command line or in ``--args_file`` must exist in the config files, and its value must be of the type of
    the one there; a key that a later config file adds to the first must be referred to by one of them. ``true`` and ``false``
    arrive as texts on the command line and are refused too. Does nothing outside ``python -m monai.bundle run``.

    Args:
        argv: command line, ``sys.argv`` by default.

    Raises:
        InputError: when a key is used by nothing, with the nearest one that is; when a value has another type.
    """
    argv = sys.argv if argv is None else argv
    given = _given(argv[2:]) if argv[1:2] == ["run"] else {}
    if "config_file" not in given:
        return
    sys.excepthook = _one_line_hook
    paths = given["config_file"]
    paths = [paths] if isinstance(paths, str) else list(paths)
    base = ConfigParser(config=ConfigParser.load_config_file(paths[0]))
    merged = ConfigParser(config=ConfigParser.load_config_files(paths))
    text = json.dumps(merged.get(), default=str)

    own = set(inspect.signature(run).parameters)
    unknown = [key for key in given if key not in own and key not in merged]
    added = [key for path in paths[1:] for key in ConfigParser.load_config_file(path)]
    unknown += [
        key
        for key in added
        if key not in base
        and key.rsplit("::", 1)[0] not in base
        and key not in given
        and not re.search(rf"[@%]{re.escape(key)}\b", text)
    ]
    for key in unknown:
        nearest = difflib.get_close_matches(key, set(merged.get()) - set(unknown), n=1)
        hint = f"did you mean '{nearest[0]}'?" if nearest else f"the keys are: {', '.join(base.get())}"
        raise InputError(f"nothing in {', '.join(paths)} uses the key '{key}'; {hint}")
    for key, value in given.items():
        if key not in own:
            _check_type(key, value, merged[key])
