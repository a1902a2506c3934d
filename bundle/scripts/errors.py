"""Errors that a user can act on, and how the command line prints them."""

from __future__ import annotations

import re
import sys
import traceback

__all__ = ["InputError", "input_error", "one_line_errors"]


class InputError(ValueError):
    """Something the user gave cannot be used. The message names what, why, and the way out, on one line."""


def input_error(error: BaseException | None) -> InputError | None:
    """The `InputError` behind an error, or None: MONAI wraps what a transform raises."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__
    return error


def one_line_errors() -> None:
    """Print an `InputError` that ends the program on one line from now on, without its traceback."""
    sys.excepthook = _one_line_hook


def _one_line_hook(error_type, error, trace) -> None:
    # The text, not the chain of causes: an error of a data loader's worker arrives as text.
    report = "".join(traceback.format_exception(error_type, error, trace))
    own = re.search(rf"{InputError.__name__}: (.+)", report)
    print(f"error: {own.group(1)}" if own else report, file=sys.stderr)
