"""Configs of the bundle as one reads them from another, from any working directory, and the keys that a command line may set."""

from __future__ import annotations

import difflib
import inspect
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser, run
from monai.bundle.utils import merge_kv

from .errors import InputError, one_line_errors
from .locations import CONFIGS

# What is null or worked out unless a command line says it.
KINDS = {
    **dict.fromkeys(
        (
            "threshold",
            "result_spacing",
            "num_workers",
            "average_momentum",
            "learning_rate_drop",
            "max_minutes",
            "log_every",
        ),
        "a number",
    ),
    **dict.fromkeys(("partial_volume",), "a number"),
    **dict.fromkeys(
        ("input", "modality", "datalist", "packed", "bank", "generator_datalist", "checkpoint", "initial_weights"),
        "a text",
    ),
    **dict.fromkeys(("cache_dir", "label_dir", "dataset_dir", "data_root_dir", "scheduler", "cluster"), "a text"),
    "template_is_mni": "True or False",
    "target_contrast": "a dictionary",
    "seed_saturation": "a list",
}
# Numbers that must be more than 0, also inside of lists.
POSITIVE = (
    "voxel_size",
    "patch_size",
    "slice_size",
    "features",
    "fold",
    "batch_size",
    "learning_rate",
    "number",
    "halves",
)
POSITIVE += (
    "iterations",
    "iterations_per_epoch",
    "validation_draws",
    "result_spacing",
    "scans_per_step",
    "slices_per_scan",
    "workers",
    "max_minutes",
    "accumulation_steps",
    "change_voxel_size",
)
CHOICES = {  # of keys that have few values
    "registered": ("filled", "pred_healthy", "scan"),
    "engine": ("elastix", "ants"),
}
REPLACED = (("packed", "datalist"), ("packed", "traced_masks"))  # the first brings what the second names
GROUPS = 8  # of the group normalization of UNA's network
LEAST_LEVELS = 3  # of a UNet of MONAI's

READ_BEFORE = ("extends",)  # of the file of a method, see `method_files`
# Of a run: where its files lie and are listed, and how fast it is. What a file holds counts, see `run_settings`.
NO_MATTER = (
    "input",
    "dataset_dir",
    "data_root_dir",
    "label_dir",
    "output_dir",
    "cache_dir",
    "device",
    "workers",
    "scheduler",
    "cluster",
    "num_workers",
    "validation_every",
    "run",
    # What is made of the results of several scans notes its own settings.
    "sessions",
    "session",
    "together",
    "inferring",
    "change",
    "change_limit",
    "change_near",
    "change_voxel_size",
    "follow_up",
    "following",
)

# Configs call the package `scripts`, as the model zoo does. Installed, it is `una`.
if __package__ != "scripts":
    sys.modules.setdefault("scripts", sys.modules[__package__])

__all__ = [
    "CONFIGS",
    "check_command_line",
    "command_line",
    "from_config",
    "method_files",
    "method_names",
    "parse",
    "run_settings",
]


def parse(files: Sequence[str], overrides: Mapping[str, Any]) -> ConfigParser:
    """Read files of ``bundle/configs``, a later one over an earlier, and replace top-level values.

    Raises:
        InputError: when the files have no such key.
    """
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / file) for file in files])
    if unknown := [key for key in overrides if key not in parser]:
        raise _unused(unknown[0], files, parser.get())
    parser.update(dict(overrides))
    return parser


def from_config(file: str, part: str, overrides: Mapping[str, Any]) -> Any:
    """Resolve an id of another config file in ``bundle/configs``.

    Does what MONAI's ``%file::id`` macro does, but finds the file from any working directory, keeps the references
    inside it, and takes overrides.

    Args:
        file: name of the file in ``bundle/configs``.
        part: id to resolve.
        overrides: top-level values of that file to replace.
    """
    return parse([file], overrides).get_parsed_content(part)


