"""A kill, a full disk or a damaged file costs no label."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest
import requests
from conftest import ROOT
from lib.folder import DeskFolder
from lib.temporary import PREFIX

LABEL = (48, 48, 48)


def mask(path, value: int):
    """A label that takes a while to write: noise does not compress."""
    values = np.random.RandomState(value).randint(0, 2, LABEL).astype(np.uint8)
    values[0, 0, 0] = value
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    return path


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "studies"
    path.mkdir()
    for name in ("a", "b"):
        mask(path / f"{name}.nii.gz", 1)
    return path


def store(folder):
    return DeskFolder(str(folder), extensions=("*.nii.gz", "*.nii"))


def test_a_label_replaces_the_old_one_whole(folder, tmp_path):
    desk = store(folder)
    desk.save_label("a", str(mask(tmp_path / "one.nii.gz", 2)), "final", {"params": 1})
    desk.save_label("a", str(mask(tmp_path / "two.nii.gz", 3)), "final", {"params": 2})
    assert nib.load(desk.get_label_uri("a", "final")).get_fdata()[0, 0, 0] == 3
    again = store(folder)  # from the index on the disk
    assert again.get_label_info("a", "final")["params"] == 2 and set(again.list_images()) == {"a", "b"}
    desk.add_image("c", str(mask(tmp_path / "c.nii.gz", 4)), {})
    assert "c" in store(folder).list_images()


def test_the_newest_file_of_a_label_counts_whatever_its_format(folder, tmp_path):
    desk = store(folder)
    desk.save_label("a", str(mask(tmp_path / "one.nii.gz", 2)), "final", {})
    desk.save_label("a", str(mask(tmp_path / "two.nii", 3)), "final", {})
    final = folder / "labels/final"
    assert sorted(file.name for file in final.iterdir()) == ["a.nii", "a.nii.gz.replaced"]
    (folder / "datastore_v2.json").unlink()
    assert nib.load(store(folder).get_label_uri("a", "final")).get_fdata()[0, 0, 0] == 3
    # A folder of an older desk has both files; the index is lost.
    (final / "a.nii.gz.replaced").rename(final / "a.nii.gz")
    os.utime(final / "a.nii.gz", (1, 1))
    (folder / "datastore_v2.json").unlink()
    assert nib.load(store(folder).get_label_uri("a", "final")).get_fdata()[0, 0, 0] == 3
    assert not (final / "a.nii.gz").exists()


@pytest.mark.parametrize("kills", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_a_kill_while_labels_are_stored_leaves_the_old_or_the_new_one(folder, tmp_path, kills):
    sources = [mask(tmp_path / f"{value}.nii.gz", value) for value in (2, 3)]
    program = (
        "import sys, itertools; sys.path[:0] = sys.argv[3:]\n"
        "from lib.folder import DeskFolder\n"
        "desk = DeskFolder(sys.argv[1], extensions=('*.nii.gz',))\n"
        "print('ready', flush=True)\n"
        "for k in itertools.count(): desk.save_label('a', sys.argv[2] + f'/{2 + k % 2}.nii.gz', 'final', {'k': k})\n"
    )
    command = [
        sys.executable,
        "-c",
        program,
        str(folder),
        str(tmp_path),
        str(ROOT / "bundle"),
        str(ROOT / "monailabel_app"),
    ]
    store(folder).save_label("a", str(sources[0]), "final", {})
    for kill in range(kills):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.01 + 0.013 * kill)
        process.send_signal(signal.SIGKILL)
        process.wait()
        stored = folder / "labels/final/a.nii.gz"
        assert nib.load(stored).get_fdata()[0, 0, 0] in (2, 3)
        assert "a" in json.loads((folder / "datastore_v2.json").read_text())["objects"]
        desk = store(folder)
        assert set(desk.list_images()) == {"a", "b"} and not list(folder.rglob("*.unreadable"))


def test_what_a_kill_left_half_written_is_no_label(folder, tmp_path, caplog):
    desk = store(folder)
    desk.save_label("a", str(mask(tmp_path / "one.nii.gz", 2)), "final", {})
    (folder / "labels/final/.123.a.nii.gz").touch()
    desk = store(folder)
    assert desk.get_labeled_images() == ["a"] and nib.load(desk.get_label_uri("a", "final")).get_fdata()[0, 0, 0] == 2
    assert not list(folder.rglob("*.unreadable")) and "cannot be read" not in caplog.text


def test_an_index_cut_in_half_is_built_again_from_the_files(folder, tmp_path, caplog):
    store(folder).save_label("a", str(mask(tmp_path / "one.nii.gz", 2)), "final", {})
    index = folder / "datastore_v2.json"
    index.write_text(index.read_text()[: index.stat().st_size // 2])
    desk = store(folder)
    assert set(desk.list_images()) == {"a", "b"} and desk.get_labeled_images() == ["a"]
    assert "datastore_v2.json cannot be read" in caplog.text and (folder / "datastore_v2.json.unreadable").is_file()


def test_what_another_process_writes_into_the_index_is_seen(folder):
    desk = DeskFolder(str(folder), extensions=("*.nii.gz",), auto_reload=True)
    time.sleep(0.5)
    store(folder).update_image_info("a", {"una": 1})
    until = time.monotonic() + 20
    while "una" not in desk.get_image_info("a") and time.monotonic() < until:
        time.sleep(0.1)
    assert desk.get_image_info("a")["una"] == 1


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
@pytest.mark.parametrize("size", [0, 100, 2000])
def test_a_label_that_cannot_be_read_is_named_and_no_longer_counts(folder, tmp_path, caplog, ending, size):
    desk = store(folder)
    for name in ("a", "b"):
        desk.save_label(name, str(mask(tmp_path / f"one{ending}", 2)), "final", {})
    damaged = folder / f"labels/final/a{ending}"
    damaged.write_bytes(damaged.read_bytes()[:size])
    desk = store(folder)
    assert desk.get_labeled_images() == ["b"] and f"{damaged} cannot be read" in caplog.text
    assert damaged.with_name(f"a{ending}.unreadable").stat().st_size == size


def test_uploads_lie_in_a_private_folder_which_the_next_start_clears(tmp_path):
    program = (
        "import sys, tempfile, time; sys.path.insert(0, sys.argv[1])\n"
        "from lib.temporary import private_temporary_folder\n"
        "private_temporary_folder(); open(tempfile.NamedTemporaryFile().name, 'w').write('a scan')\n"
        "print('ready', flush=True); time.sleep(60)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(ROOT / "monailabel_app")], stdout=subprocess.PIPE, env=environment
        )
        assert process.stdout.readline() == b"ready\n"
        return process

    first = start()
    second = start()
    folders = sorted(tmp_path.glob(f"{PREFIX}*"))
    assert len(folders) == 2  # one that runs keeps its own
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o700 and len(list(path.iterdir())) == 1 for path in folders)
    first.kill(), first.wait()
    third = start()
    assert not list(tmp_path.glob(f"{PREFIX}{first.pid}_*")) and len(list(tmp_path.glob(f"{PREFIX}*"))) == 2
    for process in (second, third):
        process.kill(), process.wait()


def test_a_scan_from_the_readers_own_disk_is_analysed_in_a_session(server, scans, tmp_path):
    own = shutil.copy(scans / "studies/patient0_t1.nii.gz", tmp_path / "my scan_t1.nii.gz")
    session = server.client.create_session(own)["session_id"]
    assert server.client.get_session(session)["name"] == session
    file, _ = server.client.infer("una_anomaly", "", {}, session_id=session)
    found, same = nib.load(file), nib.load(server.client.infer("una_anomaly", "patient0_t1", {})[0])
    assert np.array_equal(found.get_fdata(), same.get_fdata()) and found.get_fdata().any()
    assert not any("my scan" in image for image in server.client.datastore()["objects"])
    server.client.remove_session(session)
    address = f"{server.url}/infer/una_anomaly?session_id={session}"
    answer = requests.post(address, data={"params": "{}"}, timeout=60)
    assert answer.status_code == 404 and "session" in answer.json()["detail"]


def test_sessions_take_one_volume_and_no_archive(server, tmp_path):
    def put(files, query=""):
        return requests.put(f"{server.url}/session/{query}", files=[("files", file) for file in files], timeout=60)

    text = ("note.nii.gz", b"no volume")
    assert put([text]).status_code == 422
    assert put([("scans.zip", b"PK")], "?uncompress=true").status_code == 422
    volume = ("a.nii.gz", mask(tmp_path / "a.nii.gz", 1).read_bytes())
    assert put([volume, volume]).status_code == 422
    assert put([("../a.nii.gz", volume[1])]).status_code == 400
    assert put([volume]).status_code == 200
