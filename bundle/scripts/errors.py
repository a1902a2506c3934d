"""Errors that a user can act on, and how the command line prints them."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Sequence

__all__ = ["InputError", "check_command_line"]


class InputError(ValueError):
    """Something the user gave cannot be used. The message names what, why, and the way out, on one line."""


def _one_line_hook(error_type, error, traceback) -> None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            print(f"error: {cause}", file=sys.stderr)
            return
        cause = cause.__cause__ or cause.__context__
    sys.__excepthook__(error_type, error, traceback)


def check_command_line(argv: Sequence[str] | None = None) -> None:
    """Refuse configuration keys that no config file has, and print an `InputError` on one line from now on.

    ``monai.bundle run`` adds an unknown ``--key value`` to the config without a word, so that a misspelt key
    changes nothing. The first config file is taken as the truth: overrides on the command line and top-level keys
    of later config files must exist in it. Does nothing outside ``python -m monai.bundle run``.

    Args:
        argv: command line, ``sys.argv`` by default.

    Raises:
        InputError: when a key does not exist, with the nearest one that does.
    """
    from monai.bundle import ConfigParser, run

    argv = sys.argv if argv is None else argv
    if len(argv) < 2 or argv[1] != "run" or "--config_file" not in " ".join(argv):
        return
    sys.excepthook = _one_line_hook
    words = [word for argument in argv[2:] for word in argument.split("=", 1)]
    options = dict(zip(words, words[1:]))
    files = ConfigParser(config={"files": "$" + options["--config_file"]}) if "[" in options["--config_file"] else None
    paths = files.get_parsed_content("files") if files else [options["--config_file"]]
    base = ConfigParser(config=ConfigParser.load_config_file(paths[0]))

    asked = [word[2:] for word in words if word.startswith("--")]
    own = set(inspect.signature(run).parameters)
    asked = [key for key in asked if key.replace("-", "_") not in own]
    asked += [key for path in paths[1:] for key in ConfigParser.load_config_file(path)]
    for key in asked:
        if key not in base:
            nearest = difflib.get_close_matches(key, list(base.get()), n=1)
            hint = f", did you mean '{nearest[0]}'?" if nearest else f"; its keys are: {', '.join(base.get())}"
            raise InputError(f"{paths[0]} has no key '{key}'{hint}")
