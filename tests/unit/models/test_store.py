import base64
import json
import stat

import numpy as np
import pytest

from models import artifact as artifacts
from models.datasets import Recording
from models.errors import InvalidArtifact, StoreError
from models.signing import SIGNATURE, Signer, Verifier, keygen
from models.store import NOTHING, Store
from models.train import train


def trained(seed):
    values = np.random.default_rng(seed).normal(size=(300, 2))
    return train([Recording("pump-1", np.arange(300) * 1000, ("a", "b"), values)], detector="ewma")


@pytest.fixture(scope="module")
def one():
    return trained(0)


@pytest.fixture(scope="module")
def other():
    return trained(1)


@pytest.fixture(params=["disk", "memory"])
def store(request, tmp_path):
    return Store(str(tmp_path / "store") if request.param == "disk" else f"memory://{tmp_path.name}/store")


def test_what_is_added_is_loaded_with_the_same_bits(store, one):
    version = store.add("pumps", one, why="the first", by="ann", data="week 40")
    assert version == one.version
    assert store.names() == ["pumps"]
    assert store.versions("pumps") == [version]
    windows = np.random.default_rng(1).normal(size=(9, one.window, 2))
    assert store.load("pumps", version).score(windows).score.tobytes() == one.score(windows).score.tobytes()
    origin = store.origin("pumps", version)
    assert (origin["by"], origin["why"], origin["data"]) == ("ann", "the first", "week 40")


def test_a_version_is_never_changed(store, one):
    store.add("pumps", one, by="ann")
    store.add("pumps", one, by="bob")
    assert store.origin("pumps", one.version)["by"] == "ann"


def test_decisions_are_kept_with_who_when_and_why(store, one, other):
    assert store.now("pumps") == NOTHING
    for held in (one, other):
        store.add("pumps", held)
    store.decide("pumps", "promote", serving=one.version, by="ann", why="the first")
    store.decide("pumps", "shadow", candidate=other.version, by="bob")
    store.decide("pumps", "promote", serving=other.version, candidate="", by="ann", why="quieter")
    now = store.now("pumps")
    assert (now.serving, now.candidate, now.before) == (other.version, "", one.version)
    assert [(held.action, held.by, held.why) for held in store.history("pumps")] == [
        ("promote", "ann", "the first"),
        ("shadow", "bob", ""),
        ("promote", "ann", "quieter"),
    ]
    times = [held.at for held in store.history("pumps")]
    assert times == sorted(set(times))


def test_rolling_back_twice_goes_back_two(store):
    held = [trained(seed) for seed in range(3)]
    for artifact in held:
        store.decide("pumps", "promote", serving=store.add("pumps", artifact))
    for expected in (held[1], held[0]):
        before = store.before("pumps")
        assert before == expected.version
        store.decide("pumps", "rollback", serving=before)
    with pytest.raises(StoreError, match="nothing served before"):
        store.before("pumps")


def test_a_clock_that_was_set_back_does_not_bring_back_the_past(tmp_path, one, other):
    import datetime as dt

    times = iter(dt.datetime(2026, 11, day, tzinfo=dt.UTC) for day in (2, 2, 3, 1))
    store = Store(str(tmp_path), clock=lambda: next(times))
    for held in (one, other):
        store.add("pumps", held)
    store.decide("pumps", "promote", serving=one.version)
    store.decide("pumps", "promote", serving=other.version)
    assert store.now("pumps").serving == other.version


@pytest.mark.parametrize("name", ["..", "../pumps", "a/b", "", ".hidden", "x" * 65, "a\0b", "a\nb"])
def test_names_that_lead_elsewhere_are_refused(store, name):
    for ask in (store.versions, store.now, store.history, lambda held: store.load(held, "0" * 12)):
        with pytest.raises(StoreError, match="no name"):
            ask(name)


@pytest.mark.parametrize("version", ["..", "../../etc", "", "0" * 11, "g" * 12, "0" * 12 + "\n"])
def test_versions_that_lead_elsewhere_are_refused(store, version):
    with pytest.raises(StoreError, match="no version"):
        store.load("pumps", version)


