"""What MONAI Label 0.8.5 lets through, tried on a running server."""

import gzip
import json
import os
import socket
import time

import nibabel as nib
import numpy as np
import pytest
import requests
import torch

from app.running import Server


def everything(folder) -> set[str]:
    return {os.path.join(root, name) for root, _, names in os.walk(folder) for name in names if name != ".lock"}


def infer(server, image="", **params):
    return requests.post(
        f"{server.url}/infer/una_anomaly", params={"image": image}, data={"params": json.dumps(params)}, timeout=120
    )


@pytest.mark.parametrize("image", ["/etc/passwd", "../secret", "..%2fsecret", "a/../../b", ".hidden", "x" * 300])
def test_no_path_is_an_image(server, image):
    assert infer(server, image).status_code == 400
    for method, address in (("GET", "image"), ("GET", "image/info"), ("PUT", "image/info"), ("DELETE", "image")):
        answer = requests.request(
            method, f"{server.url}/datastore/{address}", params={"image": image, "id": image}, timeout=60
        )
        assert answer.status_code in (400, 422), (address, answer.text)


@pytest.mark.parametrize(
    "params",
    [{"image": "/etc/passwd"}, {"label": "/etc/passwd"}, {"model_filename": "../x"}, {"label_tag": "../x"}, [1]],
)
def test_params_cannot_say_what_the_address_may_not(server, params):
    answer = requests.post(
        f"{server.url}/infer/una_anomaly?image=patient0_t1", data={"params": json.dumps(params)}, timeout=60
    )
    assert answer.status_code == 400
    assert requests.post(f"{server.url}/train/una", json={"bundle_path": "/tmp"}, timeout=60).status_code == 400
    broken = requests.post(f"{server.url}/infer/una_anomaly?image=patient0_t1", data={"params": "{"}, timeout=60)
    assert broken.status_code == 400 and "not JSON" in broken.json()["detail"]


def test_labels_do_not_leave_the_store(server, scans):
    before = everything(scans)
    label = {"label": ("x.nii.gz", (scans / "truth/patient0_t1.nii.gz").read_bytes())}
    for image, tag in (("patient0_t1", "../../out"), ("../patient0_t1", "final"), ("nobody", "final")):
        answer = requests.put(
            f"{server.url}/datastore/label", params={"image": image, "tag": tag}, files=label, timeout=60
        )
        assert answer.status_code in (400, 404)
    assert everything(scans) == before


