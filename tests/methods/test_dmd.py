"""Dynamic mode decomposition against known dynamics, a plain singular value decomposition in float64, and PyDMD."""

import numpy as np
import pytest
import torch

from baselines.dmd import DMD
from baselines.dmd.dynamics import geometric_sums
from baselines.dmd.rank import by_energy, by_threshold, carried
from harness.method import Layout, Snapshot
from harness.snapshots import MemoryTrajectory
from harness.storage.trajectory import StoredTrajectory, write_snapshot

CPU = torch.device("cpu")
N = 400
DECAYING = np.array([0.97, 0.9 * np.exp(0.7j), 0.9 * np.exp(-0.7j), -0.5])
GROWING = np.array([1.05, 0.8, 0.6])
OFFSETS = ("constant", "first", "none")


def modes(count, seed=0):
    """Directions that are not orthogonal, as columns."""
    rng = np.random.default_rng(seed)
    return np.linalg.qr(rng.standard_normal((N, count)))[0] @ (
        np.eye(count) + 0.3 * rng.standard_normal((count, count))
    )


def planted(eigenvalues, T, fixed=0.0, size=1.0):
    """w(t) = fixed + the real part of sum_j mode_j eigenvalue_j^t, t = 0..T-1, conjugate pairs on conjugate modes."""
    real = modes(2 * len(eigenvalues))
    mode_NR = real[:, ::2].astype(complex)
    for j, value in enumerate(eigenvalues):
        if value.imag > 0:
            mode_NR[:, j] += 1j * real[:, 2 * j + 1]
            mode_NR[:, j + 1] = mode_NR[:, j].conj()
    powers_TR = np.power(eigenvalues[None, :], np.arange(T)[:, None])
    return fixed + size * (powers_TR @ mode_NR.T).real


def walk(T=9, seed=0):
    """A random walk that no low rank describes; singular values within a factor of 30."""
    return np.random.default_rng(seed).standard_normal((T, N)).cumsum(0).astype(np.float32)


def sorted_eigenvalues(values):
    values = np.asarray(values)
    return values[np.lexsort((values.imag.round(6), values.real.round(6)))]


def by_svd(W_TN, rank, offset):
    """(eigenvalues, forecast of h) by the singular vectors of the snapshots themselves, nothing shared with `gram`."""
    W_NT = np.asarray(W_TN, dtype=np.float64).T
    first_N = np.zeros(len(W_NT)) if offset == "none" else W_NT[:, 0]
    X_NT = W_NT - first_N[:, None]
    U_NR = np.linalg.svd(X_NT[:, :-1], full_matrices=False)[0][:, :rank]
    Z_RT = U_NR.T @ X_NT
    before = Z_RT[:, :-1]
    if offset == "constant":
        before = np.vstack([before, np.ones(before.shape[1])])
    map_RR = np.linalg.lstsq(before.T, Z_RT[:, 1:].T, rcond=None)[0].T
    A_RR, d_R = map_RR[:, :rank], map_RR[:, rank:].sum(1)

    def forecast(h):
        z_R = Z_RT[:, -1]
        for _ in range(h):
            z_R = A_RR @ z_R + d_R
        return first_N + U_NR @ z_R

    return np.linalg.eigvals(A_RR), forecast


def assert_eigenvalues(dmd, expected, atol=1e-8):
    got, expected = sorted_eigenvalues(dmd.eigenvalues), sorted_eigenvalues(expected)
    np.testing.assert_allclose(got, expected, atol=atol)


def assert_weights(got_N, expected_N, rtol=1e-6):
    assert got_N.dtype == torch.float32
    scale = np.abs(expected_N).max()
    np.testing.assert_allclose(got_N.double().numpy(), expected_N, rtol=0, atol=rtol * scale)


