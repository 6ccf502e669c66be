"""The printed table of reconstruction errors, at a method's own dimension."""

import pandas as pd

from harness.report.tables import suite
from harness.report.tables.write import write_errors

NAMES = {"model": "net", "dataset": "digits", "optimizer": "sgd", "method": "mine", "seed": 0}


def shares(*lines):
    return pd.DataFrame(lines, columns=["fit", "dimension", "share"]).assign(**NAMES)


def texts(table):
    """The line's texts below the fits."""
    (printed,) = suite.errors(table)
    return printed.texts.iloc[0].drop(list(NAMES)).to_dict()


def test_fits_are_compared_at_the_dimension_of_the_one_that_has_one_only():
    """Two modes: the fit of two as it is, the components' second line, and of DMD the highest rank up to two."""
    table = shares(
        ("time mean", 0, 1.0),
        ("post-hoc CMD", 2, 0.1234),
        ("principal components", 1, 0.3),
        ("principal components", 2, 0.05),
        ("principal components", 3, 0.01),
        ("DMD", 1, 0.5),
    )
    assert texts(table) == {
        "dimension": "2",
        "time mean": "100.00",
        "post-hoc CMD": "12.34",
        "principal components": "5.00",
        "DMD": "50.00 (of 1)",
    }


def test_without_such_a_fit_it_is_the_largest_that_all_reach():
    table = shares(("a", 1, 0.5), ("a", 2, 0.25), ("b", 1, 0.4), ("b", 2, 0.2), ("b", 3, 0.1))
    assert texts(table) == {"dimension": "2", "a": "25.00", "b": "20.00"}


def test_the_files_go_where_no_method_gives_errors_any_more(tmp_path):
    write_errors(shares(("a", 1, 0.5)), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"errors.md", "errors.tex", "errors.csv"}
    assert len(pd.read_csv(tmp_path / "errors.csv")) == 1
    write_errors(shares(), tmp_path)
    assert list(tmp_path.iterdir()) == []
