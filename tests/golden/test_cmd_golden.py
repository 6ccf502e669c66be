"""CMD, in plain lines and as it runs, against values from the authors' published implementation (README.md)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from baselines.cmd import reference
from baselines.cmd.online_recursion import OnlineFit
from baselines.cmd.posthoc import decompose
from harness.snapshots import MemoryTrajectory

FINAL, COEFFICIENT = 1e-6, 1e-5


@pytest.fixture(params=["cmd_small", "cmd_ten_modes"])
def golden(request):
    with np.load(Path(__file__).parent / f"{request.param}.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(params=["posthoc", "warmup"])
def window(request, golden):
    """Snapshots, and the values that post-hoc CMD of them must have."""
    rows_TN = golden["trajectory_TN"]
    expected = {name: golden[f"{request.param}_{name}"] for name in ("reference_M", "mode_N", "a_N", "b_N")}
    return (rows_TN if request.param == "posthoc" else rows_TN[: golden["warmup"] + 1]), expected


def decomposed(golden, rows_TN):
    return decompose(MemoryTrajectory(rows_TN), int(golden["modes"]), torch.from_numpy(golden["sample_K"]), None)


def moving(rows_TN):
    return (rows_TN != rows_TN[0]).any(0)


def agree(actual, expected, tolerance):
    np.testing.assert_allclose(np.asarray(actual, np.float64), expected, rtol=0, atol=tolerance)


def assert_posthoc(fit, rows_TN, expected):
    assert np.asarray(fit.reference_M).tolist() == expected["reference_M"].tolist()
    moved_N = moving(rows_TN)
    assert (np.asarray(fit.mode_N)[moved_N] == expected["mode_N"][moved_N]).all()
    agree(fit.a_N, expected["a_N"], COEFFICIENT)
    agree(fit.b_N, expected["b_N"], COEFFICIENT)


def test_posthoc_in_plain_lines_agrees(golden, window):
    rows_TN, expected = window
    assert_posthoc(reference.posthoc(rows_TN, int(golden["modes"]), golden["sample_K"]), rows_TN, expected)


def test_posthoc_agrees(golden, window):
    rows_TN, expected = window
    assert_posthoc(decomposed(golden, rows_TN), rows_TN, expected)


def test_the_model_of_the_last_snapshot_agrees(golden):
    rows_TN = golden["trajectory_TN"]
    plain = reference.posthoc(rows_TN, int(golden["modes"]), golden["sample_K"])
    agree(plain.model(rows_TN[-1].astype(np.float64)), golden["posthoc_final_N"], FINAL)
    agree(decomposed(golden, rows_TN).reconstruct(len(rows_TN) - 1), golden["posthoc_final_N"], FINAL)


def test_constant_weights_are_their_value(golden):
    rows_TN = golden["trajectory_TN"]
    cmd = decomposed(golden, rows_TN)
    constant_N = ~moving(rows_TN)
    assert constant_N.sum() > 10
    assert (cmd.reconstruct(0).numpy()[constant_N] == rows_TN[0, constant_N]).all()
    assert (cmd.mode_N.numpy()[constant_N] == 0).all()


def test_online_in_plain_lines_agrees(golden):
    rows_TN, warmup = golden["trajectory_TN"], int(golden["warmup"])
    *_, last = reference.online(rows_TN, int(golden["modes"]), golden["sample_K"], warmup)
    agree(last.a_N, golden["online_a_N"], COEFFICIENT)
    agree(last.b_N, golden["online_b_N"], COEFFICIENT)
    agree(last.model(rows_TN[-1].astype(np.float64)), golden["online_final_N"], FINAL)


def test_online_agrees(golden):
    rows_TN, warmup = golden["trajectory_TN"], int(golden["warmup"]) + 1
    online = OnlineFit.start(decomposed(golden, rows_TN[:warmup]), torch.device("cpu"))
    for row_N in rows_TN[warmup:]:
        online.update(torch.from_numpy(row_N))
    agree(online.a_N, golden["online_a_N"], COEFFICIENT)
    agree(online.b_N, golden["online_b_N"], COEFFICIENT)
    agree(online.model_N(), golden["online_final_N"], FINAL)