@pytest.mark.parametrize("eigenvalues", [DECAYING, GROWING])
@pytest.mark.parametrize("fixed", [0.0, 3.0])
def test_known_dynamics_are_recovered_about_any_fixed_point(eigenvalues, fixed):
    truth = planted(eigenvalues, 30, fixed)
    dmd = DMD.fit(truth[:12], rank=len(eigenvalues))
    assert_eigenvalues(dmd, eigenvalues)
    for h in (0, 1, 6, 18):
        assert_weights(dmd.forecast(h, clip=False), truth[11 + h])
    for t in (0, 5, 11):
        assert_weights(dmd.reconstruct(t), truth[t])
    assert dmd.dynamics.residual < 1e-7


def test_weights_as_they_are_need_a_mode_more_for_the_fixed_point():
    assert_eigenvalues(DMD.fit(planted(DECAYING, 12), rank=4, offset="none"), DECAYING)
    assert_eigenvalues(DMD.fit(planted(DECAYING, 12, 3.0), rank=5, offset="none"), [*DECAYING, 1])


def test_a_small_motion_of_large_weights_is_not_lost():
    """Motion of 1e-3 about 1 in float32: its rounding is what limits, not the weights' own size."""
    truth = planted(np.array([0.9, 0.5]), 10, fixed=1.0, size=1e-1).astype(np.float32)
    assert_eigenvalues(DMD.fit(truth, rank=2), [0.9, 0.5], atol=1e-4)


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("rank", [1, 3, 7])
def test_agrees_with_a_singular_value_decomposition(offset, rank):
    W_TN = walk()
    eigenvalues, forecast = by_svd(W_TN, rank, offset)
    dmd = DMD.fit(W_TN, rank, offset=offset)
    assert (dmd.dynamics.rank.asked, dmd.dynamics.rank.used) == (rank, rank)
    assert_eigenvalues(dmd, eigenvalues)
    for h in (0, 1, 5):
        assert_weights(dmd.forecast(h, clip=False), forecast(h))


def pydmd_of(X_NT, rank):
    pydmd = pytest.importorskip("pydmd")
    return pydmd.DMD(svd_rank=rank, exact=False, opt=False).fit(X_NT)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rank", [2, 5])
def test_agrees_with_pydmd_on_the_weights_and_on_their_motion(rank):
    W_TN = walk()
    shifted = W_TN.astype(np.float64) - W_TN[0]
    for offset, X_TN in (("none", W_TN.astype(np.float64)), ("first", shifted)):
        theirs = pydmd_of(X_TN.T, rank)
        dmd = DMD.fit(W_TN, rank, offset=offset)
        assert_eigenvalues(dmd, theirs.eigs)
        # its own forecasts start at the first snapshot: here at the last, by its map and its modes
        U_NR = np.linalg.svd(X_TN[:-1].T, full_matrices=False)[0][:, :rank]
        z_R = np.linalg.matrix_power(
            U_NR.T @ theirs.modes @ np.diag(theirs.eigs) @ np.linalg.inv(U_NR.T @ theirs.modes), 4
        )
        expected_N = (U_NR @ z_R @ U_NR.T @ X_TN[-1]).real + (W_TN[0] if offset == "first" else 0)
        assert_weights(dmd.forecast(4, clip=False), expected_N)


@pytest.mark.filterwarnings("ignore")
def test_agrees_with_pydmd_on_snapshots_with_a_constant_row():
    """Exact affine dynamics, where the weight of the row does not matter: its own eigenvalue 1 comes on top."""
    truth = planted(DECAYING, 20, 3.0)
    shifted = truth[:12] - truth[0]
    theirs = pydmd_of(np.vstack([shifted.T, np.ones(12)]), 5)
    dmd = DMD.fit(truth[:12], 4)
    np.testing.assert_allclose(
        sorted_eigenvalues([*dmd.eigenvalues.numpy(), 1]), sorted_eigenvalues(theirs.eigs), atol=1e-8
    )
    theirs.dmd_time["tend"] = 19
    for h in (1, 8):
        assert_weights(dmd.forecast(h, clip=False), theirs.reconstructed_data[:-1, 11 + h].real + truth[0])


