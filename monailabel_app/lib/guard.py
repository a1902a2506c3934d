"""What MONAI Label 0.8.5 leaves open, closed from the side of the app: the one module that overrides its server.

Each override names the defect. They were found by trying, see the tests.

- The server listens on 0.0.0.0 by default and has no working login (``jwt.decode`` is called without algorithms): requests from
  another machine are refused unless ``allow_remote`` is on, which is for a reverse proxy with a login in front.
- Any web page may call it (CORS ``*``): only origins that are named may; and the Host header must be known, so that a foreign
  name that resolves to 127.0.0.1 (DNS rebinding) does not help.
- Ids and tags such as ``../x`` write outside of the store, ``image=/abs/path`` reads any file, also inside of ``params``; links in
  the study folder lead out of it: refused.
- Anyone may replace or delete weights: refused. New weights come from a training, or with a file in ``variants``.
- Uploads and sessions have no limit, and are stored before anyone looks: limited, and read first. An archive is not unpacked.
- Its endpoints are coroutines that compute for seconds without awaiting, so that one inference stops the whole server: they run in
  threads here.
"""

from __future__ import annotations

import asyncio
import gzip
import inspect
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import nibabel as nib
from fastapi import FastAPI, HTTPException, UploadFile
from monailabel.endpoints import activelearning, batch_infer, datastore, infer, info, model, scoring, session, train
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.exception import (
    ImageNotFoundException,
    LabelNotFoundException,
    MONAILabelException,
)
from scripts.errors import input_error
from scripts.volumes import VOLUME_ENDINGS, read_volume, same_grid
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard", "install", "known_image"]

ID = re.compile(r"\w[\w ._+\-]{0,199}")  # letters of any alphabet
NAMES = ("image", "label", "id", "tag", "model", "session_id", "strategy", "method")
CLIENT_KEYS = {"client_id", "result_extension", "result_dtype", "result_compress", "label_tag", "save_label", "device"}
CLIENT_KEYS |= {
    "logging",
    "multi_gpu",
    "gpus",
    "max_workers",
}  # MONAI Label's own defaults, which its clients send along
KEYS = {  # that a request may set, beside those of the model's own config
    "infer": {"foreground", "background", "lesion", "label_info", "restore_label_idx"},
    "batch": {"images", "max_batch_size", "again"},
    "train": {"name", "max_epochs", "dataset", "train_batch_size", "val_batch_size", "val_split", "pretrained"},
    "activelearning": set(),
    "scoring": set(),
}
MAX_UPLOAD = 512 * 2**20  # bytes of a request
MAX_UNPACKED = 2 * 2**30  # bytes of a volume in memory
MAX_SESSIONS = 4 * 2**30  # bytes of all sessions together
LOOPBACK = {"127.0.0.1", "::1", "localhost", "testclient"}


class Guard:
    """ASGI middleware: who may call, how much may be sent, and no path that climbs.

    Args:
        app: what is guarded.
        allow_remote: serve other machines.
        hosts: names under which the server may be called, beside those of this machine; ``*`` for any.
        max_upload: bytes of a request.
    """

    def __init__(
        self, app: ASGIApp, allow_remote: bool = False, hosts: tuple[str, ...] = (), max_upload: int = MAX_UPLOAD
    ) -> None:
        self.app = app
        self.allow_remote = allow_remote
        self.hosts = set(hosts)
        self.max_upload = max_upload

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        client = (scope.get("client") or ("", 0))[0]
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        host = re.sub(r":\d+$", "", headers.get("host", "")).strip("[]").lower()
        if not self.allow_remote and client not in LOOPBACK:
            return 403, "this server answers its own machine only; see docs/reader.md for a proxy with a login"
        if "*" not in self.hosts and host not in LOOPBACK | self.hosts:
            return 403, f"the host name {host!r} is not known here; add it with --conf hosts NAME"
        path = unquote(unquote(scope.get("raw_path", scope["path"].encode()).decode("latin-1")))
        if ".." in path.split("/") or "\\" in path or "\0" in path:
            return 400, "the path must not climb"
        if int(headers.get("content-length") or 0) > self.max_upload:
            return 413, self._limit()
        return None

    def _limit(self) -> str:
        return f"at most {self.max_upload / 2**20:g} MB can be sent"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if refusal := self._refusal(scope):
            await JSONResponse({"detail": refusal[1]}, status_code=refusal[0])(scope, receive, send)
            return
        received = 0
        refused = False

        async def limited() -> Message:  # a body without Content-Length is counted as it comes
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_upload:
                raise HTTPException(413, "too large")
            return message

        async def answer(message: Message) -> None:  # whatever a parser made of the cut
            nonlocal refused
            if received <= self.max_upload:
                await send(message)
            elif not refused:
                refused = True
                await JSONResponse({"detail": self._limit()}, status_code=413)(scope, receive, send)

        await self.app(scope, limited, answer)


