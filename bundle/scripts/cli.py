"""``una COMMAND``: ``python -m monai.bundle run COMMAND`` with the config files that belong to it, and nothing else."""

from __future__ import annotations

import difflib
import re
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from . import __version__
from .locations import CONFIGS

__all__ = ["COMMANDS", "about", "keys_of", "main"]

COMMANDS = {
    "inferring": ("inference",),
    "normalizing": ("inference", "normalize"),
    "following": ("inference", "follow"),
    "judging": ("inference", "judge"),
    "gating": ("inference", "gate"),
    "frontier": ("inference", "frontier"),
    "calibrating": ("inference", "calibrate"),
    "preprocessing": ("preprocess",),
    "registering": ("register_lesions",),
    "banking": ("bank",),
    "packing": ("train",),
    "training": ("train",),
    "evaluating": ("train", "evaluate"),
    "generating": ("generate",),
    "comparing": ("compare",),
}
KEY = re.compile(r"^([a-z]\w*):(?: +([^# ].*?))?(?: +# (.*))?$")
HIDDEN = ("imports", "initialize", "finalize", "run", "check", "bundle_root", "handlers", "maps", "saves", "results")
WIDTH = 32  # columns of a key and its default


def _text(name: str) -> list[str]:
    return (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()


def about(command: str) -> str:
    """What a command does, in one sentence: the comment of its entry, else the first one of its last file."""
    lines = _text(COMMANDS[command][-1])
    own = next((found[1] for line in lines if (found := re.match(rf"{command}: +# (.+)", line))), None)
    head = []
    for line in lines:
        if not line.startswith("# ") or line.startswith("# python"):
            break
        head.append(line[2:])
    return re.split(r"(?<=\.) ", own or " ".join(head))[0].rstrip(".")


def keys_of(command: str) -> dict[str, tuple[str, str]]:
    """Keys that a command line may set, with default and comment, as the config files of a command have them.

    Left out is what has neither a value to write down nor a comment: objects, and what is worked out from other keys.
    """
    found: dict[str, tuple[str, str]] = {}
    for name in COMMANDS[command]:
        for line in _text(name):
            match = KEY.match(line)
            if not match or match[1] in HIDDEN or match[1] in COMMANDS or match[2] is None:
                continue
            worked_out = match[2].lstrip("'\"").startswith(("$", "@", "%"))
            if not worked_out or match[3]:
                found[match[1]] = ("worked out" if worked_out else match[2], match[3] or "")
    return found


def _completion() -> str:
    """A bash script; zsh takes it after ``autoload -U bashcompinit && bashcompinit``."""
    cases = "\n".join(
        f'    {command}) words="{" ".join(f"--{key}" for key in keys_of(command))}";;' for command in COMMANDS
    )
    return f"""_una() {{
  local words="" command="${{COMP_WORDS[1]}}" current="${{COMP_WORDS[COMP_CWORD]}}"
  case "$command" in
{cases}
  esac
  if [ "$COMP_CWORD" -eq 1 ]; then COMPREPLY=($(compgen -W "{" ".join(COMMANDS)}" -- "$current"))
  elif [[ "$current" == -* ]]; then COMPREPLY=($(compgen -W "$words --help" -- "$current"))
  else COMPREPLY=($(compgen -f -- "$current")); fi
}}
complete -o filenames -F _una una"""


def _help(command: str) -> str:
    files = ", ".join(f"{name}.yaml" for name in COMMANDS[command])
    lines = [f"una {command}: {about(command)}", f"keys of {files} in {CONFIGS}, with their defaults:", ""]
    for key, (default, comment) in keys_of(command).items():
        head = f"  --{key} {default}"
        lines.append(f"{head:<{WIDTH}}  {comment}" if comment else head)
    return "\n".join(lines)


def _files(command: str, more: Sequence[str]) -> list[str]:
    """Config files of a command, then those of the user: by path, or by name in the bundle's own folder."""
    own = [str(CONFIGS / f"{name}.yaml") for name in COMMANDS[command]]
    return own + [str(file if Path(file).is_file() else CONFIGS / file) for file in more]


def main() -> None:
    """Entry point of the console script."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(f"una {__version__}: healthy brain anatomy from any scan, and what deviates from it\n")
        print("\n".join(f"  una {command:<14} {about(command)}" for command in COMMANDS))
        print("  una bids           A BIDS data set in, BIDS derivatives out: una bids BIDS_DIR OUT participant|group")
        print("\nuna COMMAND --help lists its keys; una --completion is a script for bash and zsh. Research use only.")
        return
    if words[0] in ("--version", "--completion"):
        print(__version__ if words[0] == "--version" else _completion())
        return
    command, *rest = words
    if command == "bids":  # what it needs takes seconds to load
        from .bids_app import main as bids

        bids(rest)
        return
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        told = f"did you mean '{near[0]}'?" if near else f"the commands are {', '.join(COMMANDS)}"
        sys.exit(f"error: there is no command '{command}'; {told}")
    if {"-h", "--help"} & set(rest):
        print(_help(command))
        return
    more = []
    while "--config_file" in rest:
        place = rest.index("--config_file")
        if place + 1 == len(rest):
            sys.exit("error: --config_file needs a file")
        more.append(rest[place + 1])
        del rest[place : place + 2]
    sys.argv = ["monai.bundle", "run", command, "--config_file", str(_files(command, more)), *rest]
    runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
