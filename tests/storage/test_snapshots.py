"""Flattened models, and snapshots in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from baselines.cmd import CMD
from baselines.dmd import DMD
from baselines.subspace import Subspace
from harness.method import Snapshot
from harness.snapshots import MemoryTrajectory, as_trajectory, layout_of, tensors_of, trainable, weights_of


class Odd(nn.Module):
    """A channels_last kernel, a 0-d parameter, a tied and a frozen one."""

    def __init__(self):
        super().__init__()
        kernel = torch.arange(24.0).view(3, 2, 2, 2).contiguous(memory_format=torch.channels_last)
        self.kernel = nn.Parameter(kernel)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.tied = self.kernel
        self.frozen = nn.Parameter(torch.ones(5), requires_grad=False)


def test_weights_stand_once_in_the_layout_s_order_whatever_their_memory_format():
    model = Odd()
    assert list(trainable(model)) == list(layout_of(model).names) == ["kernel", "scale"]
    assert weights_of(model).tolist() == [*range(24), 2]


def test_tensors_are_views_into_the_vector():
    model = Odd()
    theta_N = weights_of(model)
    kernel, scale = tensors_of(theta_N, layout_of(model))
    assert torch.equal(kernel, model.kernel)
    assert scale.shape == ()
    kernel[2, 1, 1, 1] = -1
    assert theta_N[23] == -1


def test_a_model_without_weights_is_refused():
    with pytest.raises(ValueError, match="model must have at least 1 trainable weight, got 0"):
        weights_of(nn.ReLU())


def test_rows_are_snapshots_of_the_epochs_given():
    rows_TN = np.arange(12, dtype=np.float64).reshape(4, 3)
    trajectory = MemoryTrajectory(rows_TN, ts=(3, 5, 6, 9))
    assert trajectory.ts == (3, 5, 6, 9)
    assert trajectory[-1].t == 9
    assert trajectory[1].theta_N.dtype == torch.float32
    window = trajectory.window(4, 6)
    assert window.ts == (5, 6)
    ((start, stop, W_TB),) = window.blocks(1 << 20)
    assert (start, stop) == (0, 3)
    assert W_TB.dtype == torch.float64
    assert W_TB.tolist() == rows_TN[1:3].tolist()
    assert len(trajectory.window(10, 20)) == 0


def test_snapshots_keep_their_steps_and_buffers():
    given = [Snapshot(t, 10 * t, torch.randn(4), {"mean": torch.full((2,), float(t))}) for t in range(4)]
    window = MemoryTrajectory.of(given).window(2, 3)
    assert [(s.t, s.step) for s in (window[0], window[1])] == [(2, 20), (3, 30)]
    assert window[1].buffers["mean"].tolist() == [3, 3]
    assert torch.equal(window[0].theta_N, given[2].theta_N)
    given[2].theta_N.zero_()
    assert window[0].theta_N.all()
    assert len(MemoryTrajectory.of([])) == 0


@pytest.mark.parametrize(
    ("snapshots", "message"),
    [
        (np.zeros(4, "f"), r"snapshots must have shape \(T, N\), got \(4,\)"),
        (np.zeros((4, 3), int), "snapshots must be floating-point numbers, got torch.int64"),
    ],
)
def test_what_is_no_array_of_snapshots_is_refused(snapshots, message):
    with pytest.raises(ValueError, match=message):
        as_trajectory(snapshots)


def test_a_trajectory_is_taken_as_it_is():
    trajectory = MemoryTrajectory(torch.zeros(2, 2))
    assert as_trajectory(trajectory) is trajectory


@pytest.mark.parametrize("fit", ["CMD", "DMD", "Subspace"])
def test_a_list_of_vectors_is_as_good_as_an_array(fit):
    """In every class that is fitted to snapshots."""
    draw = torch.Generator().manual_seed(0)
    W_TN = torch.randn(5, 12, generator=draw).cumsum(0)
    made = {
        "CMD": lambda snapshots: CMD.fit(snapshots, modes=2, samples=6).reconstruct(4),
        "DMD": lambda snapshots: DMD.fit(snapshots, rank=2).forecast(2),
        "Subspace": lambda snapshots: Subspace.fit(snapshots, dimensions=2).P_DN,
    }[fit]
    for listed in (list(W_TN), tuple(W_TN), list(W_TN.numpy())):
        assert torch.equal(made(listed), made(W_TN))