@pytest.mark.filterwarnings("ignore")
def test_agrees_with_pydmd_in_the_coordinates_of_any_snapshots():
    """Its snapshots are ours in the directions kept, with a row of ones: the same least squares."""
    W_TN = walk()
    X_NT = (W_TN.astype(np.float64) - W_TN[0]).T
    U_NR = np.linalg.svd(X_NT[:, :-1], full_matrices=False)[0][:, :3]
    theirs = pydmd_of(np.vstack([U_NR.T @ X_NT, np.ones(len(W_TN))]), 4)
    eigenvalues = DMD.fit(W_TN, 3).eigenvalues.numpy()
    np.testing.assert_allclose(sorted_eigenvalues([*eigenvalues, 1]), sorted_eigenvalues(theirs.eigs), atol=1e-8)


def test_subtracting_the_mean_would_give_roots_of_unity_and_subtracting_the_first_does_not():
    W_TN = walk(8)
    centred = W_TN - W_TN.mean(0)
    roots = DMD.fit(centred, 7, offset="none")
    assert roots.dynamics.rank.used == 7
    np.testing.assert_allclose(roots.eigenvalues.numpy() ** 8, 1, atol=1e-4)
    for offset in ("constant", "first"):
        modulus_R = DMD.fit(W_TN, 6, offset=offset).eigenvalues.abs()
        assert float((modulus_R - 1).abs().max()) > 0.05


def test_in_sample_is_the_least_squares_over_all_snapshots():
    """No start of the same dynamics comes closer, and the first snapshot as start is far worse."""
    W_TN = walk()
    dmd = DMD.fit(W_TN, 3)
    A_RR, d_R, z_TR = dmd.dynamics.A_RR, dmd.dynamics.d_R, dmd.dynamics.z_TR

    def error(start_R):
        total = 0.0
        for z_R in z_TR:
            total += float((z_R - start_R).square().sum())
            start_R = A_RR @ start_R + d_R
        return total

    best_R = dmd.dynamics.in_sample()[0]
    least = error(best_R)
    assert least == pytest.approx(float((dmd.dynamics.in_sample() - z_TR).square().sum()), rel=1e-9)
    generator = torch.Generator().manual_seed(0)
    for step_R in 1e-3 * torch.randn(20, 3, generator=generator, dtype=torch.float64) * best_R.abs().max():
        assert error(best_R + step_R) > least
    assert least < error(z_TR[0])


def spectrum(singular):
    """Snapshots whose first S, after the first is subtracted, have these singular values."""
    rng = np.random.default_rng(0)
    U_NS = np.linalg.qr(rng.standard_normal((N, len(singular))))[0]
    V_SS = np.linalg.qr(rng.standard_normal((len(singular), len(singular))))[0]
    X_NS = U_NS * singular @ V_SS
    return np.vstack([np.zeros(N), X_NS.T, rng.standard_normal(N)])


@pytest.mark.parametrize(("smallest", "used"), [(2e-4, 3), (1e-4, 2), (1e-7, 2)])
def test_the_rank_is_cut_where_the_gram_matrix_no_longer_carries_it(smallest, used):
    """eps (s_1/s_r)^2 <= 1e-8 holds up to a ratio of 6711."""
    dmd = DMD.fit(spectrum([1.0, 0.1, smallest]), 3)
    assert (dmd.dynamics.rank.asked, dmd.dynamics.rank.used) == (3, used)
    assert dmd.dynamics.scalars()["rank_asked"] == 3
    assert dmd.dynamics.scalars()["rank"] == used == len(dmd.eigenvalues)
    assert dmd.dynamics.tables()["fit"].loc[0, "cut"] == (used < 3)
    eps = np.finfo(np.float64).eps
    assert carried(torch.tensor([1.0, 1e8 * eps * 1.01, 1e8 * eps * 0.99], dtype=torch.float64)) == 2


