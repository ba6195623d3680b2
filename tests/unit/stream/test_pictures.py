from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models import raster
from models.artifact import Artifact, assemble
from models.calibrate import calibrate
from models.inspection import SIGNAL as TRAINED
from models.inspectors import surface_inspector
from models.registry import create
from models.scaling import RobustScaler
from models.simulate_tiles import jpeg
from stream.decode import Decoder
from stream.heat import heat_map
from stream.pipeline import Pipeline
from stream.plan import InputSettings, Plan, parse_plan
from stream.records import Output, Record, to_json
from stream.shelf import Shelf
from stream.sources.pictures import SIGNAL

NOON_MS = 1_795_435_200_000


def sees_the_dark() -> Artifact:
    """An inspector whose evidence is how dark a spot is, as if it had been trained to that."""
    config = surface_inspector.Config(classes=("normal", "hole"), filters=4)
    weights = {name: np.zeros(shape, np.float32) for name, shape in surface_inspector.shapes(config)}
    weights["whole.kernel"][1, 1, 0, 0] = -1
    weights["half.kernel"][0, 0, 0, 0] = 1
    weights["half2.kernel"][1, 1, 0, 0] = weights["last.kernel"][1, 1, 0, 0] = 1
    weights["logits.kernel"][0, 0, 0, 1] = 10
    probe = raster.read(np.random.default_rng(0).normal(size=(48, 64)).astype(np.float32))
    weights |= {"parity.input": probe, "parity.output": surface_inspector.forward(weights, probe, config)}
    usual: dict[str, Any] = {"usual.mean": np.zeros((10, 10)), "usual.spread": np.ones((10, 10))}
    inspector = create("surface_inspector", signals=1, config={"classes": config.classes, "filters": 4})
    inspector.load_weights(weights | usual)
    return assemble(
        inspector, RobustScaler(np.zeros(1), np.ones(1)), calibrate([], period_s=1.0, natural=7.0),
        signals=(TRAINED,), period_s=1.0, assets=(), rows={}, from_ms=0, to_ms=0, seed=0, figures={}, curves={},
    )  # fmt: skip


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder: Path = tmp_path_factory.mktemp("plan")
    sees_the_dark().save(folder / "tiles")
    table = {
        "input": {"format": "pictures"},
        "topics": {"readings": "plant.pictures.v1"},
        "detectors": {"tiles": {"kind": "surface_inspector", "assets": ["camera-*"], "artifact": "tiles"}},
    }
    return parse_plan(table, folder=folder)


def record(offset: int, value: bytes | None, **changed: Any) -> Record:
    told = {"key": b"camera-1", "headers": (("ts", str(NOON_MS + 1000 * offset).encode()),), **changed}
    return Record("plant.pictures.v1", 0, offset, value, timestamp=NOON_MS + 1000 * offset, **told)


def shown(kind: str) -> bytes:
    """A plain surface, or one with a dark place 20 pixels wide and 16 high."""
    pixels = np.full((128, 160), 120, np.uint8)
    if kind == "hole":
        pixels[60:76, 80:100] = 20
    return jpeg(pixels)


def pictures(kinds: Sequence[str]) -> list[Record]:
    return [record(offset, shown(kind)) for offset, kind in enumerate(kinds)]


def run(plan: Plan, records: Sequence[Record], cut: int = 100) -> list[Output]:
    shelf = Shelf(plan)
    shelf.warm()
    pipeline = Pipeline(plan, shelf)
    return [pipeline.process(0, records[start : start + cut]) for start in range(0, len(records), cut)]


