"""CMD's kernel against correlations in float64, over the hard cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.cmd import CMD, reference
from baselines.cmd.clustering import find_modes
from baselines.cmd.online_recursion import OnlineFit
from baselines.cmd.regression import block_width

CPU = torch.device("cpu")
KINDS = ("moving", "constant", "copy", "opposite", "tiny", "huge", "late", "outlier")


def weight(kind, rng, drivers_TD, columns, ratio):
    """One trajectory of a kind, std/mean about `ratio`."""
    T = len(drivers_TD)
    if kind == "constant":
        return np.full(T, rng.normal())
    if kind in ("copy", "opposite") and columns:
        return (1 if kind == "copy" else -2) * columns[int(rng.integers(len(columns)))]
    motion_T = drivers_TD @ rng.normal(size=drivers_TD.shape[1]) + 0.5 * rng.normal(size=T)
    if kind == "late":
        motion_T[: T // 2] = 0
    if kind == "outlier":
        motion_T = 1e-2 * motion_T + np.eye(T)[0] * 100
    scale = {"tiny": 1e-15, "huge": 2e18}.get(kind, ratio)
    return scale * motion_T + (0 if kind in ("tiny", "huge") else rng.choice([-1, 1]) * (0.5 + rng.random()))


@st.composite
def snapshots(draw):
    """(T, N) float32, or float32 values that bfloat16 holds."""
    T = draw(st.sampled_from([3, 4, 9, 40]))
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=40))
    ratio = 10.0 ** draw(st.integers(-5, 0))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    drivers_TD = rng.normal(size=(T, 3)).cumsum(0)
    columns = []
    for kind in kinds:
        columns.append(weight(kind, rng, drivers_TD, columns, ratio))
    W_TN = torch.tensor(np.stack(columns, axis=1).astype(np.float32))
    return W_TN.bfloat16() if draw(st.booleans()) else W_TN


def centred(W_TN):
    """Float64, the mean over time taken away; columns that never move exactly 0."""
    X_TN = W_TN.double().numpy()
    X_TN = X_TN - X_TN[0]
    return X_TN - X_TN.mean(0)


def correlations(W_TN, reference_M):
    """(M, N) in float64; 0 where either side never moves."""
    W_TN = W_TN.double().numpy()
    return reference.correlation(W_TN, W_TN[:, reference_M]).T


def assert_exact(cmd, W_TN):
    """Modes, rho, a and the model are the definition's, where no two references tie."""
    reference_M = cmd.reference_M.numpy()
    rho_MN = correlations(W_TN, reference_M)
    modes, rho_N = cmd.mode_N.numpy().astype(int), cmd.rho_N.numpy().astype(np.float64)
    strength_MN = np.abs(rho_MN)
    everywhere = np.arange(W_TN.shape[1])
    assert (modes < len(reference_M)).all()
    # its own mode's reference is as good as the best, and the sign is kept
    assert (strength_MN[modes, everywhere] >= strength_MN.max(0) - 1e-5).all()
    np.testing.assert_allclose(rho_N, rho_MN[modes, everywhere], atol=1e-5)
    still_N = (W_TN[0] == W_TN).all(0).numpy()
    assert (modes[still_N] == 0).all()
    assert (rho_N[still_N] == 0).all()
    assert (cmd.a_N.numpy()[still_N] == 0).all()
    moving_references = [m for m, r in enumerate(reference_M) if not still_N[r]]
    assert modes[reference_M[moving_references]].tolist() == moving_references
    assert int(cmd.size_M.sum()) == (~still_N).sum()
    X_TN, W64_TN = centred(W_TN), W_TN.double().numpy()
    mean_N = W64_TN[0] + (W64_TN - W64_TN[0]).mean(0)
    std_N = np.sqrt((X_TN**2).mean(0))
    for t in range(len(W_TN)):
        x_M = X_TN[t, reference_M]
        spread_M = np.where(std_N[reference_M] > 0, std_N[reference_M], 1)
        # mean + rho std z: the centred form of least squares
        expected_N = mean_N + rho_MN[modes, everywhere] * std_N * (x_M / spread_M)[modes]
        tolerance_N = 3e-7 * np.abs(mean_N) + 2e-5 * std_N
        assert (np.abs(cmd.reconstruct(t).double().numpy() - expected_N) <= tolerance_N).all()


@settings(deadline=None, max_examples=150, derandomize=True)
@given(W_TN=snapshots(), M=st.sampled_from([1, 2, 5, 40]))
def test_any_trajectory_is_fitted_as_defined(W_TN, M):
    """Constant weights and references, copies, T = 3, M = K, more modes than distinct trajectories, bf16."""
    everything = list(range(W_TN.shape[1]))
    cmd = CMD.fit(W_TN, min(M, len(everything)), sample_K=everything)
    assert_exact(cmd, W_TN)
    distinct = len(find_modes(torch.from_numpy(centred(W_TN)), len(everything))[1])
    assert len(cmd.reference_M) <= min(M, distinct)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(W_TN=snapshots(), seed=st.integers(0, 100))
