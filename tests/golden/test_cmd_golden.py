"""CMD against values computed by the authors' published implementation; README.md says how they were made."""

from pathlib import Path

import numpy as np
import pytest
import torch

from baselines.cmd.fit import fit
from baselines.cmd.recursion import OnlineFit
from harness.method import Snapshot
from harness.snapshots import MemoryTrajectory

FINAL, COEFFICIENT = 1e-6, 1e-5


@pytest.fixture(params=["cmd_small", "cmd_ten_modes"])
def golden(request):
    with np.load(Path(__file__).parent / f"{request.param}.npz") as file:
        return {name: file[name] for name in file.files}


def trajectory(rows_TN):
    return MemoryTrajectory.of(
        [Snapshot(t, t, torch.from_numpy(row_N), {}) for t, row_N in enumerate(rows_TN, start=1)]
    )


def fitted(golden, rows_TN, max_bytes=1 << 20):
    return fit(trajectory(rows_TN), int(golden["modes"]), torch.from_numpy(golden["sample_K"]), max_bytes)


def moving(rows_TN):
    return (rows_TN != rows_TN[0]).any(0)


def agree(actual, expected, tolerance):
    np.testing.assert_allclose(actual.numpy().astype(np.float64), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("window", ["posthoc", "warmup"])
def test_posthoc_agrees(golden, window):
    rows_TN = golden["trajectory_TN"] if window == "posthoc" else golden["trajectory_TN"][: golden["warmup"] + 1]
    model = fitted(golden, rows_TN)
    assert model.reference_M.tolist() == golden[f"{window}_reference_M"].tolist()
    moved_N = moving(rows_TN)
    assert (model.mode_N.numpy()[moved_N] == golden[f"{window}_mode_N"][moved_N]).all()
    agree(model.a_N, golden[f"{window}_a_N"], COEFFICIENT)
    agree(model.b_N, golden[f"{window}_b_N"], COEFFICIENT)
    if window == "posthoc":
        agree(model.reconstruct(-1), golden["posthoc_final_N"], FINAL)


def test_constant_weights_are_their_value(golden):
    rows_TN = golden["trajectory_TN"]
    model = fitted(golden, rows_TN)
    constant_N = ~moving(rows_TN)
    assert constant_N.sum() > 10
    assert (model.reconstruct(0).numpy()[constant_N] == rows_TN[0, constant_N]).all()
    assert (model.mode_N.numpy()[constant_N] == 0).all()


def test_online_agrees(golden):
    rows_TN = golden["trajectory_TN"]
    warmup = int(golden["warmup"]) + 1
    online = OnlineFit.start(fitted(golden, rows_TN[:warmup]), torch.device("cpu"))
    for row_N in rows_TN[warmup:]:
        online.update(torch.from_numpy(row_N))
    agree(online.a_N, golden["online_a_N"], COEFFICIENT)
    agree(online.b_N, golden["online_b_N"], COEFFICIENT)
    agree(online.model_N(), golden["online_final_N"], FINAL)
