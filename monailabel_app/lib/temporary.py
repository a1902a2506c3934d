"""Where the desk keeps what readers upload until it is answered: a folder of its own, cleared after a kill."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from psutil import pid_exists

__all__ = ["private_temporary_folder"]

PREFIX = "una_desk_"


def private_temporary_folder() -> Path:
    """Make one (mode 0700), put all temporary files of this process and its children there, and remove those of killed desks.

    MONAI Label writes uploads to the system's folder under the rights of the shell, often readable by everybody, and removes them
    only after its answer.
    """
    system = Path(tempfile.gettempdir())
    for folder in system.glob(f"{PREFIX}*_*"):
        process = folder.name.removeprefix(PREFIX).split("_")[0]
        if (
            process.isdigit()
            and not folder.is_symlink()
            and folder.stat().st_uid == os.getuid()
            and not pid_exists(int(process))
        ):
            shutil.rmtree(folder, ignore_errors=True)
    own = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}_", dir=system))
    tempfile.tempdir = os.environ["TMPDIR"] = str(own)
    return own