def method_names() -> list[str]:
    """Every method that has a file in ``configs/methods``."""
    return sorted(file.stem for file in (CONFIGS / "methods").glob("*.yaml"))


def method_files(name: str) -> list[str]:
    """The files that describe a method, in the order in which they are read: what it extends, and its own.

    Args:
        name: of a file in ``configs/methods``, or the path of a file that lies elsewhere.

    Raises:
        InputError: when there is no such file.
    """
    file = CONFIGS / "methods" / f"{name}.yaml" if not str(name).endswith((".yaml", ".json")) else Path(name).absolute()
    if not file.is_file():
        raise InputError(
            f"there is no method '{name}'; the methods are {', '.join(method_names())}, or a YAML file of your own"
        )
    base = ConfigParser.load_config_file(str(file)).get("extends")
    return [*(method_files(base) if base else []), str(file)]


def _unused(key: str, files: Iterable[str], known: Iterable[str]) -> InputError:
    nearest = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean '{nearest[0]}'?" if nearest else f"the keys are: {', '.join(known)}"
    return InputError(f"nothing in {', '.join(files)} uses the key '{key}'; {hint}")


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
    if usual is None and value is None:
        return
    if value in ("true", "false"):
        raise InputError(f"--{key} {value} would be taken as text, which counts as true; write --{key} {value.title()}")
    found, wanted = _kind(value), _kind(usual) or KINDS.get(key)
    # A folder named 20240117 is read as a number.
    way_out = (
        f"; for a file or folder of that name write ./{value}" if wanted == "a text" and found == "a number" else ""
    )
    if _kind(usual) is None and found != wanted and None not in (found, wanted):
        raise InputError(f"--{key} {value!r} is {found}; it must be {wanted}{way_out}")
    if found != wanted and None not in (found, wanted):
        raise InputError(f"--{key} {value!r} is {found}; the config has {wanted} there, {usual!r}{way_out}")
    if wanted == "a number" and isinstance(usual, int) and isinstance(value, float) and value != int(value):
        raise InputError(f"--{key} {value!r} is no whole number; the config has {usual!r}")


def _check_sizes(config: Mapping[str, Any]) -> None:
    """Refuse sizes that no network and no loop can have, before anything is made."""

    def plain(key: str) -> list[float]:
        value = config.get(key)
        values = value if isinstance(value, list) else [value]
        return values if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values) else []

    for key in POSITIVE:
        if any(not value > 0 for value in plain(key)):
            raise InputError(f"--{key} {config[key]} is not possible: it must be more than 0")
    for key, known in CHOICES.items():
        if key in config and config[key] not in known:
            raise InputError(f"--{key} {config[key]} is not possible: it must be one of {', '.join(known)}")
    patch, features, fold = plain("patch_size"), plain("features"), plain("fold")
    if features and len(features) < LEAST_LEVELS:
        raise InputError(f"--features {features} has {len(features)} levels; the network needs {LEAST_LEVELS} or more")
    if "fold" in config and any(size % GROUPS for size in features):
        raise InputError(f"--features {features} do not fit the network: each must be a multiple of {GROUPS}")
    if patch and (len(patch) != 3 or any(size != int(size) for size in patch)):
        raise InputError(f"--patch_size {patch} must be three whole numbers")
    if patch and features and fold:
        step = int(fold[0]) * 2 ** (len(features) - 1)
        if any(size % step for size in patch):
            raise InputError(
                f"--patch_size {patch} does not fit the network: each must be a multiple of {step}, with {len(features)} features "
                f"and a fold of {fold[0]}"
            )


def _check_output(path: Any) -> None:
    """Refuse a folder that cannot be written to, before any work."""
    if not isinstance(path, str) or path.startswith(("$", "@", "%")):
        return
    folder = Path(path).absolute()
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists() or parent.is_symlink())
    if not nearest.is_dir():
        raise InputError(f"--output_dir {path}: {nearest} is no folder; give another one")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"--output_dir {path}: {nearest} cannot be written to; give a folder of your own")


