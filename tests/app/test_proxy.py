"""docs/proxy.conf, as it stands but for the ports."""

import shutil
import subprocess
import time

import pytest
import requests
from conftest import ROOT

from app.running import free_port


@pytest.fixture
def proxy(server, tmp_path):
    if not shutil.which("nginx"):
        pytest.skip("nginx is not installed (apt-get install nginx-light)")
    port = free_port()
    text = (ROOT / "docs/proxy.conf").read_text()
    assert "listen 0.0.0.0:8443" in text and "http://127.0.0.1:8000" in text
    text = text.replace("0.0.0.0:8443", f"127.0.0.1:{port}").replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
    (tmp_path / "proxy.conf").write_text(text)
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key.pem -out cert.pem"
    subprocess.run(make.split(), cwd=tmp_path, check=True, capture_output=True)
    secret = subprocess.run(["openssl", "passwd", "-apr1", "correct"], check=True, capture_output=True, text=True)
    (tmp_path / "users").write_text(f"anna:{secret.stdout.strip()}\n")
    (tmp_path / "users").chmod(0o644)
    for parent in (tmp_path, *tmp_path.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o755)  # nginx's worker is another user
    command = ["nginx", "-p", str(tmp_path), "-c", str(tmp_path / "proxy.conf")]
    subprocess.run(command, check=True, capture_output=True)
    time.sleep(0.5)
    yield f"https://127.0.0.1:{port}"
    subprocess.run([*command, "-s", "stop"], check=True, capture_output=True)


@pytest.mark.filterwarnings("ignore:Unverified HTTPS")
def test_the_door_opens_to_a_password_alone(proxy, server):
    for auth in (None, ("anna", "wrong"), ("eve", "correct")):
        for address in ("/info/", "/ohif/", "/proxy/dicom/qido/studies", "/datastore/?output=all"):
            assert requests.get(proxy + address, auth=auth, verify=False, timeout=60).status_code == 401
    session = requests.Session()
    session.auth, session.verify, session.trust_env = ("anna", "correct"), False, False
    assert session.get(f"{proxy}/info/", timeout=60).json()["name"] == "UNA"
    assert session.get(f"{proxy}/ohif/", timeout=60).status_code == 200
    assert session.get(f"{proxy}/datastore/image?image=..%2fx", timeout=60).status_code == 400
    answer = session.post(f"{proxy}/infer/una_healthy?image=patient0_t1", data={"params": "{}"}, timeout=120)
    assert answer.status_code == 200 and len(answer.content) > 10_000
    assert "correct" not in server.log.read_text() and "Basic " not in server.log.read_text()
