"""The subspace of snapshots against singular vectors in float64, where singular values are close and far apart."""

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

from baselines.subspace import Coordinates, Subspace, orthonormalise
from harness.snapshots import MemoryTrajectory

T, N, D = 13, 3001, 8


def snapshots(smallest, offset=1.0, seed=0):
    """Float32 weights around `offset` whose motions have singular values from 1 down to `smallest`."""
    rng = np.random.default_rng(seed)
    U_TT, _ = np.linalg.qr(rng.standard_normal((T, T)))
    V_NT, _ = np.linalg.qr(rng.standard_normal((N, T)))
    motion_TN = U_TT * np.geomspace(1, smallest, T) @ V_NT.T
    return torch.tensor(offset * rng.standard_normal(N) + motion_TN, dtype=torch.float32)


def principal(W_TN, dimensions):
    """Right singular vectors (D, N) and singular values of the centred snapshots, in float64."""
    X_TN = W_TN.double().numpy()
    _, s_T, V_TN = np.linalg.svd(X_TN - X_TN.mean(0), full_matrices=False)
    return V_TN[:dimensions], s_T


def largest_angle(P_DN, Q_DN):
    return subspace_angles(P_DN.double().numpy().T, Q_DN.T).max()


def deviation(P_DN):
    P_DN = P_DN.double().numpy()
    return np.abs(P_DN @ P_DN.T - np.eye(len(P_DN))).max()


@pytest.mark.parametrize("smallest", [0.3, 1e-2, 1e-4])
def test_principal_components_are_those_of_the_centred_snapshots(smallest):
    W_TN = snapshots(smallest, offset=0.01)
    V_DN, s_T = principal(W_TN, D)
    subspace = Subspace.fit(W_TN, D)
    assert largest_angle(subspace.P_DN, V_DN) < 1e-6
    np.testing.assert_allclose(subspace.singular_values, s_T[: T - 1], rtol=1e-6)


@pytest.mark.parametrize("smallest", [0.3, 1e-3, 1e-5, 1e-6])
def test_rows_are_orthonormal_however_far_singular_values_lie_apart(smallest):
    for subspace in (Subspace.fit(snapshots(smallest, offset=0.0), T - 1), Subspace.span(snapshots(smallest))):
        assert deviation(subspace.P_DN) < 1e-6


def test_the_second_correction_is_what_makes_them_so():
    """A basis that is off by a hundredth, as eps (s_1 / s_d)^2 can leave it."""
    draw = torch.Generator().manual_seed(0)
    exact_ND, _ = torch.linalg.qr(torch.randn(N, D, dtype=torch.float64, generator=draw))
    P_DN = (exact_ND + 1e-2 * exact_ND @ torch.randn(D, D, dtype=torch.float64, generator=draw)).T.float()
    assert deviation(P_DN) > 1e-3
    corrected_DN = orthonormalise(P_DN.clone())
    assert deviation(corrected_DN) < 1e-6
    assert largest_angle(corrected_DN, exact_ND.T.numpy()) < 1e-6


def test_the_initial_snapshot_counts_and_two_snapshots_span_their_difference():
    W_2N = snapshots(0.1)[:2]
    subspace = Subspace.fit(W_2N, 1)
    direction_N = (W_2N[1] - W_2N[0]).double()
    torch.testing.assert_close(subspace.P_DN[0].double().abs(), (direction_N / direction_N.norm()).abs())


@pytest.mark.parametrize("max_bytes", [1, 4 * T * 97, 1 << 30])
def test_blocks_do_not_matter(max_bytes):
    W_TN = snapshots(1e-2)[:, :211]
    for made, whole in (
        (Subspace.fit(W_TN, D, max_bytes), Subspace.fit(W_TN, D)),
        (Subspace.span(MemoryTrajectory(W_TN), max_bytes), Subspace.span(W_TN)),
    ):
        assert largest_angle(made.P_DN, whole.P_DN.double().numpy()) < 1e-6
        torch.testing.assert_close(made.singular_values, whole.singular_values, rtol=1e-9, atol=1e-9)


