"""A user's own method that gives the report's tables has its figures: through the command, from a folder of its own."""

import pandas as pd
import pytest
from command import OWN, here, traindyn, view_folder

ROW = "test_resnet-digits-sgd_momentum"
GIVEN = ("--config-dir", OWN, "fast=true", "tracker=none", "method=[base,gives_tables,lacks_columns]")
FIGURES = ("trajectories", "errors", "correlation", "layers", "rho")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    results = tmp_path_factory.mktemp("own") / "results"
    traindyn("run", *GIVEN, results=results)
    return results


@pytest.fixture(scope="module")
def said(results):
    """What a report with a landscape says; the folder of its figures is written."""
    return here("report", "figures.landscape=3", "--config-dir", OWN, results=results).stdout


def figures(results):
    return {path.name for path in (view_folder(results) / "figures").iterdir()}


def test_every_table_is_a_figure_with_its_data(results, said):
    row = ROW.replace("-", " ")
    assert f"figures: {row}: gives_tables: {', '.join(FIGURES)} of seed 0\n" in said
    assert f"figures: {row}: 1 eigenvalues of gives_tables\n" in said
    names = {f"{ROW}-gives_tables-{name}" for name in (*FIGURES, "landscape")} | {f"{ROW}-eigenvalues"}
    assert {f"{name}.{ending}" for name in names for ending in ("png", "pdf", "csv")} <= figures(results)
    errors = pd.read_csv(view_folder(results) / "figures" / f"{ROW}-gives_tables-errors.csv")
    assert errors["fit"].tolist() == ["mine", "bound", "bound"]


def test_a_table_that_lacks_a_column_is_one_line_and_no_figure(results, said):
    lines = [line for line in said.splitlines() if "lacks_columns" in line and line.startswith("figures:")]
    assert [line.partition("lacks_columns: ")[2] for line in lines[:-1]] == [
        # all named columns of trajectories are there, but no model stands beside them
        "trajectories not drawn, the table trajectories has no model of the weights beside base",
        "errors not drawn, the table errors has no column share",
        "correlation not drawn, the table sample has no column reference",
        "layers not drawn, the table layers has no column share",
        "rho not drawn, the table rho has no column weights",
    ]
    assert lines[-1].endswith(
        "eigenvalues of lacks_columns seed 0 not drawn, the table eigenvalues has no column imaginary"
    )
    assert not [name for name in figures(results) if "lacks_columns" in name and "landscape" not in name]


def test_the_errors_table_has_the_method_at_its_own_dimension(results, said):
    text = (view_folder(results) / "tables" / "errors.md").read_text()
    (line,) = [line for line in text.splitlines() if "gives_tables" in line]
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        *("test_resnet", "digits", "sgd_momentum", "gives_tables", "0", "2", "50.00", "10.00"),
    ]


def test_the_landscape_is_that_of_its_plane(results, said):
    """The point (1, 0) of the plane is the run's last epoch, (0, 0) its start: training lowers the loss between."""
    landscape = f"landscape: {ROW.replace('-', ' ')} gives_tables:"
    assert f"{landscape} 9 of 9 points to evaluate on 512 validation images\n" in said
    table = pd.read_csv(view_folder(results) / "figures" / f"{ROW}-gives_tables-landscape.csv")
    # a path from 0 to 1 with a margin of 0.3 on both sides
    assert sorted(set(table["u"])) == sorted(set(table["v"])) == [-0.3, 0.5, 1.3]
    assert table["val_loss"].gt(0).all()
    again = here("report", "figures.landscape=3", "--config-dir", OWN, results=results).stdout
    assert f"{landscape} 0 of 9 points to evaluate" in again


def test_without_its_folder_a_landscape_is_refused_in_one_line(results, said, monkeypatch):
    monkeypatch.setattr("sys.path", [path for path in __import__("sys").path if path != str(OWN)])
    printed = here("report", "figures.landscape=3", results=results).stdout
    (line,) = [line for line in printed.splitlines() if line.startswith("landscape:") and " gives_tables:" in line]
    assert "not drawn, method.gives_tables._target_ must" in line
