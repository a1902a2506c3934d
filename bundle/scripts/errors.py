"""Errors that a user can act on, and how the command line prints them."""

from __future__ import annotations

import ast
import difflib
import inspect
import json
import re
import sys
import traceback
from collections.abc import Sequence
from itertools import pairwise

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


def check_command_line(argv: Sequence[str] | None = None) -> None:
    """Refuse configuration keys that nothing uses, and print an `InputError` on one line from now on.

    ``monai.bundle run`` adds an unknown ``--key value`` to the config without a word, so that a misspelt key changes
    nothing. A key on the command line must exist in the config files; a key that a later config file adds to the first
    must be referred to by one of them. ``true`` and ``false`` arrive as texts there and are refused too. Does nothing
    outside ``python -m monai.bundle run``.

    Args:
        argv: command line, ``sys.argv`` by default.

    Raises:
        InputError: when a key is used by nothing, with the nearest one that is; when a value is a misspelt boolean.
    """
    argv = sys.argv if argv is None else argv
    words = [word for argument in argv[2:] for word in argument.split("=", 1)]
    if argv[1:2] != ["run"] or "--config_file" not in words:
        return
    sys.excepthook = _one_line_hook
    for key, value in pairwise(words):
        if key.startswith("--") and value in ("true", "false"):
            raise InputError(f"{key} {value} would be taken as text, which counts as true; write {key} {value.title()}")
    given = words[words.index("--config_file") + 1]
    paths = ast.literal_eval(given) if given.startswith(("[", "(")) else [given]
    base = ConfigParser(config=ConfigParser.load_config_file(paths[0]))
    merged = ConfigParser(config=ConfigParser.load_config_files(paths))
    text = json.dumps(merged.get(), default=str)

    own = set(inspect.signature(run).parameters)
    asked = [word[2:] for word in words if word.startswith("--")]
    unknown = [key for key in asked if key not in own and key not in merged]
    added = [key for path in paths[1:] for key in ConfigParser.load_config_file(path)]
    unknown += [
        key
        for key in added
        if key not in base
        and key.rsplit("::", 1)[0] not in base
        and key not in words
        and not re.search(rf"[@%]{re.escape(key)}\b", text)
    ]
    for key in unknown:
        nearest = difflib.get_close_matches(key, set(merged.get()) - set(unknown), n=1)
        hint = f"did you mean '{nearest[0]}'?" if nearest else f"the keys are: {', '.join(base.get())}"
        raise InputError(f"nothing in {', '.join(paths)} uses the key '{key}'; {hint}")
