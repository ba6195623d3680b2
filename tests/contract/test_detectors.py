"""What every detector promises, whichever file in models/detectors it is: see ``models.base.Detector``."""

import doctest
import functools
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from models import registry
from models.artifact import assemble, load
from models.base import KINDS, Detector
from models.calibrate import calibrate
from models.datasets import Recording
from models.errors import InvalidArtifact, TrainingError
from models.scaling import RobustScaler
from models.train import score_series, train
from stream.pipeline import Pipeline
from stream.plan import parse_plan
from stream.records import Readings

AT_MS = 1_764_000_000_000
#: Small and short: most of a deep detector's time here is Keras compiling, once for each number of signals.
SHORT = {"epochs": 6, "window": 16}


def every_detector(names):
    return [
        pytest.param(name, marks=[pytest.mark.tensorflow] if registry.needs_tensorflow(name) else [], id=name)
        for name in names
    ]


each = pytest.mark.parametrize("name", every_detector(registry.names()))
#: Those that judge the plant; the others judge the data, so a missing value is theirs to score.
judges_the_plant = pytest.mark.parametrize("name", every_detector(n for n in registry.names() if n != "data_quality"))


def plant(rows, signals, seed=0):
    """A cycle that the signals share, each in its own measure, and noise: (row, signal) float32, about scaled."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(2, signals))
    hours = np.arange(rows)[:, None] / 3.0
    return (np.hstack([np.sin(hours), np.cos(hours)]) @ mix + 0.2 * rng.normal(size=(rows, signals))).astype(np.float32)


def windows_of(rows, length):
    return np.ascontiguousarray(sliding_window_view(rows, length, axis=0).transpose(0, 2, 1))


def made(name, signals):
    config = SHORT if registry.needs_tensorflow(name) else {}
    return registry.create(name, signals=signals, config=config)


def fitted(name, signals):
    """A detector that has learnt, and what it told of its progress meanwhile."""
    detector, told = made(name, signals), []
    stretches, held_back = [plant(300, signals), plant(150, signals, seed=1)], [plant(150, signals, seed=2)]
    detector.fit(stretches, held_back, seed=5, progress=lambda *step: told.append(step))
    return detector, told


kept = functools.cache(fitted)


def trained(name, signals=3):
    return kept(name, signals)[0]


@functools.cache
def fresh(name, signals=3):
    windows = windows_of(plant(160, signals, seed=3), trained(name, signals).window)
    windows.flags.writeable = False
    return windows


@each
def test_it_follows_the_protocol(name):
    detector = made(name, 2)
    assert isinstance(detector, Detector)
    assert (detector.name, detector.signals) == (name, 2)
    assert detector.window == detector.config.window > 0


@each
@pytest.mark.parametrize("signals", [1, 3, 30])
def test_shapes_and_kinds_of_numbers(name, signals):
    scored = trained(name, signals).score(fresh(name, signals))
    batch = len(fresh(name, signals))
    assert (scored.score.shape, scored.score.dtype) == ((batch,), np.float64)
    assert (scored.contributions.shape, scored.contributions.dtype) == ((batch, signals), np.float64)
    assert np.isfinite(scored.score).all()
    assert (scored.score >= 0).all()
    assert (scored.contributions >= 0).all()
    sums = scored.contributions.sum(axis=1)
    np.testing.assert_allclose(sums, np.where(scored.score > 0, 1.0, 0.0), atol=1e-9)
    for part in (scored.expected, scored.spread):
        if part is not None:
            assert (part.shape, part.dtype) == ((batch, signals), np.float32)
            assert np.isfinite(part).all()
    if scored.spread is not None:
        assert (scored.spread > 0).all()
    if scored.kind is not None:
        assert scored.kind.dtype == np.uint8
        assert (scored.kind < len(KINDS)).all()


@each
def test_the_example_on_its_page_runs(name):
    page = inspect.getmodule(registry.detector_class(name))
    ran = doctest.testmod(page)
    assert ran.attempted > 0
    assert ran.failed == 0


@judges_the_plant
def test_higher_is_stranger_and_the_signal_is_named(name):
    windows = fresh(name).copy()
    calm = trained(name).score(windows)
    windows[:, -1, 1] += 15
    strange = trained(name).score(windows)
    assert (strange.score > calm.score).mean() > 0.95
    assert np.median(strange.score) > np.quantile(calm.score, 0.95)
    assert (strange.contributions.argmax(axis=1) == 1).mean() > 0.8


@each
def test_a_score_depends_on_its_window_alone_to_the_bit(name):
    detector, windows = trained(name), fresh(name)
    whole = detector.score(windows)
    for chosen in (slice(0, 1), slice(7, 8), slice(3, 36), slice(20, 97), slice(None, None, -1), slice(5, 70, 3)):
        part = detector.score(np.ascontiguousarray(windows[chosen]))
        for field in ("score", "contributions", "expected", "spread", "kind"):
            ours, theirs = getattr(part, field), getattr(whole, field)
            assert (ours is None) == (theirs is None)
            if ours is not None:
                assert ours.tobytes() == theirs[chosen].tobytes(), (field, chosen)


@each
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_the_future_changes_no_score(name, data):
    detector = trained(name)
    series = plant(detector.window + 90, 3, seed=4)
    until = data.draw(st.integers(detector.window, len(series)))
    known = detector.score(windows_of(series[:until], detector.window)).score
    assert known.tobytes() == detector.score(windows_of(series, detector.window)).score[: len(known)].tobytes()


@each
def test_scoring_leaves_the_windows_and_the_detector_as_they_were(name):
    detector, windows = trained(name), fresh(name).copy()
    windows[::3, 4, 0] = np.nan
    before, weights = windows.tobytes(), {key: array.tobytes() for key, array in detector.weights().items()}
    first, second = detector.score(windows).score, detector.score(windows).score
    assert first.tobytes() == second.tobytes()
    assert windows.tobytes() == before
    assert {key: array.tobytes() for key, array in detector.weights().items()} == weights


@each
def test_no_window_at_all_is_no_score_at_all(name):
    scored = trained(name).score(fresh(name)[:0])
    assert scored.score.shape == (0,)
    assert scored.contributions.shape == (0, 3)


@judges_the_plant
def test_a_missing_value_lowers_nothing_and_hides_nothing(name):
    windows = fresh(name).copy()
    windows[:, -1, 1] += 15
    windows[:, -6:, 2] = np.nan
    scored = trained(name).score(windows)
    assert np.median(scored.score) > np.quantile(trained(name).score(fresh(name)).score, 0.95)
    assert (scored.contributions[:, 2] == 0).all()


@judges_the_plant
def test_no_value_in_the_newest_row_is_no_score(name):
    windows = fresh(name).copy()
    windows[1, -1] = np.nan
    windows[2] = np.nan
    scored = trained(name).score(windows)
    assert np.isnan(scored.score[1:3]).all()
    assert np.isfinite(np.delete(scored.score, [1, 2])).all()
    assert (scored.contributions[1:3] == 0).all()


@each
def test_absurd_values_give_finite_scores(name):
    windows = fresh(name).copy()
    windows[:, :, 0] = 20
    windows[:, ::2, 1] = -20
    assert np.isfinite(trained(name).score(windows).score).all()


@each
def test_windows_of_another_shape_are_refused(name):
    detector, windows = trained(name), fresh(name)
    for wrong in (windows[:, 1:], windows[:, :, :2], windows[0], windows.astype(np.float64)):
        with pytest.raises(ValueError, match="expected windows"):
            detector.score(wrong)


@each
def test_history_of_other_signals_is_refused(name):
    with pytest.raises(ValueError, match="expected stretches"):
        made(name, 3).fit([plant(300, 2)], [plant(100, 2)])


@each
def test_too_little_history_names_the_remedy(name):
    with pytest.raises(TrainingError, match="more history"):
        made(name, 2).fit([plant(5, 2)], [plant(5, 2)])


@each
def test_an_untrained_detector_says_so(name):
    detector = made(name, 3)
    with pytest.raises(RuntimeError, match="neither trained nor loaded"):
        detector.score(np.zeros((1, detector.window, 3), np.float32))


@each
def test_the_same_seed_learns_the_same_weights(name):
    once, again = trained(name).weights(), fitted(name, 3)[0].weights()
    assert {key: array.tobytes() for key, array in once.items()} == {
        key: array.tobytes() for key, array in again.items()
    }


@each
def test_what_is_restored_scores_the_same_bits(name):
    restored = made(name, 3)
    restored.load_weights({key: array.copy() for key, array in trained(name).weights().items()})
    ours, theirs = restored.score(fresh(name)), trained(name).score(fresh(name))
    assert ours.score.tobytes() == theirs.score.tobytes()
    assert ours.contributions.tobytes() == theirs.contributions.tobytes()


@pytest.mark.tensorflow
def test_what_another_process_trained_scores_the_same_bits_here(tmp_path):
    trained("lstm_forecaster", 30)  # something else is built here before
    path, folder = tmp_path / "artifact", Path(__file__).parents[2]
    code = f"""
