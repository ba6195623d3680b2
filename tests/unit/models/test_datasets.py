import json

import numpy as np
import pytest

from models.datasets import Recording, read
from models.errors import DataError


def written(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_plain_table(tmp_path, separator):
    text = "timestamp,flow,pressure\n2024-01-01 00:00:00,1,2.5\n2024-01-01 00:00:10,3,\n".replace(",", separator)
    [pump] = read(written(tmp_path, "pump-1.csv", text))
    assert (pump.asset, pump.signals, pump.labels) == ("pump-1", ("flow", "pressure"), None)
    assert pump.at_ms.tolist() == [1704067200000, 1704067210000]
    np.testing.assert_array_equal(pump.values, [[1, 2.5], [3, np.nan]])


@pytest.mark.parametrize(
    "time",
    ["1704067200", "1704067200000", "1704067200.0", "2024-01-01T00:00:00Z", "2024-01-01T01:00:00+01:00", "2024-01-01"],
)
def test_times_in_seconds_milliseconds_or_iso(tmp_path, time):
    [recording] = read(written(tmp_path, "a.csv", f"ts,x\n{time},1\n"))
    assert recording.at_ms.tolist() == [1704067200000]


def test_rows_are_put_in_the_order_of_time(tmp_path):
    [recording] = read(written(tmp_path, "a.csv", "ts,x\n1704067220,3\n1704067200,1\n1704067210,2\n"))
    assert recording.values.ravel().tolist() == [1, 2, 3]
    assert (np.diff(recording.at_ms) > 0).all()


def test_an_asset_column_gives_a_recording_an_asset(tmp_path):
    path = written(tmp_path, "all.csv", "ts,machine,x\n1704067200,m2,1\n1704067201,m1,2\n1704067202,m2,3\n")
    recordings = {recording.asset: recording for recording in read(path)}
    assert recordings["m2"].values.ravel().tolist() == [1, 3]
    assert recordings["m1"].signals == ("x",)


def test_columns_can_be_named(tmp_path):
    path = written(tmp_path, "a.csv", "when,who,x\n1704067200,p,1\n")
    [recording] = read(path, time_column="when", asset_column="who")
    assert (recording.asset, recording.signals) == ("p", ("x",))
    with pytest.raises(DataError, match=r"no column 'then' \(--time-column\); there are when, who, x"):
        read(path, time_column="then")


def test_labels_are_never_signals(tmp_path):
    text = "datetime;x;anomaly;changepoint\n2024-01-01 00:00:00;1;0.0;0.0\n2024-01-01 00:00:01;2;1.0;1.0\n"
    [recording] = read(written(tmp_path, "a.csv", text))
    assert recording.signals == ("x",)
    assert recording.labels is not None
    assert recording.labels.tolist() == [False, True]
    assert recording.label_windows == ((1704067201000, 1704067201000),)


def test_words_among_the_numbers_name_file_column_and_remedy(tmp_path):
    with pytest.raises(DataError, match=r"a.csv: column 'state' holds 'on', which is no number; remove the column"):
        read(written(tmp_path, "a.csv", "ts,x,state\n1704067200,1,on\n"))


def test_a_time_that_is_none_is_named(tmp_path):
    with pytest.raises(DataError, match=r"'ts'.*ISO 8601"):
        read(written(tmp_path, "a.csv", "ts,x\nyesterday,1\n"))
    with pytest.raises(DataError, match="no time in row 1"):
        read(written(tmp_path, "b.csv", "ts,x\n1704067200,1\n,2\n"))


def test_rows_without_a_time_are_a_period_apart(tmp_path):
    [recording] = read(written(tmp_path, "a.csv", "x,y\n1,2\n3,4\n5,6\n"), period_s=180)
    assert np.diff(recording.at_ms).tolist() == [180_000, 180_000]


def test_parquet(tmp_path):
    import polars as pl

    pl.DataFrame({"ts": [1704067200000, 1704067201000], "x": [1.0, None]}).write_parquet(tmp_path / "a.parquet")
    [recording] = read(tmp_path / "a.parquet")
    np.testing.assert_array_equal(recording.values, [[1.0], [np.nan]])


def test_a_folder_gives_an_asset_a_file(tmp_path):
    for name in ("b", "a"):
        written(tmp_path, f"{name}.csv", "ts,x\n1704067200,1\n")
    written(tmp_path, "LICENSE", "words")
    assert [recording.asset for recording in read(tmp_path)] == ["a", "b"]
    for folder in ("train", "test"):
        written(tmp_path / "deep", f"{folder}/a.csv", "ts,x\n1704067200,1\n")
    assert [recording.asset for recording in read(tmp_path / "deep")] == ["test-a", "train-a"]


def test_nab_labels_lie_beside_the_data(tmp_path):
    path = written(tmp_path, "data/real/a.csv", "timestamp,value\n2024-01-01 00:00:00,1\n2024-01-01 00:05:00,2\n")
    windows = {"real/a.csv": [["2024-01-01 00:05:00.000000", "2024-01-01 00:10:00.000000"]]}
    written(tmp_path, "labels/combined_windows.json", json.dumps(windows))
    [recording] = read(path)
    assert recording.labels is not None
    assert recording.labels.tolist() == [False, True]
    assert recording.label_windows == ((1704067500000, 1704067800000),)


def test_tennessee_eastman_lies_on_its_side_or_does_not(tmp_path):
    rows = np.random.default_rng(0).normal(size=(60, 52))
    np.savetxt(tmp_path / "d00.dat", rows.T)
    np.savetxt(tmp_path / "d01.dat", rows)
    side, upright = read(tmp_path)
    np.testing.assert_allclose(side.values, upright.values)
    assert side.signals[0] == "xmeas01"
    assert side.signals[-1] == "xmv11"


def test_turbofans_come_one_recording_a_unit(tmp_path):
    rows = np.random.default_rng(0).normal(size=(5, 26))
    rows[:, 0], rows[:, 1] = [1, 1, 1, 2, 2], [1, 2, 3, 1, 2]
    np.savetxt(tmp_path / "train_FD009.txt", rows)
    written(tmp_path, "RUL_FD009.txt", "112\n98\n")
    first, second = read(tmp_path)
    assert (first.asset, len(first.at_ms), len(second.at_ms)) == ("train_FD009-1", 3, 2)
    assert first.signals[:4] == ("setting1", "setting2", "setting3", "sensor1")


def test_spacecraft_telemetry_with_its_row_ranges(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        np.save(tmp_path / part / "P-1.npy", np.zeros((10, 3)))
    written(tmp_path, "labeled_anomalies.csv", 'chan_id,spacecraft,anomaly_sequences\nP-1,SMAP,"[[2, 4], [8, 8]]"\n')
    test, train = read(tmp_path)
    assert test.labels is not None
    assert np.flatnonzero(test.labels).tolist() == [2, 3, 4, 8]
    assert train.labels is not None
    assert not train.labels.any()
    assert len(test.label_windows) == 2


def test_a_pickled_array_is_not_read(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="without running code"):
        read(tmp_path / "a.npy")


@pytest.mark.parametrize("text", ["", "1 2 x\n", "1 2\n3\n"], ids=["empty", "words", "ragged"])
def test_what_is_no_table_names_the_file(tmp_path, text):
    with pytest.raises(DataError, match=r"a\.txt"):
        read(written(tmp_path, "a.txt", text))


def test_nothing_there_is_said(tmp_path):
    with pytest.raises(DataError, match="no recording in it"):
        read(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "missing.csv")


def test_a_recording_that_does_not_fit_together_is_refused():
    with pytest.raises(DataError, match="pump"):
        Recording("pump", np.arange(3), ("x",), np.zeros((2, 1)))
    with pytest.raises(DataError, match="labels"):
        Recording("pump", np.arange(3), ("x",), np.zeros((3, 1)), np.zeros(2, bool))
