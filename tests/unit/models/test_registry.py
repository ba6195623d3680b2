import subprocess
import sys

import pytest

from models import registry
from models.base import Detector
from models.errors import UnknownDetector

NO_TENSORFLOW = ("ewma", "data_quality", "ensemble", "pca")


def test_names_are_the_files():
    assert {"ewma", "data_quality", "lstm_forecaster", "dense_autoencoder"} <= set(registry.names())
    assert not any(name.startswith("_") for name in registry.names())


def test_an_unknown_name_says_what_is_spelled_like_it():
    with pytest.raises(UnknownDetector, match="did you mean lstm_forecaster"):
        registry.create("lstm_forcaster", signals=1)


@pytest.mark.parametrize("name", ["../secrets", "", "os", "__init__", "base"])
def test_a_name_is_never_a_path(name):
    with pytest.raises(UnknownDetector):
        registry.detector_class(name)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"windw": 3}, "unknown key 'windw'; known are window, span"),
        ({"window": "32"}, "ewma.window: expected int"),
        ({"window": True}, "ewma.window: expected int"),
        ({"window": 1}, "window: expected 4 to 1024"),
        ({"span": float("nan")}, "ewma.span: expected float"),
    ],
    ids=str,
)
def test_a_config_that_cannot_be_names_its_key(config, message):
    with pytest.raises(ValueError, match=message):
        registry.create("ewma", signals=1, config=config)


def test_an_int_will_do_for_a_float():
    assert registry.configure("ewma", {"span": 6}).span == 6.0


def test_what_needs_tensorflow_is_known_without_importing_it():
    for name in registry.names():
        assert registry.needs_tensorflow(name) == name.endswith(
            ("_forecaster", "_autoencoder", "_classifier", "gan", "usad")
        ), name


@pytest.mark.parametrize("name", NO_TENSORFLOW)
def test_what_is_created_is_a_detector(name):
    assert isinstance(registry.create(name, signals=2), Detector)


def test_importing_the_package_imports_no_tensorflow():
    code = (
        "import sys, models, models.registry, models.artifact, models.train, models.datasets\n"
        "for name in ('ewma', 'data_quality'): models.registry.create(name, signals=1)\n"
        "sys.exit(any(m in sys.modules for m in ('tensorflow', 'keras', 'polars', 'faust')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_tensorflow_finds_its_environment_whoever_imports_a_detector_first():
    code = "import os, models.detectors; print(os.environ['KERAS_BACKEND'], os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert told.stdout.split()[0] == "tensorflow"