def test_drawn_samples_never_stand_still(W_TN, seed):
    cmd = CMD.fit(W_TN, 3, samples=4, seed=seed)
    assert_exact(cmd, W_TN)
    still_N = (W_TN[0] == W_TN).all(0)
    assert bool(still_N.all()) or not bool(still_N[cmd.reference_M].any())


@pytest.mark.parametrize("ratio", [1e-1, 1e-2, 1e-3, 1e-4])
def test_rho_of_small_motions(ratio):
    """Within 1e-4 of float64 on the same float32 values, over several blocks of a width that does not divide N."""
    rng = np.random.default_rng(0)
    T, N = 60, 3 * block_width(60, CPU) + 17
    drivers_TD = rng.normal(size=(T, 4)).cumsum(0)
    motion_TN = drivers_TD @ rng.normal(size=(4, N)) + rng.normal(size=(T, N))
    motion_TN /= motion_TN.std(0)
    W_TN = torch.tensor((1 + ratio * motion_TN).astype(np.float32))
    cmd = CMD.fit(W_TN, 6, samples=60)
    rho_MN = correlations(W_TN, cmd.reference_M.numpy())
    modes = cmd.mode_N.numpy().astype(int)
    np.testing.assert_allclose(cmd.rho_N.numpy(), rho_MN[modes, np.arange(N)], atol=1e-4, rtol=0)
    ordered_MN = np.sort(np.abs(rho_MN), axis=0)
    clear_N = ordered_MN[-1] - ordered_MN[-2] > 1e-5
    assert clear_N.mean() > 0.99
    assert (modes == np.abs(rho_MN).argmax(0))[clear_N].all()


def test_an_empty_mode_is_looped_over():
    """One of two references is constant: a mode that no weight can join, and that breaks nothing."""
    rng = np.random.default_rng(1)
    W_TN = torch.tensor(rng.normal(size=(6, 30)).cumsum(0).astype(np.float32))
    W_TN[:, 4] = 0.25
    cmd = CMD.fit(W_TN, 2, sample_K=[4, 9])
    moving = int(cmd.mode_N[9])
    assert cmd.reference_M.tolist().index(9) == moving
    others = [i for i in range(30) if i != 4]
    assert cmd.mode_N[others].tolist() == [moving] * 29
    assert cmd.size_M.tolist()[moving] == 29
    assert cmd.reconstruct(2)[4] == 0.25


def test_the_bits_depend_on_neither_threads_nor_budget():
    rng = np.random.default_rng(2)
    N = 2 * block_width(20, CPU) + 3
    W_TN = torch.tensor(rng.normal(size=(20, N)).cumsum(0).astype(np.float32))
    threads = torch.get_num_threads()
    fits = []
    try:
        for count, budget in ((1, 1 << 28), (2, 1 << 28), (2, 1)):
            torch.set_num_threads(count)
            fits.append(CMD.fit(W_TN, 4, sample_K=list(range(0, N, N // 30)), max_bytes=budget))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    for other in fits[1:]:
        for name in ("wbar_N", "a_N", "mode_N", "rho_N"):
            assert torch.equal(getattr(other, name), getattr(fits[0], name)), name


def test_forgetting_is_weighted_least_squares():
    """Snapshots after the warm-up count 0.8 ** k after k later ones; those of the warm-up alike."""
    rng = np.random.default_rng(3)
    W_TN = torch.tensor((rng.normal(size=(18, 2)).cumsum(0) @ rng.normal(size=(2, 12))).astype(np.float32))
    W_TN += 0.1 * torch.tensor(rng.normal(size=W_TN.shape).astype(np.float32))
    cmd = CMD.fit(W_TN[:7], 3, sample_K=list(range(12)))
    online = OnlineFit.start(cmd, CPU, forgetting=0.8)
    for row_N in W_TN[7:]:
        online.update(row_N)
    weight_T = 0.8 ** np.concatenate([np.full(7, 11.0), np.arange(10, -1, -1)])
    for i in range(12):
        x_T = W_TN[:, int(cmd.reference_M[int(cmd.mode_N[i])])].double().numpy()
        # polyfit squares its weights
        slope, intercept = np.polyfit(x_T, W_TN[:, i].double().numpy(), 1, w=np.sqrt(weight_T))
        assert float(online.a_N[i]) == pytest.approx(slope, abs=1e-5)
        assert float(online.model_N()[i]) == pytest.approx(slope * x_T[-1] + intercept, abs=1e-5)
