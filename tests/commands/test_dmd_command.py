"""DMD through the command: bad input before anything trains, and forecasts that leave the numbers float32 has."""

import pandas as pd
import pytest
from command import LATEST, cell_folder, here

from harness import load_frame

SMALL = ("model=test_resnet", "dataset=digits", "tracker=none")
# Rates that grow for 60 epochs, of which the warm-up sees the first three: steps grow by more than half every time.
ACCELERATING = (
    *("optimizer=sgd_momentum_schedule", "optimizer.sgd_momentum_schedule.schedule.warmup_epochs=60"),
    *(
        "epochs=80",
        "batches_per_epoch=1",
        "batch_size=128",
        "dataset.digits.val_size=50",
        "dataset.digits.test_size=50",
    ),
    *("evaluate.every=10", "evaluate.recalibrate_images=64"),
)


@pytest.mark.parametrize(
    ("method", "given", "words"),
    [
        ("dmd", "rank=0", ["rank", "at least 1", "got 0"]),
        ("dmd", "rank=svd", ["rank", "energy or gavish_donoho", "'svd'"]),
        ("dmd", "rank=5", ["rank", "at most 3", "5 snapshots", "got 5"]),
        ("dmd", "energy=0", ["energy", "above 0 and at most 1", "got 0"]),
        ("dmd", "energy=1.5", ["energy", "above 0 and at most 1", "got 1.5"]),
        ("dmd", "offset=mean", ["offset", "constant, first, none", "'mean'"]),
        ("dmd", "warmup=1", ["warmup", "at least 2", "got 1"]),
        ("dmd", "warmup=8", ["warmup", "below epochs = 8", "got 8"]),
        ("cmd_dmd", "warmup=8", ["warmup", "below epochs = 8", "got 8"]),
        ("cmd_dmd", "modes=0", ["modes", "at least 1", "got 0"]),
        ("dmd_jumps", "warmup=7", ["warmup", "below epochs - 1 = 7", "got 7"]),
        ("dmd_jumps", "window=0", ["window", "at least 2", "got 0"]),
        ("dmd_jumps", "ahead=0", ["ahead", "at least 1", "got 0"]),
        ("dmd_reconstruction", "rank=7", ["rank", "at most 6", "8 snapshots", "got 7"]),
    ],
)
def test_bad_input_is_one_line(tmp_path, method, given, words):
    warmup = () if method == "dmd_reconstruction" or given.startswith("warmup") else (f"method.{method}.warmup=4",)
    overrides = (*SMALL, "epochs=8", f"method=[base,{method}]", *warmup, f"method.{method}.{given}")
    done = here("run", *overrides, results=tmp_path / "results", code=2)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: method.{method}.")
    for word in words:
        assert word in line, line
    assert not (tmp_path / "results").exists()


def test_a_forecast_that_is_not_finite_ends_its_cell_with_the_epoch_and_clipped_it_does_not(tmp_path):
    results = tmp_path / "results"
    values = (*SMALL, *ACCELERATING, "method=[base,dmd]", "method.dmd.warmup=2", "method.dmd.rank=1")
    printed = here("run", *values, "method.dmd.clip=false", results=results).stdout
    frame = load_frame(results).set_index("method")
    assert frame["status"].to_dict() == {
        **dict.fromkeys(("base", "base_recalibrated", "persistence"), "done"),
        "dmd": "diverged",
    }
    folder = cell_folder(results, LATEST, "dmd")
    last = pd.read_parquet(folder / "history.parquet").iloc[-1]
    assert last["largest_modulus"] > 1.5
    assert 10 < last["epoch"] < 80
    assert f"validation loss not finite at epoch {last['epoch']:.0f}" in printed
    here("run", *values, results=results)
    assert set(load_frame(results)["status"]) == {"done"}
