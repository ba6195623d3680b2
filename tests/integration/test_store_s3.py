"""The model store on S3: moto's server answers as S3 does, on a real socket."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

from models.datasets import Recording
from models.errors import StoreError
from models.store import Store
from models.train import train

pytest.importorskip("s3fs", reason="pip install 'headrace[s3]'")


@pytest.fixture
def endpoint(monkeypatch):
    server = shutil.which("moto_server", path=str(sys.prefix) + "/bin") or shutil.which("moto_server")
    if server is None:
        pytest.skip("moto_server is not installed: pip install 'moto[server]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([server, "-H", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()  # one of another test would ask its dead server
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(urllib.request.Request(f"{url}/models", method="PUT"), timeout=5):
                    break
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        else:
            pytest.fail("moto_server did not answer within a minute")
        yield url
    finally:
        process.terminate()
        process.wait(20)


def test_versions_and_decisions_on_s3(endpoint, tmp_path):
    artifacts = []
    for seed in range(2):
        values = np.random.default_rng(seed).normal(size=(300, 2))
        artifacts.append(train([Recording("pump-1", np.arange(300) * 1000, ("a", "b"), values)], detector="ewma"))
    store = Store("s3://models/plant")
    assert store.names() == []
    for held in artifacts:
        store.add("pumps", held, by="ann")
    store.decide("pumps", "promote", serving=artifacts[0].version)
    store.decide("pumps", "promote", serving=artifacts[1].version)
    again = Store("s3://models/plant")  # another process would see the same
    assert again.names() == ["pumps"]
    assert sorted(again.versions("pumps")) == sorted(held.version for held in artifacts)
    assert again.now("pumps").serving == artifacts[1].version
    assert again.before("pumps") == artifacts[0].version
    loaded = again.load("pumps", artifacts[1].version)
    windows = np.random.default_rng(1).normal(size=(5, loaded.window, 2))
    assert loaded.score(windows).score.tobytes() == artifacts[1].score(windows).score.tobytes()
    with pytest.raises(StoreError, match="no version"):
        again.load("pumps", "0" * 12)


def test_a_bucket_that_is_not_there_is_named(endpoint, tmp_path):
    values = np.random.default_rng(0).normal(size=(300, 2))
    held = train([Recording("pump-1", np.arange(300) * 1000, ("a", "b"), values)], detector="ewma")
    with pytest.raises(StoreError, match="s3://nowhere/plant"):
        Store("s3://nowhere/plant").add("pumps", held)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{endpoint}/nowhere")