@pytest.mark.parametrize(("energy", "rank"), [(0.5, 1), (0.899, 1), (0.901, 2), (0.995, 3), (0.9999, 4)])
def test_energy_is_a_share_of_the_squared_motion(energy, rank):
    squares = torch.tensor([90.0, 9.0, 0.9, 0.1], dtype=torch.float64)
    assert by_energy(squares, energy) == rank
    rows = spectrum(squares.sqrt().numpy())
    assert DMD.fit(rows, "energy", energy).dynamics.rank.asked == rank
    # of the weights as they are too it is that of the motion, though their mean carries far more
    far = DMD.fit(rows + 100, "energy", energy, offset="none").dynamics.rank
    assert far.asked == rank


def test_all_energy_asks_for_all_and_none_for_none():
    assert by_energy(torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64), 1.0) == 3
    assert by_energy(torch.zeros(3, dtype=torch.float64), 1.0) == 0


def test_gavish_and_donoho_s_threshold():
    """beta = 5/100: 0.56 b^3 - 0.95 b^2 + 1.82 b + 1.43 = 1.518695, times the median 1.6 is 2.43."""
    sigma = torch.tensor([10.0, 2.5, 1.6, 1.0, 0.5], dtype=torch.float64)
    assert by_threshold(sigma**2, 100) == 2
    assert by_threshold(torch.tensor([10.0, 2.4, 1.6, 1.0, 0.5], dtype=torch.float64) ** 2, 100) == 1
    # with beta = 1 all within a factor of 2.86 are noise, of which one is kept
    assert by_threshold(torch.ones(5, dtype=torch.float64), 5) == 1


@pytest.mark.filterwarnings("ignore")
def test_the_threshold_is_pydmd_s():
    W_TN = walk() + 40 * np.outer(np.linspace(0, 1, 9) ** 2, modes(1)[:, 0]).astype(np.float32) * N**0.5
    theirs = pydmd_of((W_TN.astype(np.float64) - W_TN[0]).T, 0)
    dmd = DMD.fit(W_TN, "gavish_donoho", offset="first")
    assert 1 <= dmd.dynamics.rank.asked == len(theirs.eigs) < 7
    assert_eigenvalues(dmd, theirs.eigs)


def test_growth_is_clipped_to_the_circle_and_only_when_asked():
    """One growing mode about a fixed point, one decaying: clipped, the first stays at its distance."""
    truth = planted(np.array([1.3, 0.5]), 16, fixed=2.0)
    dmd = DMD.fit(truth[:8], 2)
    assert_weights(dmd.forecast(8, clip=False), truth[15])
    mode_NR = modes(4)[:, ::2]
    assert_weights(dmd.forecast(8), 2.0 + mode_NR[:, 0] * 1.3**7 + mode_NR[:, 1] * 0.5**15)
    assert float(dmd.amplitudes[0]) == pytest.approx(1.3**7 * np.linalg.norm(mode_NR[:, 0]), rel=1e-6)
    assert float(dmd.forecast(5000, clip=False).isfinite().sum()) < N
    assert bool(dmd.forecast(5000).isfinite().all())


def test_a_growing_turn_is_clipped_to_a_turn():
    turn = 1.1 * np.exp(0.4j)
    truth = planted(np.array([turn, turn.conj()]), 10, fixed=1.0)
    dmd = DMD.fit(truth, 2)
    real = modes(4)
    mode_N = real[:, 0] + 1j * real[:, 1]
    expected_N = 1 + 2 * (mode_N * turn**9 * np.exp(0.4j * 6)).real
    assert_weights(dmd.forecast(6), expected_N)


