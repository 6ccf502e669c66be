"""The list of columns: what frames had before stays, and whatever is measured can be shown."""

from harness.report.tables.columns import COLUMNS as SHOWN
from harness.results.columns import ADDED, COLUMNS, COMMUNICATION, COSTS, FRAME_COLUMNS, METRICS, from_source

STORED = """
    model dataset optimizer seed method batchnorm status val_accuracy val_loss val_ece val_brier test_accuracy
    test_loss test_ece test_brier train_seconds method_seconds eval_seconds peak_memory_bytes epochs prefix_epochs
    gradients_full gradients_subspace forward_passes trainable_fraction moving busy age n_eff federation upload_bytes
    download_bytes client_accuracy client_accuracy_std client_accuracy_worst control schedule rate_end twin parameters
    device versions base_key cell_key run_id
"""
"""The columns of frames, in their order; those of ADDED are lacking where they were stored before."""


def test_frames_that_were_stored_still_have_the_columns():
    assert list(FRAME_COLUMNS) == STORED.split()
    metrics = {f"{split}_{metric}" for split in ("val", "test") for metric in ("ece", "brier")}
    clients = {"federation", *COMMUNICATION}
    assert set(ADDED) == {
        "moving",
        "busy",
        "control",
        "schedule",
        "rate_end",
        "twin",
        "age",
        "n_eff",
        *metrics,
        *clients,
    }
    assert FRAME_COLUMNS["seed"] == "int64"
    assert {FRAME_COLUMNS[name] for name in ("model", "status", "parameters", "run_id")} == {"str"}
    assert {FRAME_COLUMNS[name] for name in (*METRICS, *from_source("cost"))} == {"float64"}


def test_what_the_report_computes_or_histories_hold_is_not_in_the_frame():
    assert set(COLUMNS) - set(FRAME_COLUMNS) == {"subspace_epochs", "train_loss"}


def test_every_metric_and_cost_can_be_chosen_for_a_table():
    assert {*METRICS, *COSTS} <= set(SHOWN)
    for name in COSTS:
        assert (SHOWN[name].heading, SHOWN[name].meaning) == (COLUMNS[name].heading, COLUMNS[name].meaning)
    assert len({column.heading for column in SHOWN.values()}) == len(SHOWN)


def test_units_and_directions_of_metrics():
    assert {name: (column.label, column.higher_is_better) for name, column in METRICS.items()} == {
        "test_accuracy": ("test accuracy (%)", True),
        "test_loss": ("test loss", False),
        "val_accuracy": ("validation accuracy (%)", True),
        "val_loss": ("validation loss", False),
        "test_ece": ("test calibration error (points)", False),
        "test_brier": ("test Brier score", False),
        "val_ece": ("validation calibration error (points)", False),
        "val_brier": ("validation Brier score", False),
    }
