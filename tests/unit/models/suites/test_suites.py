import csv
import json

import numpy as np
import pytest

from models.errors import DataError, UnknownDetector
from models.suites import running, skab
from models.suites.base import Case, Figure, Judged
from models.suites.judging import judge
from models.suites.running import SUITES, run
from stream.commands.evaluate import run_evaluate

QUICK = {"memory": False}


def plant(rows, signals, seed=0, fault=None):
    rng = np.random.default_rng(seed)
    hours = np.arange(rows)[:, None] / 5 + np.arange(signals)
    values = np.sin(hours) + 0.2 * rng.normal(size=(rows, signals))
    if fault is not None:
        values[fault, 0] += 3
    return values


def times(rows, step_s=1):
    start = np.datetime64("2026-01-05T00:00:00")
    return [str(start + np.timedelta64(step_s * row, "s")).replace("T", " ") for row in range(rows)]


def skab_folder(path, files=2):
    (path / "valve1").mkdir(parents=True)
    for number in range(files):
        values, fault = plant(700, 3, seed=number), slice(550, 650)
        values[fault, 0] += 3
        lines = ["datetime;a;b;c;anomaly;changepoint"]
        for row, (time, own) in enumerate(zip(times(700), values, strict=True)):
            lines.append(f"{time};{own[0]};{own[1]};{own[2]};{float(550 <= row < 650)};{float(row in (550, 650))}")
        (path / "valve1" / f"{number}.csv").write_text("\n".join(lines))
    return path


def nab_folder(path):
    (path / "data" / "real").mkdir(parents=True)
    (path / "labels").mkdir()
    windows = {}
    for number in range(2):
        values = 20 + plant(900, 1, seed=number)[:, 0]
        values[600] += 30
        stamps = times(900, 300)
        table = "\n".join(["timestamp,value", *(f"{time},{value}" for time, value in zip(stamps, values, strict=True))])
        (path / "data" / "real" / f"{number}.csv").write_text(table)
        windows[f"real/{number}.csv"] = [[stamps[590], stamps[640]]]
    (path / "labels" / "combined_windows.json").write_text(json.dumps(windows))
    return path


def tep_folder(path):
    path.mkdir()
    np.savetxt(path / "d00.dat", plant(400, 52).T)
    for fault in (0, 1, 3):
        np.savetxt(
            path / f"d{fault:02d}_te.dat", plant(360, 52, seed=fault + 1, fault=slice(160, None) if fault else None)
        )
    return path


def asd_folder(path):
    path.mkdir()
    names = ",".join(f"kpi_{number}" for number in range(4))
    np.savetxt(path / "omi-1_train.csv", plant(500, 4), delimiter=",", header=names, comments="")
    label = np.zeros((400, 1))
    label[200:240] = 1
    test = np.hstack([plant(400, 4, seed=1, fault=slice(200, 240)), label])
    np.savetxt(path / "omi-1_test.csv", test, delimiter=",", header=names + ",label", comments="")
    return path


def smap_folder(path):
    for part, fault in (("train", None), ("test", slice(200, 240))):
        (path / part).mkdir(parents=True)
        np.save(path / part / "P-1.npy", plant(500, 4, seed=len(part), fault=fault))
    table = 'chan_id,spacecraft,anomaly_sequences,class,num_values\nP-1,SMAP,"[[200, 239]]",[point],500\n'
    (path / "labeled_anomalies.csv").write_text(table)
    return path


FOLDERS = {"skab": skab_folder, "nab": nab_folder, "tep": tep_folder, "asd": asd_folder, "smap_msl": smap_folder}


@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_a_plain_fault_is_found_in_every_layout(name, tmp_path):
    config = {} if name == "nab" else QUICK
    result = run(SUITES[name], FOLDERS[name](tmp_path / name), config=config, processes=1)
    values = {figure.name: figure.value for figure in result.figures}
    least = {"skab": ("F1", 0.7), "nab": ("standard, fixed threshold", 60), "asd": ("mean VUS-PR", 0.6)}
    least |= {"smap_msl": ("mean VUS-PR", 0.6), "tep": ("mean detection rate, faults 1, 2, 4-8, 10", 0.9)}
    figure, bar = least[name]
    assert values[figure] > bar
    assert all(record["suite"] == name and record["detector"] == result.detector for record in result.records())
    json.dumps(result.records(), allow_nan=False)