import numpy as np, pathlib
from models.datasets import Recording
from models.scaling import RobustScaler
from models.train import score_series, train
from stream.pipeline import Pipeline
from stream.records import Readings
from stream.plan import parse_plan
rows = np.random.default_rng(0).normal(size=(300, 2))
artifact = train([Recording("a", np.arange(300) * 1000, ("x", "y"), rows)], detector="lstm_forecaster", config={SHORT})
artifact.save(pathlib.Path({str(path)!r}))
print(score_series(artifact, rows[:90]).score.tobytes().hex())
"""
    told = subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True, text=True)
    rows = np.random.default_rng(0).normal(size=(300, 2))
    assert score_series(load(path), rows[:90]).score.tobytes().hex() == told.stdout.strip()
    assert not told.stderr  # TensorFlow's chatter is switched off


@pytest.mark.parametrize("name", every_detector(n for n in registry.names() if registry.needs_tensorflow(n)))
def test_an_artifact_is_loaded_and_scored_without_tensorflow(name, tmp_path):
    rows = plant(300, 3)
    recording = Recording("a", np.arange(300) * 1000, ("x", "y", "z"), rows)
    artifact = train([recording], detector=name, config=SHORT)
    assert 0 <= artifact.manifest.figures["parity"] < 1e-4
    path = artifact.save(tmp_path / "artifact")
    code = f"""