def test_geometric_sums_by_hand():
    values = torch.tensor([0.5, 1.0, 2.0, -1.0], dtype=torch.complex128)
    none = torch.ones(4, dtype=torch.float64)
    assert geometric_sums(values, 3, none).real.tolist() == [1.75, 3.0, 7.0, 1.0]
    clips = torch.tensor([1.0, 1.0, 0.5, 1.0], dtype=torch.float64)
    assert geometric_sums(values, 3, clips).real.tolist() == [1.75, 3.0, 0.0, 1.0]
    assert geometric_sums(values, 0, clips).real.tolist() == [0, 0, 0, 0]


def test_a_steady_motion_goes_on():
    """Its eigenvalue is 1 up to rounding, twice with the constant row: clipping must not stop it by luck."""
    step_N = modes(1)[:, 0]
    for seed in range(5):
        start_N = np.random.default_rng(seed).standard_normal(N)
        dmd = DMD.fit(start_N + np.arange(8)[:, None] * step_N, 1)
        assert_weights(dmd.forecast(20), start_N + 27 * step_N)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("T", [8, 12, 20])
def test_an_accelerated_motion_goes_on(T, clip):
    """t and t^2: the eigenvalue 1 three times with the constant row, which rounding splits about the unit circle."""
    start_N, first_N, second_N = np.random.default_rng(0).standard_normal((3, N))
    t = np.arange(T + 10)[:, None]
    truth = start_N + t * first_N + 0.1 * t**2 * second_N
    assert_weights(DMD.fit(truth[:T], 2).forecast(10, clip), truth[T + 9])


@pytest.mark.parametrize("degree", [3, 4, 5])
def test_a_polynomial_motion_is_not_clipped_by_rounding(degree):
    """The eigenvalue 1 so many times over: rounding moves some of them outside the circle by up to a fiftieth."""
    t = np.arange(24)[:, None] / 10
    terms = np.random.default_rng(0).standard_normal((degree + 1, N))
    truth = sum(t**k * terms[k] for k in range(degree + 1))
    dmd = DMD.fit(truth[:14], degree)
    assert_weights(dmd.forecast(9), truth[22], rtol=1e-4)
    assert torch.equal(dmd.forecast(9), dmd.forecast(9, clip=False))


def test_a_growing_mode_beside_a_polynomial_motion_is_clipped_alone():
    """The growing mode stays at its distance from the moving rest, which goes on."""
    t = np.arange(20)[:, None]
    start_N, first_N, growing_N = np.random.default_rng(0).standard_normal((3, N))
    rest = start_N + 0.1 * t * first_N
    dmd = DMD.fit(rest[:10] + 1.4 ** t[:10] * growing_N, 2)
    assert_weights(dmd.forecast(6), rest[15] + 1.4**9 * growing_N, rtol=1e-4)


def test_dynamics_with_too_few_eigenvectors():
    """Three steps to rest, x -> y -> z -> 0: nilpotent, with one eigenvector for three dimensions."""
    corners = np.random.default_rng(0).standard_normal((3, N))
    truth = np.stack([*corners, np.zeros(N), np.zeros(N)])
    dmd = DMD.fit(truth, 3, offset="none")
    for h in (1, 5):
        assert float(dmd.forecast(h).abs().max()) < 1e-4
    assert bool(dmd.amplitudes.isfinite().all())


def test_weights_that_never_moved_stay():
    still = np.tile(np.random.default_rng(0).standard_normal(N).astype(np.float32), (6, 1))
    for rank in ("energy", "gavish_donoho", 2):
        for offset in ("constant", "first"):
            dmd = DMD.fit(still, rank, offset=offset)
            assert dmd.dynamics.rank.used == 0
            for weights in (dmd.forecast(9), dmd.reconstruct(3)):
                assert torch.equal(weights, torch.from_numpy(still[0]))
            assert dmd.dynamics.tables()["eigenvalues"].empty
            assert dmd.dynamics.scalars()["largest_modulus"] == 0