def test_project_and_lift_are_the_orthogonal_projection():
    subspace = Subspace.fit(snapshots(1e-2), D)
    P_DN = subspace.P_DN.double()
    g_N = torch.randn(N, generator=torch.Generator().manual_seed(1))
    expected_N = P_DN.T @ (P_DN @ g_N.double())
    torch.testing.assert_close(subspace.lift(subspace.project(g_N)).double(), expected_N, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(subspace.lift(torch.ones(D, dtype=torch.float64)).double(), P_DN.sum(0))


def test_the_table_shares_out_the_sum_of_squares():
    W_TN = snapshots(0.1)
    table = Subspace.fit(W_TN, D).table()
    _, s_T = principal(W_TN, D)
    shares = (s_T**2 / (s_T**2).sum())[: T - 1]
    np.testing.assert_allclose(table["share"], shares, rtol=1e-9)
    np.testing.assert_allclose(table["cumulative_share"], np.cumsum(shares), rtol=1e-9)
    assert table["used"].sum() == D
    assert list(table["component"]) == list(range(1, T))


def test_span_is_that_of_the_uncentred_snapshots_in_any_order():
    W_TN = snapshots(1e-2)
    Q_NT, _ = np.linalg.qr(W_TN.double().numpy().T)
    turned_TN = W_TN[torch.randperm(T, generator=torch.Generator().manual_seed(2))]
    for rows_TN in (W_TN, turned_TN):
        subspace = Subspace.span(rows_TN)
        assert subspace.dimensions == T
        assert largest_angle(subspace.P_DN, Q_NT.T) < 1e-5


def test_dependent_snapshots_add_no_dimension():
    W_TN = snapshots(0.1)
    doubled_TN = torch.cat([W_TN[:5], 2 * W_TN[:5], W_TN[:5].flip(0)])
    subspace = Subspace.span(doubled_TN)
    assert subspace.dimensions == 5
    Q_N5, _ = np.linalg.qr(W_TN[:5].double().numpy().T)
    assert largest_angle(subspace.P_DN, Q_N5.T) < 1e-6


def test_coordinates_do_not_drift():
    """After thousands of steps the weights are still those of z, to the rounding of one sum."""
    subspace = Subspace.fit(snapshots(0.1), D)
    origin_N = snapshots(0.1)[0]
    coordinates = Coordinates(subspace, origin_N)
    optimizer = torch.optim.SGD([coordinates.z_D], lr=0.1, momentum=0.9)
    draw = torch.Generator().manual_seed(3)
    for _ in range(2000):
        coordinates.take_gradient(torch.randn(N, generator=draw))
        optimizer.step()
    moved_N = coordinates.theta_N().double().numpy() - origin_N.double().numpy()
    P_DN = subspace.P_DN.double().numpy()
    outside_N = moved_N - P_DN.T @ np.linalg.lstsq(P_DN.T, moved_N, rcond=None)[0]
    assert np.abs(outside_N).max() <= 4 * np.finfo(np.float32).eps * np.abs(coordinates.theta_N().numpy()).max()


BROKEN_TN = snapshots(0.1)
BROKEN_TN[3, 5] = float("nan")
LINE_TN = torch.linspace(0, 1, T)[:, None] * torch.ones(N)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Subspace.fit(snapshots(0.1), 0), "dimensions must be at least 1, got 0"),
        (lambda: Subspace.fit(snapshots(0.1), T), "dimensions must be at most 12, the 13 snapshots less 1, got 13"),
        (lambda: Subspace.fit(LINE_TN, 2), "dimensions must be at most 1, the rank of the 13 snapshots"),
        (lambda: Subspace.fit(torch.ones(T, N), 1), "dimensions must be at most 0, the rank of the 13 snapshots"),
        (lambda: Subspace.fit(BROKEN_TN, 2), "snapshots must be finite"),
        (lambda: Subspace.span(BROKEN_TN), "snapshots must be finite"),
        (lambda: Subspace.span(torch.zeros(3, N)), "not 0"),
        (lambda: Subspace.span(torch.zeros(0, N)), "at least 1, got 0"),
        (lambda: Subspace.fit(torch.zeros(N), 1), r"shape \(T, N\)"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