@pytest.mark.parametrize("name", sorted(SUITES))
def test_a_folder_of_another_layout_is_refused_with_what_was_expected(name, tmp_path):
    with pytest.raises(DataError, match="as "):
        run(SUITES[name], tmp_path)


def test_a_run_goes_on_where_it_stopped_with_the_same_bits(tmp_path, monkeypatch):
    folder, scores = skab_folder(tmp_path / "skab", files=3), tmp_path / "scores"
    whole = run(SUITES["skab"], folder, config=QUICK, processes=1)
    calls: list[str] = []

    def stopped(case, *others):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(case.key)
        return judge(case, *others)

    monkeypatch.setattr(running, "judge", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(SUITES["skab"], folder, config=QUICK, scores=scores, processes=1)
    calls.clear()
    again = run(SUITES["skab"], folder, config=QUICK, scores=scores, processes=1)
    assert calls == ["valve1/2"]
    assert again.figures == whole.figures


def test_other_settings_begin_anew(tmp_path):
    folder, scores = skab_folder(tmp_path / "skab", files=1), tmp_path / "scores"
    run(SUITES["skab"], folder, config=QUICK, scores=scores, processes=1)
    file = scores / "skab" / "innovations" / "valve1" / "0.csv"
    before = file.read_text()
    run(SUITES["skab"], folder, config={"memory": False, "window": 90}, scores=scores, processes=1)
    assert file.read_text() != before
    assert json.loads((file.parents[1] / "run.json").read_text())["config"]["window"] == 90


def test_nab_s_own_scorer_can_read_what_is_written(tmp_path):
    folder, scores = nab_folder(tmp_path / "nab"), tmp_path / "scores"
    run(SUITES["nab"], folder, scores=scores, processes=1)
    with (scores / "nab" / "novelty" / "real" / "0.csv").open() as text:
        rows = list(csv.DictReader(text))
    with (folder / "data" / "real" / "0.csv").open() as text:
        given = list(csv.DictReader(text))
    assert [row["timestamp"] for row in rows] == [row["timestamp"] for row in given]
    assert all(0 <= float(row["anomaly_score"]) <= 1 for row in rows)
    assert float(rows[600]["anomaly_score"]) >= 0.5
    assert [int(row["label"]) for row in rows] == [int(590 <= place <= 640) for place in range(900)]


def test_two_processes_give_the_bits_of_one(tmp_path):
    folder = skab_folder(tmp_path / "skab")
    one, two = (run(SUITES["skab"], folder, config=QUICK, processes=count) for count in (1, 2))
    assert one.figures == two.figures


def test_a_detector_without_a_calibration_of_its_own_is_rehearsed():
    train, test = plant(600, 3), plant(300, 3, seed=1)
    test[200:, 0] += 4
    labels = np.arange(300) >= 200
    case = Case("a", train, test, labels, np.arange(300) * 1000, continues=True)
    judged = judge(case, "ewma", {})
    assert judged.alarms[200:220].all()  # later it takes the new level for usual: it is a moving average
    assert judged.alarms[:200].mean() < 0.1
    with pytest.raises(UnknownDetector):
        judge(case, "nobody", {})


def test_turns_are_where_alerts_open_and_resolve():
    scores = np.array([0.0, 1.0, 0.95, 1.2, 0.89, 0.0, 1.0])
    assert skab.turns(scores).tolist() == [1, 4, 6]


def test_the_figures_of_a_suite_are_those_of_its_measures():
    labels = np.array([False] * 160 + [True] * 40)
    case = Case("1", np.zeros((1, 1)), np.zeros((200, 1)), labels, np.arange(200) * 1000, about={"changes": labels})
    perfect = {figure.name: figure for figure in skab.figures([Judged(case, np.where(labels, 2.0, 0.0))])}
    assert perfect["F1"].value == 1.0
    assert perfect["F1"].met
    assert perfect["false alarm rate"].value == 0.0
    assert Figure("x", float("nan"), bar=1.0).met is False
    assert Figure("x", float("nan")).record()["value"] is None


def test_the_command_prints_writes_and_tells_whether_all_bars_are_met(tmp_path, capsys):
    folder = tep_folder(tmp_path / "tep")
    written = tmp_path / "figures.json"
    status = run_evaluate(["tep"], tmp_path, config=QUICK, json_file=written, processes=1)
    records = json.loads(written.read_text())
    assert status == int(any(record["met"] is False for record in records))
    assert {"suite", "detector", "name", "value", "unit", "bar", "met"} == set(records[0])
    assert "mean detection rate" in capsys.readouterr().out
    assert folder.exists()