@pytest.mark.parametrize("offset", OFFSETS)
def test_blocks_of_any_size_give_the_same(offset):
    W_TN = walk()
    whole = DMD.fit(W_TN, 4, offset=offset, max_bytes=1 << 30)
    for width in (1, 7, 100):
        parts = DMD.fit(W_TN, 4, offset=offset, max_bytes=4 * len(W_TN) * width)
        assert_eigenvalues(parts, whole.eigenvalues)
        torch.testing.assert_close(parts.forecast(3), whole.forecast(3), rtol=1e-6, atol=1e-6)


def test_all_ways_to_give_snapshots_agree_to_the_last_bit(tmp_path):
    W_TN = walk()
    snapshots = [Snapshot(t, t, torch.from_numpy(row_N), {}) for t, row_N in enumerate(W_TN)]
    for snapshot in snapshots:
        write_snapshot(tmp_path, snapshot)
    given = [W_TN, torch.from_numpy(W_TN), MemoryTrajectory.of(snapshots), StoredTrajectory(tmp_path, CPU)]
    fits = [DMD.fit(one, 4, max_bytes=4 * 9 * 64) for one in given]
    for other in fits[1:]:
        assert torch.equal(other.eigenvalues, fits[0].eigenvalues)
        assert torch.equal(other.forecast(5), fits[0].forecast(5))
        assert torch.equal(other.reconstruct(2), fits[0].reconstruct(2))


def test_nothing_of_the_size_of_the_weights_is_kept():
    dmd = DMD.fit(walk(), 4)
    held = [value for value in vars(dmd.dynamics).values() if isinstance(value, torch.Tensor)]
    assert len(held) > 3
    assert max(tensor.numel() for tensor in held) <= 9 * 9 < N


@pytest.mark.parametrize(
    ("snapshots", "options", "message"),
    [
        (walk(2), {}, "snapshots must be at least 3, got 2"),
        (np.zeros((4, 0), "f"), {}, "snapshots must have at least 1 weight, got 0"),
        (np.zeros(4, "f"), {}, r"snapshots must have shape \(T, N\), got \(4,\)"),
        (walk(), {"rank": 0}, "rank must be a whole number of at least 1, energy or gavish_donoho, got 0"),
        (walk(), {"rank": True}, "rank must be a whole number of at least 1, energy or gavish_donoho, got True"),
        (walk(), {"rank": "svd"}, "rank must be a whole number of at least 1, energy or gavish_donoho, got 'svd'"),
        (walk(), {"rank": 8}, "rank must be at most 7, what 9 snapshots span, got 8"),
        (walk(), {"rank": 9, "offset": "none"}, "rank must be at most 8, what 9 snapshots span, got 9"),
        (walk(), {"energy": 0.0}, "energy must be above 0 and at most 1, got 0.0"),
        (walk(), {"energy": 1.01}, "energy must be above 0 and at most 1, got 1.01"),
        (walk(), {"energy": float("nan")}, "energy must be above 0 and at most 1, got nan"),
        (walk(), {"offset": "mean"}, "offset must be one of constant, first, none, got 'mean'"),
    ],
)
def test_bad_input(snapshots, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        DMD.fit(snapshots, **options)


def test_bad_questions():
    dmd = DMD.fit(MemoryTrajectory(walk(4), (1, 2, 3, 4)), 1)
    with pytest.raises(ValueError, match="h must be at least 0, got -1"):
        dmd.forecast(-1)
    with pytest.raises(ValueError, match=r"t must be one of the 4 snapshots 1\.\.4, got 0"):
        dmd.reconstruct(0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_snapshot_that_is_not_finite_is_named(value):
    W_TN = walk()
    W_TN[6, 150] = value
    with pytest.raises(ValueError, match=r"^snapshot t=6 must be finite, got nan or inf in weight 150$"):
        DMD.fit(W_TN)
    with pytest.raises(ValueError, match=r"^snapshot t=6 must be finite, got nan or inf in second$"):
        DMD.fit(W_TN, layout=Layout(("first", "second"), ((100,), (300,))))