def _check_name(key: str, value: str) -> None:
    if value and (not ID.fullmatch(value) or ".." in value):
        raise HTTPException(400, f"{key} {value[:80]!r} is not a name: letters, digits, space and ._+- only, no path")


def _parsed(text: str | dict | None, allowed: set[str] | None) -> None:
    """Refuse what is not a JSON object, or sets a key that no client needs."""
    try:
        content = json.loads(text) if isinstance(text, str) and text else text or {}
    except json.JSONDecodeError as error:
        raise HTTPException(400, f"params is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise HTTPException(400, "params must be a JSON object")
    if allowed is not None and (unknown := sorted(set(content) - allowed)):
        raise HTTPException(400, f"params has unknown keys: {', '.join(unknown)[:200]}")
    for key in NAMES:
        if isinstance(content.get(key), str):
            _check_name(key, content[key])
    if "label_tag" in content:
        _check_name("label_tag", str(content["label_tag"]))


def _declared_bytes(path: Path) -> int:
    """Size of a volume in memory by its header, before anything is unpacked."""
    if path.name.endswith((".nrrd", ".nhdr")):
        header = path.read_bytes()[:65536].split(b"\n\n", 1)[0]
        sizes = re.search(rb"^sizes:([ \d]+)", header, re.MULTILINE)
        values = [int(n) for n in sizes.group(1).split()] if sizes else []
    else:
        values = list(nib.load(path).shape)
    total = 4
    for value in values:
        total *= max(value, 0)
    return total


def check_volume(upload: UploadFile, grid: str | None = None) -> None:
    """Read an uploaded volume before anyone stores it.

    Args:
        upload: the file; it stands at its beginning again afterwards.
        grid: a scan; it must have the same grid.

    Raises:
        HTTPException: 415 for another type of file, 413 for one that unpacks to too much, 422 for one that cannot be used.
    """
    ending = next((e for e in VOLUME_ENDINGS if (upload.filename or "").lower().endswith(e)), None)
    if grid and (upload.filename or "").endswith(".bin"):  # OHIF: bare voxels, one byte each
        size, voxels = upload.file.seek(0, 2), read_volume(grid).numel()
        upload.file.seek(0)
        if size != voxels:
            raise HTTPException(422, f"the label has {size} voxels and its scan {voxels}")
        return
    if ending is None:
        raise HTTPException(415, f"{upload.filename!r} is no volume; send one of {', '.join(VOLUME_ENDINGS)}")
    with tempfile.TemporaryDirectory(prefix="una_upload_") as folder:
        path = Path(folder) / f"volume{ending}"
        with path.open("wb") as stream:
            while block := upload.file.read(2**20):
                stream.write(block)
        upload.file.seek(0)
        try:
            if ending.endswith(".gz"):
                unpacked = 0
                with gzip.open(path) as stream:
                    while block := stream.read(2**22):
                        unpacked += len(block)
                        if unpacked > MAX_UNPACKED:
                            raise HTTPException(
                                413, f"{upload.filename!r} unpacks to more than {MAX_UNPACKED >> 20} MB"
                            )
            if _declared_bytes(path) > MAX_UNPACKED:
                raise HTTPException(413, f"{upload.filename!r} declares more than {MAX_UNPACKED >> 20} MB")
            volume = read_volume(path)
        except HTTPException:
            raise
        except Exception as error:
            reason = str(error).replace(str(path), repr(upload.filename)).splitlines()[0][:300]
            raise HTTPException(422, f"{upload.filename!r} cannot be read: {reason}") from None
        if grid:
            scan = read_volume(grid)
            if not same_grid(volume, scan):
                raise HTTPException(422, "the label is not on the grid of its scan; export it on the scan's grid")
            values = volume.round().unique().tolist()
            if any(values) and 1.0 not in values:
                told = ", ".join(f"{value:g}" for value in values[:5])
                raise HTTPException(
                    422, f"the label has the values {told}; a lesion is 1, and nothing would be learned from it"
                )


def _inside(app: MONAILabelApp, uri: str) -> str:
    """A file of the store, if it lies in it: a link may lead out."""
    if not app.studies.startswith("http") and not Path(uri).resolve().is_relative_to(Path(app.studies).resolve()):
        raise HTTPException(403, "that file lies outside of the study folder")
    return uri


def known_image(app: MONAILabelApp, image: str) -> str:
    """The file of an image of the store.

    Raises:
        HTTPException: 404 for one that is not there, 403 for one that lies outside of the study folder.
    """
    store = app.datastore()
    uri = store.get_image_uri(image) if image in store.list_images() else ""
    if not uri:
        raise HTTPException(404, f"there is no image {image!r}")
    return _inside(app, uri)


def _check_task(area: str, given: Mapping[str, Any], app: MONAILabelApp) -> None:
    """Model and params of a request that computes."""
    tasks = {**app._infers, **app._trainers}
    name, params = given.get("model"), given.get("params")
    if name and name not in tasks:
        raise HTTPException(404, f"there is no model {name!r}")
    if area == "train" and not name:  # all trainers, a part for each
        _parsed(params, set(app._trainers) | CLIENT_KEYS)
        for family in set(params or ()) & set(app._trainers):
            _parsed(params[family], KEYS[area] | CLIENT_KEYS | set(tasks[family].config()))
        return
    _parsed(params, KEYS[area] | CLIENT_KEYS | (set(tasks[name].config()) if name else set()))


def _check_store(path: str, method: str, given: Mapping[str, Any], app: MONAILabelApp) -> None:
    """What is read from the store, put into it, or taken out."""
    _parsed(given.get("params", given.get("info")), None)
    if method == "PUT" and given.get("file") is not None:
        check_volume(given["file"])
        name = given.get("image") or Path(given["file"].filename).name
        _check_name("image", name)
        if any(
            name in (known, *(known + ending for ending in VOLUME_ENDINGS)) for known in app.datastore().list_images()
        ):
            raise HTTPException(409, f"there is an image {name!r} already; remove it first, or choose another name")
    elif method == "PUT" and given.get("label") is not None and "image" in given:
        check_volume(given["label"], known_image(app, given["image"]))
    elif "/image" in path or (path == "/datastore/" and method == "DELETE"):
        known_image(app, given.get("image") or given.get("id") or "")
    elif path.endswith("/label") and method in ("GET", "HEAD"):
        try:
            uri = app.datastore().get_label_uri(given.get("label") or given["image"], given["tag"])
        except ValueError:  # a series that is no segmentation
            uri = ""
        if not uri:
            raise HTTPException(404, "there is no such label")
        _inside(app, uri)


def _check_new_session(given: Mapping[str, Any], app: MONAILabelApp) -> None:
    """One volume a session, and room for it: MONAI Label unpacks archives of anything, and keeps as many as are sent."""
    files = given.get("files") or []
    if given.get("uncompress") or len(files) != 1:
        raise HTTPException(422, "a session is one volume, not an archive and not several files")
    _check_name("file", files[0].filename or "")
    check_volume(files[0])
    app.sessions().remove_expired()
    size = files[0].file.seek(0, 2)
    files[0].file.seek(0)
    kept = sum(file.stat().st_size for file in Path(app.sessions().store_path).rglob("*") if file.is_file())
    if kept + size > MAX_SESSIONS:
        raise HTTPException(
            507, f"sessions hold {kept >> 20} of {MAX_SESSIONS >> 20} MB; close one, or wait until one expires"
        )


def _checks(path: str, method: str, given: Mapping[str, Any], app: MONAILabelApp) -> None:
    """Everything that a request must pass before MONAI Label sees it."""
    area = path.strip("/").split("/")[0]
    for key in NAMES:
        if isinstance(given.get(key), str):
            _check_name(key, given[key])
    if area == "session" and method == "PUT":
        _check_new_session(given, app)
    session = app.sessions().get_session(given["session_id"]) if given.get("session_id") else None
    if given.get("session_id") and session is None:
        raise HTTPException(404, "there is no such session, or it has expired: open the scan again")
    if area == "model" and method in ("PUT", "DELETE"):
        raise HTTPException(
            403, "weights cannot be changed by a request: train, or add a file to the variants (docs/reader.md)"
        )
    if area in KEYS and method == "POST":
        _check_task(area, given, app)
    if area == "infer":
        uri = known_image(app, given["image"]) if given.get("image") else None
        if session:
            uri = session.image
        for key in ("file", "label"):
            if given.get(key) is not None:
                check_volume(given[key], uri)
    if area == "datastore":
        _check_store(path, method, given, app)


def _in_thread(original: Callable, path: str, method: str, app: MONAILabelApp) -> Callable:
    def endpoint(**given: Any) -> Any:
        _checks(path, method, given, app)
        try:
            return asyncio.run(original(**given))
        except (ImageNotFoundException, LabelNotFoundException) as error:
            raise HTTPException(404, error.msg) from None
        except MONAILabelException as error:
            raise HTTPException(400, error.msg) from None
        except Exception as error:
            if reason := input_error(error):
                raise HTTPException(422, str(reason)) from None
            raise

    endpoint.__signature__ = inspect.signature(original)
    endpoint.__name__ = original.__name__
    return endpoint


def install(server: FastAPI, app: MONAILabelApp, conf: Mapping[str, str]) -> None:
    """Put the guard around MONAI Label's server.

    Args:
        server: ``monailabel.app.app``.
        app: the app it serves.
        conf: ``allow_remote`` (true or false), ``origins``, ``hosts`` (comma-separated), ``max_upload_mb``.
    """

    def on(key: str) -> bool:
        return str(conf.get(key, "false")).lower() == "true"

    def listed(key: str) -> list[str]:
        return [part.strip() for part in conf.get(key, "").split(",") if part.strip()]

    before = len(server.router.routes)
    for module in (activelearning, batch_infer, datastore, infer, info, model, scoring, session, train):
        for route in module.router.routes:
            for method in route.methods:
                endpoint = _in_thread(route.endpoint, route.path, method, app)
                server.add_api_route(route.path, endpoint, methods=[method], include_in_schema=False)
    routes = server.router.routes
    routes[:] = [*routes[before:], *routes[:before]]
    server.user_middleware = [
        Middleware(
            CORSMiddleware,
            allow_origins=listed("origins"),
            allow_credentials=True,
            allow_methods=["*"],
            allow_headers=["*"],
        ),
        Middleware(
            Guard,
            allow_remote=on("allow_remote"),
            hosts=tuple(listed("hosts")),
            max_upload=int(float(conf.get("max_upload_mb", MAX_UPLOAD / 2**20)) * 2**20),
        ),
    ]
    # The server has built its stack already: the app is made while it starts.
    server.middleware_stack = server.build_middleware_stack()
