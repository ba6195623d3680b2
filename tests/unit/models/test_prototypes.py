import numpy as np
import pytest

from models.errors import InvalidArtifact
from models.prototypes import Prototypes


def cloud(middle, rows, seed=0):
    return np.asarray(middle) + np.random.default_rng(seed).normal(size=(rows, len(middle)))


def memory():
    rows = np.concatenate([cloud([0, 0, 0, 0], 200), cloud([9, 0, 0, 0], 200, 1)])
    classes = np.repeat([0, 1], 200)
    held_back = np.concatenate([cloud([0, 0, 0, 0], 200, 2), cloud([9, 0, 0, 0], 200, 3)])
    return Prototypes.fit(rows, classes, held_back, classes, each=4, rng=np.random.default_rng(0))


def share_beyond(known, rows):
    return float((known.distances(rows, np.ones(rows.shape, bool))[0] > known.limits[0]).mean())


def test_what_was_learnt_is_known_and_what_was_not_is_unknown():
    known = memory()
    assert share_beyond(known, cloud([0, 0, 0, 0], 500, 4)) < 0.03
    assert share_beyond(known, cloud([9, 0, 0, 0], 500, 5)) < 0.03
    assert share_beyond(known, cloud([0, 9, 0, 0], 500, 6)) > 0.9


def test_a_fault_that_goes_further_the_same_way_stays_known():
    known = memory()
    assert share_beyond(known, cloud([27, 0, 0, 0], 500, 7)) < 0.03
    assert share_beyond(known, cloud([-27, 0, 0, 0], 500, 8)) > 0.9


def test_squares_to_normal_name_the_axis():
    _, squares = memory().distances(cloud([9, 0, 0, 0], 50, 9), np.ones((50, 4), bool))
    assert (squares.argmax(axis=1) == 0).all()


def test_an_axis_that_is_not_shown_counts_as_usual():
    known = memory()
    rows = cloud([0, 0, 0, 0], 300, 10)
    rows[:, 3] = 1e6
    shown = np.ones(rows.shape, bool)
    shown[:, 3] = False
    distance, squares = known.distances(rows, shown)
    assert (distance > known.limits[0]).mean() < 0.05
    assert (squares[:, 3] == 0).all()


def test_a_row_is_judged_alone():
    known, rows = memory(), cloud([4, 4, 0, 0], 200, 11)
    shown = np.ones(rows.shape, bool)
    whole = known.distances(rows, shown)
    part = known.distances(rows[70:75], shown[70:75])
    assert part[0].tobytes() == whole[0][70:75].tobytes()
    assert part[1].tobytes() == whole[1][70:75].tobytes()


@pytest.mark.parametrize("name", ["points", "classes", "spread", "limits"])
def test_damaged_arrays_are_refused(name):
    weights = memory().weights()
    Prototypes.from_weights(weights, 4, 2)
    broken = weights[f"prototypes.{name}"] * 0 - 1
    if name != "points":
        with pytest.raises(InvalidArtifact):
            Prototypes.from_weights(weights | {f"prototypes.{name}": broken}, 4, 2)
    with pytest.raises(InvalidArtifact):
        Prototypes.from_weights({key: value for key, value in weights.items() if not key.endswith(name)}, 4, 2)