def _check_device(name: Any) -> None:
    """Refuse a device that is not there, before any work."""
    if not isinstance(name, str) or name.startswith(("$", "@", "%")):
        return
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without it
        there = ", ".join(["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))])
        raise InputError(f"--device {name}: there is no such device; this machine has {there}") from error


def command_line(argv: Sequence[str] | None = None) -> tuple[list[str], dict[str, Any]]:
    """The config files and the keys that ``python -m monai.bundle run`` was given; nothing outside of it.

    Args:
        argv: command line, ``sys.argv`` by default.
    """
    argv = sys.argv if argv is None else argv
    given = _given(argv[2:]) if argv[1:2] == ["run"] else {}
    if "config_file" not in given:
        return [], {}
    paths = given.pop("config_file")
    own = set(inspect.signature(run).parameters)
    return [paths] if isinstance(paths, str) else list(paths), {k: v for k, v in given.items() if k not in own}


def run_settings(known: Mapping[str, Any]) -> dict[str, Any]:
    """What the results of a run depend on: all that its configs and its command line say, but for `NO_MATTER`.

    Args:
        known: what else they depend on, such as the content of weights.

    Returns:
        ``known`` and ``config``; outside ``python -m monai.bundle run`` the former alone.
    """
    paths, given = command_line()
    if not paths:
        return dict(known)
    said = {**ConfigParser.load_config_files(paths), **given}
    return {**known, "config": {key: value for key, value in said.items() if key not in NO_MATTER}}


def check_command_line(argv: Sequence[str] | None = None) -> None:
    """Refuse configuration keys that nothing uses and values of another type, and print an `InputError` on one line from now on.

    ``monai.bundle run`` adds an unknown ``--key value`` to the config without a word, so that a misspelt key changes
    nothing. A key on the command line or in ``--args_file`` must exist in the config files, and its value must be of the type of
    the one there; a key that a later config file adds to the first must be referred to by one of them. ``true`` and ``false``
    arrive as texts on the command line and are refused too. Does nothing outside ``python -m monai.bundle run``.

    Args:
        argv: command line, ``sys.argv`` by default.

    Raises:
        InputError: when a key is used by nothing, with the nearest one that is; when one key replaces another; when a value has
            another type, or is a size that cannot be; when there is no such ``device``; when ``output_dir`` cannot be written to.
    """
    paths, given = command_line(argv)
    if not paths:
        return
    one_line_errors()
    # A file may use what another one adds, also where a third replaces that place.
    text = "".join(Path(path).read_text(encoding="utf-8") for path in paths)

    merged, unknown = ConfigParser(config={}), []
    for path in paths:
        content = ConfigParser.load_config_file(path)
        unknown += [
            key
            for key in (key.lstrip("+~") for key in content)  # which tell MONAI to merge
            if path != paths[0]
            and key not in merged
            and key not in READ_BEFORE
            and key.rsplit("::", 1)[0] not in merged
            and key not in given
            and not re.search(rf"[@%]{re.escape(key)}\b", text)
        ]
        for key, value in content.items():
            merge_kv(merged, key, value)
    # What goes into an empty dictionary, as in --generator::shares, is checked by the file that it is for.
    inside = lambda key: merged.get(key.rsplit("::", 1)[0]) == {}  # noqa: E731
    unknown = [key for key in given if key not in merged and not inside(key)] + unknown
    if unknown:
        raise _unused(unknown[0], paths, set(merged.get()) - set(unknown))
    for one, other in REPLACED:
        if given.get(one) is not None and given.get(other) is not None:
            raise InputError(f"--{one} brings its own {other}, so that --{other} would change nothing; leave one out")
    for key, value in given.items():
        if key in merged:
            _check_type(key, value, merged[key])
    wanted = {**merged.get(), **given}
    _check_sizes(wanted)
    _check_device(wanted.get("device"))
    _check_output(wanted.get("output_dir"))