def test_a_defect_opens_an_alert_with_its_class_and_place_and_a_good_picture_resolves_it(plan: Plan) -> None:
    kinds = ["normal", "normal", "hole", "normal", "normal"]
    (output,) = run(plan, pictures(kinds))
    opened, resolved = output.alerts
    assert (opened.state, opened.asset, opened.kind, resolved.state) == (
        "open",
        "camera-1",
        "surface_inspector",
        "resolved",
    )
    assert opened.onset == "2026-11-23T12:00:02.000Z"
    assert opened.diagnosis[0].fault == "hole"
    assert opened.diagnosis[0].probability > 0.9
    assert [cause.signal for cause in opened.causes] == [SIGNAL]

    heat = opened.heat
    assert heat is not None
    assert (heat.at, heat.width, heat.height) == (opened.onset, 160, 128)
    left, top, right, bottom = heat.box
    assert 60 < left <= 80
    assert 100 <= right < 120
    assert 40 < top <= 60
    assert 76 <= bottom < 96
    cells = np.frombuffer(b64decode(msgspec.json.decode(to_json(opened))["heat"]["cells"]), np.uint8)
    row, column = divmod(int(cells.reshape(heat.rows, heat.columns).argmax()), heat.columns)
    assert 56 <= (row + 0.5) * 128 / heat.rows <= 80
    assert 76 <= (column + 0.5) * 160 / heat.columns <= 104


def test_how_pictures_are_cut_into_batches_changes_nothing(plan: Plan) -> None:
    records = pictures(["normal", "hole", "hole", "normal", "hole", "normal"])
    whole, single = (
        [to_json(alert) for output in run(plan, records, cut) for alert in output.alerts] for cut in (100, 1)
    )
    assert len(whole) >= 4
    assert whole == single


def test_what_is_no_picture_is_a_dead_letter_and_the_others_are_judged(plan: Plan) -> None:
    good = shown("normal")
    records = [
        record(0, good),
        record(1, good[: len(good) // 2]),
        record(2, b"{}"),
        record(3, None),
        record(4, good, key=None),
        record(5, good, key=b"\xff"),
        record(6, good, headers=(("ts", b"yesterday"),)),
        record(7, good, headers=(("ts", b"17"),)),
        record(8, good),
    ]
    (output,) = run(plan, records)
    assert [(letter.record.offset, letter.reason) for letter in output.dead] == [
        (1, "not_a_picture"),
        (2, "not_a_picture"),
        (3, "empty"),
        (4, "bad_asset"),
        (5, "bad_asset"),
        (6, "bad_time"),
        (7, "absurd_time"),
    ]
    assert output.counts["readings"] == 2
    assert len(output.scores[0]) == 2


def test_the_time_is_the_header_s_or_the_record_s() -> None:
    good = shown("normal")
    text = (("ts", b"2026-11-23T12:00:00.250Z"),)
    records = [record(0, good, headers=text), record(1, good, headers=())]
    readings, dead, _ = Decoder(InputSettings(format="pictures"), (SIGNAL,)).decode(records)
    assert not dead
    assert readings.at_ms.tolist() == [NOON_MS + 250, NOON_MS + 1000]
    assert readings.values[0, 0] == pytest.approx(float(readings.pictures[0].mean()))


def test_the_signal_s_name_is_one_for_training_and_stream() -> None:
    assert SIGNAL == TRAINED


def test_a_heat_map_is_coarse_and_its_box_is_around_what_hangs_together() -> None:
    heat = np.zeros((100, 150), np.float32)
    heat[40:45, 60:70] = 8.0
    heat[90, 140] = 5.0
    found = heat_map(heat, NOON_MS, (400, 600))
    assert (found.rows, found.columns, len(found.cells)) == (20, 30, 600)
    assert found.box == (240, 160, 280, 180)
    assert sorted(set(found.cells)) == [0, 159, 255]
    assert heat_map(np.zeros((8, 8), np.float32), NOON_MS, (32, 32)).cells == bytes(64)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"input": {"format": "json"}}, "input.format"),
        ({"input": {"format": "pictures", "lateness_s": 5.0}}, "lateness_s"),
    ],
)
def test_a_plan_in_which_no_picture_can_reach_the_inspector_is_refused(changed: dict[str, Any], named: str) -> None:
    table = {"detectors": {"tiles": {"kind": "surface_inspector", "artifact": "tiles"}}, **changed}
    with pytest.raises(Exception, match=named):
        parse_plan(table)
