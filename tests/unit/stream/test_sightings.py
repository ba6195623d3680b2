"""The demo's camera, and pictures in a report."""

import io
import tomllib
from base64 import b64decode

import msgspec
import numpy as np
from PIL import Image

from models.base import NORMAL
from models.pictures import decode
from models.simulate_tiles import DEFECTS
from stream.demo import camera as station
from stream.demo.camera import Camera
from stream.plan import parse_plan
from stream.records import Alert, Diagnosis, HeatMap
from stream.report.outcome import Outcome
from stream.report.page import render
from stream.report.sightings import Sighting, called, overlaid, where
from stream.sources.json import timestamp

START_MS = 1_795_435_200_000
HOURS = 8


def camera():
    return Camera.simulated(7, START_MS, START_MS + HOURS * 3_600_000)


def raised(at_ms, **changed):
    at = timestamp(at_ms)
    cells = np.zeros((4, 5), np.uint8)
    cells[1, 2] = 255
    heat = HeatMap(at=at, width=160, height=128, box=(64, 32, 96, 64), columns=5, rows=4, cells=cells.tobytes())
    held = Alert(
        id="a1", sequence=0, state="open", severity="critical", asset=station.ASSET, detector=station.DETECTOR,
        kind="surface_inspector", verdict="model", model_version="1", onset=at, opened=at, last_seen=at, score=9.0,
        threshold=3.0, peak=9.0, peak_at=at, diagnosis=(Diagnosis("crack", 0.974),), heat=heat,
    )  # fmt: skip
    return msgspec.structs.replace(held, **changed)


def test_the_camera_sees_each_defect_once_and_the_plan_watches_it():
    seen = camera()
    kinds = [picture.kind for picture in seen.pictures]
    assert sorted(kind for kind in kinds if kind != NORMAL) == sorted(DEFECTS)
    assert len(kinds) == HOURS * 3600 / station.PERIOD_S
    assert list(seen.at_ms) == sorted(seen.at_ms)
    plan = parse_plan(tomllib.loads(station.PLAN))
    assert plan.input.format == "pictures"
    assert plan.detectors[station.DETECTOR].watches(station.ASSET)
    # two workers on one broker: what is remembered of assets must not mix, alerts have to
    default = parse_plan({"detectors": {"x": {"kind": "ewma", "artifact": "x"}}}).topics
    assert plan.topics.state != default.state
    assert plan.topics.alerts == default.alerts


def test_found_missed_and_false_are_told_apart():
    seen = camera()
    defects = [at for at, picture in zip(seen.at_ms, seen.pictures, strict=True) if picture.kind != NORMAL]
    good = next(at for at, picture in zip(seen.at_ms, seen.pictures, strict=True) if picture.kind == NORMAL)
    other = raised(defects[1], asset="pump-01")
    sightings = seen.sightings([raised(defects[0]), other, raised(good)])
    assert [(one.at_ms, one.found, one.alert is None) for one in sightings] == sorted(
        [(defects[0], True, False), (good, False, False), (defects[1], False, True), (defects[2], False, True)]
    )


def test_the_picture_stands_in_the_report_with_its_heat_map_class_score_and_place():
    seen = camera()
    at_ms, tile = next(
        (at, picture) for at, picture in zip(seen.at_ms, seen.pictures, strict=True) if picture.kind != NORMAL
    )
    alert = raised(at_ms)
    assert called(alert) == "crack 97 %"
    assert where(alert.heat) == "columns 64-96, rows 32-64"
    sightings = [
        Sighting("camera-01<", at_ms, "crack", tile.pixels, alert),
        Sighting("c", at_ms, "hole", tile.pixels, None),
    ]
    page = render(Outcome("t", [], [], [], {}, sightings=sightings))
    for told in ("crack 97 %, score 9.0 of 3.0, columns 64-96, rows 32-64", "camera-01&lt;", "missed"):
        assert told in page
    assert "camera-01<" not in page
    data = page.split("data:image/png;base64,", 1)[1].split('"', 1)[0]
    shown = np.asarray(Image.open(io.BytesIO(b64decode(data))).convert("RGB"), int)
    assert shown.shape == (256, 320, 3)
    red = shown[..., 0] - shown[..., 1]
    assert red[80:112, 140:180].mean() > 60  # the warm cell, at twice the picture's size
    assert abs(red[200:, 200:]).max() == 0


def test_without_a_map_the_picture_is_as_it_was():
    pixels = camera().pictures[0].pixels
    assert np.array_equal(decode(overlaid(pixels, None))[::2, ::2], pixels)