import sys, pathlib, numpy as np
from models.artifact import load
artifact = load(pathlib.Path({str(path)!r}))
rows = np.frombuffer(bytes.fromhex({rows[: artifact.window].tobytes().hex()!r}), np.float32)
print(artifact.score(rows.reshape(1, -1, 3)).score.tobytes().hex())
print(*sorted({{"tensorflow", "keras", "models.training", "models.layers"}} & set(sys.modules)))
"""
    folder = Path(__file__).parents[2]
    told = subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True, text=True)
    score = artifact.score(rows[None, : artifact.window]).score
    assert told.stdout.splitlines() == [score.tobytes().hex(), ""]


@each
def test_weights_are_plain_finite_arrays(name):
    for array in trained(name).weights().values():
        assert array.dtype in (np.float32, np.float64, np.int64)
        assert np.isfinite(array).all()


@each
def test_damaged_weights_are_refused_by_name(name):
    weights = trained(name).weights()
    for key, array in weights.items():
        broken = array.copy()
        broken.flat[0] = np.nan
        for damaged in (
            {k: v for k, v in weights.items() if k != key},
            weights | {key: broken},
            weights | {key: array[..., None]},
        ):
            with pytest.raises(InvalidArtifact, match=key):
                made(name, 3).load_weights(damaged)


@each
def test_weights_for_other_signals_are_refused(name):
    with pytest.raises(InvalidArtifact):
        made(name, 4).load_weights(trained(name).weights())


@each
def test_constant_and_missing_signals_break_nothing(name):
    def dull(rows, seed):
        history = plant(rows, 3, seed=seed)
        history[:, 1] = 0
        history[:, 2] = np.nan
        return history

    detector = made(name, 3)
    detector.fit([dull(300, 0)], [dull(120, 1)])
    windows = windows_of(dull(80, 2), detector.window)
    assert np.isfinite(detector.score(windows).score).all()


@each
def test_progress_is_told(name):
    _, told = kept(name, 3)
    assert told
    assert all(0 < done <= total and isinstance(note, str) for done, total, note in told)


def test_data_quality_notices_a_flat_line_and_an_outage():
    detector = trained("data_quality")
    windows = fresh("data_quality").copy()
    windows[:, -20:, 2] = windows[:, -21:-20, 2]
    stuck = detector.score(windows)
    assert (stuck.score > 1).all()
    assert {KINDS[kind] for kind in stuck.kind} == {"stuck"}
    assert (stuck.contributions.argmax(axis=1) == 2).all()
    windows[:, -20:, 0] = np.nan
    windows[:, -25:, 0] = np.nan
    missing = detector.score(windows)
    assert {KINDS[kind] for kind in missing.kind} == {"missing"}


def test_data_quality_lets_rest_what_always_rested():
    rows = plant(600, 2)
    rows[:, 1] = np.repeat(rows[::100, 1], 100)
    detector = registry.create("data_quality", signals=2)
    detector.fit([rows], [])
    assert (detector.score(windows_of(rows, detector.window)).score < 1).all()


class OneModel:
    """A shelf with one model, which serves all assets."""

    def __init__(self, artifact):
        self._artifact = artifact

    def find(self, detector, asset):
        return self._artifact

    def signals(self):
        return self._artifact.signals

    def version(self, detector, version):
        return None

    def serving(self):
        yield "it", self._artifact


@each
@pytest.mark.parametrize("dead", [[0], [2], [0, 1]])
@pytest.mark.parametrize("how", ["missing", "impossible"])
def test_dead_signals_neither_silence_an_asset_nor_leave_their_mask(name, dead, how):
    detector, history = trained(name), plant(150, 3, seed=2)
    artifact = assemble(
        detector,
        RobustScaler.fit([history]),
        calibrate([np.random.default_rng(0).exponential(size=200)], period_s=1.0),
        signals=("a", "b", "c"),
        period_s=1.0,
        assets=("pump",),
        rows={"fit": 1},
        from_ms=0,
        to_ms=1,
        seed=0,
        figures={},
        curves={},
    )
    length = detector.window + 60
    values = plant(length, 3, seed=3).astype(np.float64)
    values[-50:, dead] = np.nan if how == "missing" else 1e6
    rules = {"kind": name, "artifact": "none"}
    ranges = {"signals": {"*": {"low": -1000, "high": 1000}}} if how == "impossible" else {}
    plan = parse_plan({"detectors": {"it": rules}, **ranges})
    times, first = AT_MS + 1000 * np.arange(length), np.zeros(length, dtype=np.int32)
    readings = Readings(("pump",), first, times, artifact.signals, values, np.arange(length, dtype=np.int32))
    output = Pipeline(plan, OneModel(artifact)).run(0, readings)
    assert not output.counts.get("failed")
    (scores,) = output.scores
    masked = scores.at_ms >= times[-50]
    assert masked.sum() == 50
    assert np.isfinite(scores.score[masked]).all()
    assert np.isnan(scores.values[masked][:, dead]).all()
    if name != "data_quality":  # which is there to blame them
        assert not scores.contributions[masked][:, dead].any()
    wrong = {cause.signal for alert in output.alerts if alert.detector == "signals" for cause in alert.causes}
    assert wrong == ({"abc"[column] for column in dead} if how == "impossible" else set())