def test_a_link_out_of_the_folder_is_refused(scans, tmp_path):
    studies = tmp_path / "studies"
    studies.mkdir()
    (tmp_path / "secret.nii.gz").write_bytes((scans / "studies/patient0_t1.nii.gz").read_bytes())
    (studies / "link.nii.gz").symlink_to(tmp_path / "secret.nii.gz")
    other = Server(studies, tmp_path, {"max_upload_mb": "0.5", "origins": "http://viewer.example"})
    other.start()
    try:
        assert requests.get(f"{other.url}/datastore/image?image=link", timeout=60).status_code == 403
        assert infer(other, "link").status_code == 403
        big = os.urandom(2**20)
        assert (
            requests.put(f"{other.url}/datastore/image", files={"file": ("a.nii", big)}, timeout=60).status_code == 413
        )
        with socket.create_connection(("127.0.0.1", other.port)) as raw:  # without a length
            raw.sendall(b"PUT /datastore/image HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n")
            raw.sendall(b"Content-Type: multipart/form-data; boundary=x\r\n\r\n")
            part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.nii"\r\n\r\n'
            raw.sendall(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            try:
                for _ in range(32):
                    raw.sendall(b"10000\r\n" + big[:65536] + b"\r\n")
            except OSError:
                pass
            assert b" 413 " in raw.recv(4096).split(b"\r\n")[0]
        for origin, allowed in (("http://viewer.example", True), ("http://evil.example", False)):
            headers = requests.get(f"{other.url}/info/", headers={"Origin": origin}, timeout=60).headers
            assert ("access-control-allow-origin" in headers) == allowed
    finally:
        other.kill()


def test_uploads_are_read_before_they_are_kept(server, scans, tmp_path):
    before = everything(scans)
    bomb = tmp_path / "bomb.nii.gz"
    with gzip.open(bomb, "wb", compresslevel=1) as stream:
        for _ in range(33):
            stream.write(bytes(2**26))
    header = nib.Nifti1Header()
    header.set_data_shape((30000, 30000, 100))
    liar = header.binaryblock + bytes(100)
    cases = [
        ("notes.txt", b"hello", 415),
        ("scan.zip", b"PK\x03\x04", 415),
        ("broken.nii.gz", b"not gzip", 422),
        ("bomb.nii.gz", bomb.read_bytes(), 413),
        ("liar.nii", liar, 413),
        ("patient0_t1.nii.gz", (scans / "studies/patient1_t1.nii.gz").read_bytes(), 409),
    ]
    for name, content, status in cases:
        answer = requests.put(f"{server.url}/datastore/image", files={"file": (name, content)}, timeout=120)
        assert answer.status_code == status, (name, answer.text)
        assert answer.json()["detail"]
    climbing = {"file": ("../../up.nii.gz", (scans / "studies/patient1_t1.nii.gz").read_bytes())}
    assert requests.put(f"{server.url}/datastore/image", files=climbing, timeout=60).json() == {"image": "up"}
    added = everything(scans) - before
    assert added == {str(scans / "studies/up.nii.gz")}
    assert requests.delete(f"{server.url}/datastore/image?id=up", timeout=60).status_code == 200
    small = nib.Nifti1Image(np.ones((5, 5, 5), dtype=np.uint8), np.eye(4))
    nib.save(small, tmp_path / "small.nii.gz")
    answer = requests.put(
        f"{server.url}/datastore/label?image=patient1_t1",
        files={"label": (tmp_path / "small.nii.gz").open("rb")},
        timeout=60,
    )
    assert answer.status_code == 422 and "grid" in answer.json()["detail"]
    deadline = time.monotonic() + 5.0  # the server may just be writing its list of images
    while everything(scans) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert everything(scans) == before


def test_weights_are_not_changed_by_a_request(server, tmp_path):
    torch.save({"w": torch.zeros(1)}, tmp_path / "weights.pt")
    with (tmp_path / "weights.pt").open("rb") as stream:
        assert requests.put(f"{server.url}/model/una_anomaly", files={"file": stream}, timeout=60).status_code == 403
    assert requests.delete(f"{server.url}/model/una_anomaly", timeout=60).status_code == 403
    session = requests.put(f"{server.url}/session/", files={"files": ("a.zip", b"PK")}, timeout=60)
    assert session.status_code == 415


def test_foreign_names_and_climbing_addresses(server):
    assert requests.get(f"{server.url}/info/", headers={"Host": "evil.example"}, timeout=60).status_code == 403
    for address in ("proxy/dicom/wado/..%2f..%2finstances", "ohif/..%2f..%2fmain.py", "static/%2e%2e/%2e%2e/app.py"):
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.sendall(f"GET /{address} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            assert b" 400 " in raw.recv(4096).split(b"\r\n")[0], address


def test_another_machine_is_refused_unless_allowed(server, scans, tmp_path):
    address = socket.gethostbyname(socket.gethostname())
    if address.startswith("127."):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("192.0.2.1", 9))
                address = probe.getsockname()[0]
            except OSError:
                pytest.skip("this machine has no address but loopback")
    open_to_all = Server(scans / "studies", tmp_path, host="0.0.0.0").start()
    try:
        answer = requests.get(f"http://{address}:{open_to_all.port}/info/", timeout=60)
        assert answer.status_code == 403 and "its own machine only" in answer.json()["detail"]
    finally:
        open_to_all.kill()


def test_a_label_that_teaches_nothing_is_refused_with_its_values(server, scans, tmp_path):
    truth = nib.load(scans / "truth/patient0_t1.nii.gz")
    values = (np.asarray(truth.dataobj) > 0).astype(np.uint8) * 255
    nib.save(nib.Nifti1Image(values, truth.affine), tmp_path / "label.nii.gz")
    with (tmp_path / "label.nii.gz").open("rb") as stream:
        answer = requests.put(
            f"{server.url}/datastore/label",
            params={"image": "patient0_t1", "tag": "final"},
            files={"label": ("label.nii.gz", stream)},
            timeout=60,
        )
    assert answer.status_code == 422 and "has the values 0, 255; a lesion is 1" in answer.text
