import math

import pytest

from models.measures.classes import ClassTable


def test_the_confusion_matrix_and_f1_of_a_worked_example():
    # scikit-learn's user guide, classification_report: precision and recall of its three classes by hand
    truth = ["a", "b", "c", "c", "c"]
    said = ["a", "a", "c", "c", "b"]
    table = ClassTable.of(truth, said)
    assert table.names == ("a", "b", "c")
    assert table.counts.tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 2]]
    assert table.accuracy == pytest.approx(0.6)
    assert table.f1 == pytest.approx({"a": 2 / 3, "b": 0.0, "c": 0.8})
    assert table.macro_f1 == pytest.approx((2 / 3 + 0.0 + 0.8) / 3)


def test_unknown_is_an_answer_and_no_class():
    table = ClassTable.of(["a", "a", "b", "b"], ["a", "unknown", "b", "b"])
    assert set(table.f1) == {"a", "b"}
    assert table.f1["a"] == pytest.approx(2 * 1 / (2 + 1))
    assert table.macro_f1 == pytest.approx((2 / 3 + 1) / 2)


def test_lists_of_other_lengths_are_refused_and_none_is_no_figure():
    with pytest.raises(ValueError, match="2 truths but 1 answers"):
        ClassTable.of(["a", "b"], ["a"])
    assert math.isnan(ClassTable.of([], []).accuracy)
    assert math.isnan(ClassTable.of([], []).macro_f1)