def test_a_decision_that_names_what_is_not_there_is_refused(store, one):
    store.add("pumps", one)
    with pytest.raises(StoreError, match="no version"):
        store.decide("pumps", "promote", serving="0" * 12)
    assert store.now("pumps") == NOTHING


def test_a_history_that_somebody_wrote_by_hand_is_not_believed(tmp_path, one):
    store = Store(str(tmp_path))
    store.decide("pumps", "promote", serving=store.add("pumps", one))
    (file,) = (tmp_path / "pumps" / "history").iterdir()
    file.write_text(json.dumps(json.loads(file.read_text()) | {"serving": "../../../etc"}))
    with pytest.raises(StoreError, match="no version"):
        store.now("pumps")
    file.write_text("[]")
    with pytest.raises(StoreError, match="not an object"):
        store.now("pumps")


def test_an_artifact_under_another_version_is_refused(tmp_path, one, other):
    store = Store(str(tmp_path))
    store.add("pumps", one)
    folder = tmp_path / "pumps" / "versions"
    (folder / one.version).rename(folder / other.version)
    with pytest.raises(InvalidArtifact, match=f"what lies there is version {one.version}"):
        store.load("pumps", other.version)


def test_a_write_that_fails_leaves_no_version(tmp_path, one, monkeypatch):
    store = Store(str(tmp_path))
    written = type(store._place).write

    def full(self, name, content):
        if name.endswith(artifacts.MANIFEST):
            raise StoreError("No space left on device")
        written(self, name, content)

    monkeypatch.setattr(type(store._place), "write", full)
    with pytest.raises(StoreError, match="No space"):
        store.add("pumps", one)
    assert store.versions("pumps") == []
    monkeypatch.undo()
    assert store.add("pumps", one) == one.version
    assert store.load("pumps", one.version).version == one.version


def test_only_what_is_signed_is_loaded_by_who_asks_for_it(store, tmp_path, one, other):
    public = keygen(tmp_path / "key.pem")
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    signer = Signer(tmp_path / "key.pem")
    store.add("pumps", one, signer=signer)
    store.add("pumps", other)
    store._verifier = Verifier(public)
    assert store.load("pumps", one.version).version == one.version
    with pytest.raises(InvalidArtifact, match="not signed, and this worker"):
        store.load("pumps", other.version)
    store.sign("pumps", other.version, signer)
    assert store.load("pumps", other.version).version == other.version
    store._verifier = Verifier(keygen(tmp_path / "other.pem"))
    with pytest.raises(InvalidArtifact, match="not a signature of this manifest by the key"):
        store.load("pumps", one.version)


def test_a_signature_is_of_one_manifest_only(tmp_path, one, other):
    verifier = Verifier(keygen(tmp_path / "key.pem"))
    store = Store(str(tmp_path / "s"), verifier=verifier)
    for held in (one, other):
        store.add("pumps", held, signer=Signer(tmp_path / "key.pem"))
    versions = tmp_path / "s" / "pumps" / "versions"
    (versions / one.version / SIGNATURE).write_bytes((versions / other.version / SIGNATURE).read_bytes())
    with pytest.raises(InvalidArtifact, match="not a signature of this manifest"):
        store.load("pumps", one.version)


@pytest.mark.parametrize("key", ["", "AAAA", "not base64!", base64.b64encode(b"x" * 33).decode()])
def test_what_is_no_public_key_is_named(key):
    with pytest.raises(ValueError, match=r"base64|32"):
        Verifier(key)


def test_a_private_key_is_not_overwritten_and_must_be_one(tmp_path):
    keygen(tmp_path / "key.pem")
    with pytest.raises(StoreError, match="not overwritten"):
        keygen(tmp_path / "key.pem")
    (tmp_path / "none.pem").write_text("nothing")
    with pytest.raises(StoreError, match="not a private key"):
        Signer(tmp_path / "none.pem")
