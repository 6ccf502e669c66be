"""Streamed inner products and combinations of snapshots against plain float64 matrix products."""

import numpy as np
import pytest
import torch

from baselines.gram import combine, gram
from harness.method import Snapshot
from harness.snapshots import MemoryTrajectory
from harness.storage.trajectory import StoredTrajectory, write_snapshot

T, N = 7, 1003


@pytest.fixture
def W_TN():
    """Weights around 1 that move a thousandth: what raw float32 sums lose."""
    rng = np.random.default_rng(0)
    return torch.tensor(1 + 1e-3 * rng.standard_normal((T, N)).cumsum(0), dtype=torch.float32)


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("max_bytes", [1, 4 * T * 100, 1 << 30])
def test_products_and_combinations_equal_the_whole_matrix(W_TN, shift, max_bytes):
    X_TN = W_TN.double().numpy()
    X_TN = X_TN - X_TN[0] if shift else X_TN
    G_TT = gram(MemoryTrajectory(W_TN), shift, max_bytes).numpy()
    np.testing.assert_allclose(G_TT, X_TN @ X_TN.T, rtol=1e-12, atol=1e-14 * np.abs(X_TN @ X_TN.T).max())
    assert (G_TT == G_TT.T).all()
    c_KT = torch.tensor(np.random.default_rng(1).standard_normal((3, T)))
    np.testing.assert_allclose(
        combine(MemoryTrajectory(W_TN), c_KT, shift, max_bytes).numpy(), c_KT.numpy() @ X_TN, rtol=2e-6, atol=1e-8
    )


def test_memory_and_files_give_the_same_bits(W_TN, tmp_path):
    snapshots = [Snapshot(t, t, row_N, {}) for t, row_N in enumerate(W_TN)]
    for snapshot in snapshots:
        write_snapshot(tmp_path, snapshot)
    c_KT = torch.rand(2, T, dtype=torch.float64)
    memory, stored = MemoryTrajectory.of(snapshots), StoredTrajectory(tmp_path, torch.device("cpu"))
    assert torch.equal(gram(memory, True, 4000), gram(stored, True, 4000))
    assert torch.equal(combine(memory, c_KT, True, 4000), combine(stored, c_KT, True, 4000))


def test_no_weights_are_refused():
    with pytest.raises(ValueError, match="at least 1 weight"):
        gram(MemoryTrajectory(torch.empty(3, 0)), True)
