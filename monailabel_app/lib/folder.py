"""The folder of scans behind the desk: MONAI Label's store, without its ways to lose a label."""

from __future__ import annotations

import gzip
import json
import logging
import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore, LocalDatastoreModel
from monailabel.interfaces.exception import ImageNotFoundException
from scripts.saving import whole_file, write_whole
from scripts.volumes import VOLUME_ENDINGS, read_volume

__all__ = ["DeskFolder"]

INDEX = "datastore_v2.json"
logger = logging.getLogger(__name__)


class DeskFolder(LocalDatastore):
    """MONAI Label's store of files. A kill or a full disk cannot spoil what it writes.

    MONAI Label copies a new label onto the old one: a server that is killed there has lost both. An index that was cut in half
    keeps it from starting. Here files appear whole or not at all; at the start, an index or a label that cannot be read is named
    and renamed to ``*.unreadable``, and the index is built again from the files.

    Args:
        path: of the folder.
        settings: further arguments of MONAI Label's store.
    """

    def __init__(self, path: str, **settings: Any) -> None:
        self._set_unreadable_aside(Path(path))
        for folder in Path(path).glob("labels/*/"):
            self._set_older_aside(folder)
        super().__init__(path, datastore_config=INDEX, **settings)
        if settings.get("auto_reload"):
            self._handler.on_moved = self._on_moved

    @classmethod
    def _set_older_aside(cls, folder: Path, image_id: str | None = None) -> None:
        """Of several files of one label, whatever their formats, the newest one stays; the others are renamed to ``*.replaced``."""
        by_label: dict[str, list[Path]] = {}
        for file in folder.iterdir():
            ending = next((ending for ending in VOLUME_ENDINGS if file.name.lower().endswith(ending)), None)
            if ending and not file.name.startswith("."):
                by_label.setdefault(file.name[: -len(ending)], []).append(file)
        for label, files in by_label.items():
            for file in sorted(files, key=lambda file: file.stat().st_mtime_ns)[:-1]:
                if image_id in (None, label):
                    file.rename(file.with_name(f"{file.name}.replaced"))
                    logger.warning(
                        f"{file} is older than another file of the same label, and is now {file.name}.replaced"
                    )

    def _on_moved(self, event: Any) -> None:
        # Scoring and training run in processes of their own; an index that they write takes its place by a move.
        if Path(event.dest_path).name == INDEX:
            self._init_from_datastore_file()

    @staticmethod
    def _set_unreadable_aside(folder: Path) -> None:
        files = [folder / INDEX] if (folder / INDEX).is_file() else []
        # What a killed process left half written begins with a dot; it is no label, and nobody has lost one.
        labels = sorted(
            path
            for path in folder.glob("labels/*/*")
            if path.is_file() and path.suffix not in (".unreadable", ".replaced") and not path.name.startswith(".")
        )
        for path in [*files, *labels]:
            try:
                _read_through(path)
            except (OSError, EOFError, ValueError) as error:
                path.rename(path.with_name(f"{path.name}.unreadable"))
                lost = (
                    "it is built again; what it knew of scans beside their files is lost"
                    if path.name == INDEX
                    else "no label"
                )
                logger.error(f"{path} cannot be read ({error}) and is now {path.name}.unreadable: {lost}")

    def _list_files(self, path: str, patterns: Sequence[str]) -> dict[str, str]:
        # A file that is being written begins with a dot.
        return {name: file for name, file in super()._list_files(path, patterns).items() if not name.startswith(".")}

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any] | None) -> str:
        known, ending = self._to_id(Path(image_filename).name)
        image_id = image_id or known
        with FileLock(self._lock_file):
            info = self._store(image_filename, self._datastore.image_path(), image_id + ending, image_info)
            self._datastore.objects[image_id] = ImageLabelModel(image=DataModel(info=info, ext=ending))
            self._update_datastore_file(lock=False)
        return image_id

    def save_label(
        self,
        image_id: str,
        label_filename: str,
        label_tag: str,
        label_info: dict[str, Any] | None,
        label_id: str = "",
    ) -> str:
        if image_id not in self._datastore.objects:
            raise ImageNotFoundException(f"Image {image_id} not found")
        _, ending = self._to_id(Path(label_filename).name)
        with FileLock(self._lock_file):
            folder = self._datastore.label_path(label_tag)
            info = self._store(label_filename, folder, image_id + ending, label_info)
            self._set_older_aside(Path(folder), image_id)
            self._datastore.objects[image_id].labels[label_tag] = DataModel(info=info, ext=ending)
            self._update_datastore_file(lock=False)
        return image_id

    @staticmethod
    def _store(source: str, folder: str, name: str, info: dict[str, Any] | None) -> dict[str, Any]:
        with whole_file(Path(folder) / name) as partial:
            shutil.copy(source, partial)
        return {**(info or {}), "ts": int(time.time()), "name": name}

    def _update_datastore_file(self, lock: bool = True) -> None:
        with FileLock(self._lock_file) if lock else nullcontext():
            self._ignore_event_config = True
            content = self._datastore.model_dump(exclude={"base_path"})
            write_whole(self._datastore_config_path, json.dumps(content, indent=2, default=str))
            self._config_ts = Path(self._datastore_config_path).stat().st_mtime


def _read_through(path: Path) -> None:
    if path.name == INDEX:
        LocalDatastoreModel.model_validate_json(path.read_text())
    elif path.stat().st_size == 0:
        raise ValueError("it is empty")
    elif path.suffix == ".gz":
        with gzip.open(path) as stream:
            while stream.read(2**22):
                pass
    elif path.suffix == ".nii":
        read_volume(path)
