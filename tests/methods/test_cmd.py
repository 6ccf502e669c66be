"""CMD's fit, recursion and methods in the harness against the algorithms in plain lines (`baselines.cmd.reference`)."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist

from baselines.cmd import reference
from baselines.cmd.clustering import abs_correlation, find_modes, row_distances
from baselines.cmd.modes import ModeReport
from baselines.cmd.online_recursion import OnlineFit
from baselines.cmd.posthoc import decompose
from baselines.cmd.regression import PIECE, label_type
from baselines.cmd_online import CMDOnline
from baselines.cmd_posthoc import CMDPosthoc
from harness.method import Layout, Run, Snapshot
from harness.snapshots import MemoryTrajectory

CPU = torch.device("cpu")
LAYOUT = Layout(("conv", "bias", "head"), ((4, 5), (), (3, 7)))


def random_rows(seed, T, N=LAYOUT.N, constant=4, scale=1e-3, offset=5.0):
    """Float32 walks with common directions, small against their offset; the first and some others never move."""
    rng = np.random.default_rng(seed)
    drivers_TD = rng.normal(size=(T, 4)).cumsum(0)
    motion_TN = drivers_TD @ rng.normal(size=(4, N)) + 0.3 * rng.normal(size=(T, N)).cumsum(0)
    motion_TN[:, rng.choice(N, constant, replace=False)] = 0
    motion_TN[:, :1] = 0
    return (offset * rng.normal(size=N) + scale * motion_TN).astype(np.float32)


def trajectory(rows_TN, first=1):
    return MemoryTrajectory.of(
        [Snapshot(t, t, torch.tensor(row_N), {}) for t, row_N in enumerate(rows_TN, start=first)]
    )


def make_run(snapshots, epochs, layout=LAYOUT, seed=0):
    return Run(layout, snapshots, epochs, 3, CPU, lambda _: torch.Generator().manual_seed(seed))


def moving(rows_TN):
    return np.flatnonzero((rows_TN != rows_TN[0]).any(0))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("T", "modes", "samples"), [(3, 2, 12), (5, 1, 20), (12, 4, 25), (30, 6, 37)])
def test_posthoc_is_the_reference(seed, T, modes, samples):
    rows_TN = random_rows(seed, T)
    sample_K = np.sort(np.random.default_rng(seed).choice(moving(rows_TN), samples, replace=False))
    plain = reference.posthoc(rows_TN, modes, sample_K)
    cmd = decompose(trajectory(rows_TN), modes, torch.from_numpy(sample_K), max_bytes=900)
    assert cmd.reference_M.tolist() == plain.reference_M.tolist()
    assert cmd.mode_N.tolist() == plain.mode_N.tolist()
    rows64_TN = rows_TN.astype(np.float64)
    rho_N = reference.correlation(rows64_TN, rows64_TN[:, plain.reference_M])[np.arange(LAYOUT.N), plain.mode_N]
    np.testing.assert_allclose(cmd.rho_N.numpy(), rho_N, atol=1e-6)
    np.testing.assert_allclose(cmd.a_N.numpy(), plain.a_N, rtol=1e-5, atol=1e-5)
    for t, row_N in enumerate(rows64_TN, start=1):
        np.testing.assert_allclose(cmd.reconstruct(t).numpy(), plain.model(row_N), rtol=2e-7, atol=1e-7)
    own_MN = plain.mode_N[moving(rows_TN)] == np.arange(len(plain.reference_M))[:, None]
    assert cmd.size_M.tolist() == own_MN.sum(1).tolist()
    mean_M = [np.abs(rho_N[moving(rows_TN)][own_N]).mean() for own_N in own_MN]
    np.testing.assert_allclose(cmd.mean_abs_rho_M.numpy(), mean_M, atol=1e-6)


def test_online_is_the_reference_after_every_update():
    """A weight that was constant in the warm-up moves later."""
    rows_TN = random_rows(5, 25, constant=6)
    rows_TN[12:, 0] += np.linspace(0.1, 0.4, 13, dtype=np.float32)
    sample_K = np.arange(1, 42)
    first, *later = reference.online(rows_TN, 4, sample_K, warmup=7)
    online = OnlineFit.start(decompose(trajectory(rows_TN[:8]), 4, torch.from_numpy(sample_K)), CPU)
    assert online.mode_N.tolist() == first.mode_N.tolist()
    for row_N, plain in zip(rows_TN[8:], later, strict=True):
        online.update(torch.tensor(row_N))
        np.testing.assert_allclose(online.a_N.numpy(), plain.a_N, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(online.model_N().numpy(), plain.model(row_N.astype(np.float64)), rtol=0, atol=2e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_reference_s_recursion_is_least_squares_over_all_snapshots(seed):
    rows_TN = random_rows(seed, 25, offset=1.0).astype(np.float64)
    *_, last = reference.online(rows_TN, 4, np.arange(1, 42), warmup=7)
    a_N, b_N = reference.regression(rows_TN, rows_TN[:, last.reference_M][:, last.mode_N])
    np.testing.assert_allclose(last.a_N, a_N, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(last.b_N, b_N, rtol=1e-9, atol=1e-9)


def test_references_belong_to_themselves_and_are_kept_exactly():
    rows_TN = random_rows(1, 12, constant=0)
    model = decompose(trajectory(rows_TN), 5, torch.arange(1, 42))
    at_references = [vector_N[model.reference_M].tolist() for vector_N in (model.mode_N, model.rho_N, model.a_N)]
    M = len(model.reference_M)
    assert at_references == [list(range(M)), [1.0] * M, [1.0] * M]


def test_a_reference_belongs_to_its_own_mode_even_beside_its_copy(monkeypatch):
    """Weight 9 moves exactly -2 times as weight 5: as two references they tie, and so does every other weight."""
    rows_TN = random_rows(1, 12, constant=0, offset=0.0)
    rows_TN[:, 9] = -2 * rows_TN[:, 5]
    monkeypatch.setattr("baselines.cmd.posthoc.find_modes", lambda x_TK, modes: (None, torch.tensor([0, 1])))
    model = decompose(trajectory(rows_TN), 2, torch.tensor([5, 9]))
    assert model.mode_N[[5, 9]].tolist() == [0, 1]
    assert model.size_M.tolist() == [LAYOUT.N - 2, 1]  # weight 0 stands still


def test_the_blocks_do_not_matter():
    rows_TN = random_rows(2, 9)
    whole, small = (decompose(trajectory(rows_TN), 4, torch.arange(42), max_bytes=size) for size in (1 << 20, 1))
    for name, tensor in whole.tensors().items():
        torch.testing.assert_close(small.tensors()[name], tensor, msg=name)


def test_pieces_do_not_matter(monkeypatch):
    rows_TN = random_rows(2, 9)
    whole = decompose(trajectory(rows_TN), 4, torch.arange(42)).reconstruct(3)
    assert len(whole) < PIECE
    monkeypatch.setattr("baselines.cmd.regression.PIECE", 5)
    assert torch.equal(decompose(trajectory(rows_TN), 4, torch.arange(42)).reconstruct(3), whole)


def test_a_tiny_motion_on_a_large_weight_keeps_its_correlation():
    """std/mean of 1e-4, where raw float32 sums lose rho altogether."""
    rows_TN = random_rows(3, 40, constant=0, scale=1e-4, offset=1.0)
    rows_TN += np.float32(1)
    model = decompose(trajectory(rows_TN), 3, torch.arange(1, 42))
    for i in range(1, 42):
        own = int(model.reference_M[int(model.mode_N[i])])
        rho = np.corrcoef(rows_TN[:, i].astype(np.float64), rows_TN[:, own].astype(np.float64))[0, 1]
        assert float(model.rho_N[i]) == pytest.approx(rho, abs=1e-6)


def test_correlation_of_a_constant_is_zero():
    x_TK = torch.tensor([[1.0, 2.0, 7.0], [1.0, 4.0, 5.0], [1.0, 7.0, 2.0]], dtype=torch.float64)
    expected = torch.tensor([[0.0, 0, 0], [0, 1, 1], [0, 1, 1]], dtype=torch.float64)
    torch.testing.assert_close(abs_correlation(x_TK), expected, rtol=0, atol=1e-15)


def test_distances_of_rows():
    corr_KK = abs_correlation(torch.from_numpy(random_rows(4, 10).astype(np.float64)))
    np.testing.assert_allclose(row_distances(corr_KK), pdist(corr_KK.numpy()), atol=1e-7)


def test_duplicates_do_not_fall_apart():
    """Affine copies of two motions are two modes, however many are asked for."""
    rng = np.random.default_rng(0)
    motion_TD = rng.normal(size=(15, 2))
    x_TK = motion_TD[:, np.arange(40) % 2] * rng.normal(size=40) + rng.normal(size=40)
    assert len(find_modes(torch.from_numpy(x_TK), 10)[1]) == 2


def test_labels_take_the_smallest_type_that_holds_them():
    for M, dtype in ((1, torch.uint8), (256, torch.uint8), (257, torch.int16), (32769, torch.int32)):
        assert label_type(M) == dtype
        assert torch.tensor(M - 1).to(dtype).item() == M - 1


def watch(method, rows_TN, upto=None, first=0):
    """Feed w(first..upto) of a base that has w(0..T), as the harness does; the proposals."""
    snapshots = trajectory(rows_TN, first=0)
    epochs = len(rows_TN) - 1
    proposals = []
    for t in range(first, epochs + 1 if upto is None else upto + 1):
        seen = snapshots.window(0, t)
        method.run = dataclasses.replace(method.run, trajectory=seen)
        method.observe(snapshots[t])
        proposals.append(method.propose())
    return proposals


def begun(method, rows_TN):
    method.begin(make_run(trajectory(rows_TN[:0]), len(rows_TN) - 1))
    return method


@pytest.mark.parametrize("include_initial", [False, True])
def test_online_proposes_the_posthoc_model_at_the_end_of_its_warmup(include_initial):
    rows_TN = random_rows(6, 13)
    method = begun(CMDOnline(3, 30, warmup=5, include_initial=include_initial), rows_TN)
    first, last = (0, 5) if include_initial else (1, 6)
    assert method.needs(12) == (first, last)
    proposals = watch(method, rows_TN)
    assert [proposal is None for proposal in proposals] == [t < last for t in range(13)]
    posthoc = CMDPosthoc(3, 30, include_initial)
    posthoc.fit(make_run(trajectory(rows_TN[: last + 1], first=0), last))
    expected_N = posthoc.reconstruct(last).theta_N
    torch.testing.assert_close(proposals[last].theta_N, expected_N, rtol=2e-7, atol=1e-7)
    assert method.scalars().items() <= posthoc.scalars().items()


@pytest.mark.parametrize("cut", range(13))
def test_online_state_continues_with_the_same_bits(cut):
    rows_TN = random_rows(7, 13)
    whole = begun(CMDOnline(3, 30, warmup=5), rows_TN)
    expected = watch(whole, rows_TN)[-1]
    first, second = (begun(CMDOnline(3, 30, warmup=5), rows_TN) for _ in range(2))
    watch(first, rows_TN, upto=cut)
    state = first.state_dict()
    assert (len(state) == 0) == (cut < 6)
    watch(first, rows_TN, first=cut + 1)
    second.load_state_dict(state)
    watch(second, rows_TN, first=cut + 1)
    assert torch.equal(second.propose().theta_N, expected.theta_N)
    assert second.scalars() == whole.scalars()
    assert second.tables()["modes"].equals(whole.tables()["modes"])


def test_propose_changes_nothing():
    rows_TN = random_rows(8, 13)
    expected = watch(begun(CMDOnline(3, 30, warmup=5), rows_TN), rows_TN)[-1]
    method = begun(CMDOnline(3, 30, warmup=5), rows_TN)
    for t in range(13):
        method.run = dataclasses.replace(method.run, trajectory=trajectory(rows_TN[: t + 1], first=0))
        method.observe(Snapshot(t, t, torch.tensor(rows_TN[t]), {}))
        for proposal in (method.propose(), method.propose(), method.propose()) if t % 2 else ():
            _ = proposal and proposal.theta_N.zero_()
    assert torch.equal(method.propose().theta_N, expected.theta_N)


def test_weights_that_all_stand_still_are_their_values():
    rows_TN = np.repeat(random_rows(9, 1), 9, axis=0)
    posthoc = CMDPosthoc(3, 30)
    posthoc.fit(make_run(trajectory(rows_TN, first=0), 8))
    assert torch.equal(posthoc.reconstruct(4).theta_N, torch.tensor(rows_TN[0]))
    # one kernel of 1/8 each
    assert posthoc.scalars() == {"modes_found": 0.0, "kernel_age": 3.5, "kernel_n_eff": 8.0}
    online = begun(CMDOnline(3, 30, warmup=3), rows_TN)
    assert torch.equal(watch(online, rows_TN)[-1].theta_N, torch.tensor(rows_TN[0]))


def test_more_samples_than_moving_weights_takes_them_all():
    rows_TN = random_rows(10, 8, constant=30)
    posthoc = CMDPosthoc(20, 1000)
    posthoc.fit(make_run(trajectory(rows_TN, first=0), 7))
    moving = int((rows_TN[1:] != rows_TN[1]).any(0).sum())
    assert posthoc.scalars()["modes_found"] == moving < 20
    np.testing.assert_allclose(posthoc.reconstruct(5).theta_N.numpy(), rows_TN[5], rtol=2e-7, atol=1e-7)


def test_table_and_scalars_of_modes():
    posthoc = CMDPosthoc(3, 30)
    posthoc.fit(make_run(trajectory(random_rows(11, 9), first=0), 8))
    table, rho_N = posthoc.tables()["modes"], posthoc.fitted()["rho_N"]
    assert list(table["mode"]) == [0, 1, 2]
    assert table["share"].sum() == pytest.approx(100)
    for _, row in table.iterrows():
        tensors = [range(20), range(20, 21), range(21, 42)]
        assert row["reference"] in tensors[LAYOUT.names.index(row["tensor"])]
    moved_N = rho_N != 0
    scalars = posthoc.scalars()
    assert scalars["rho_mean"] == pytest.approx(float(rho_N[moved_N].abs().double().mean()), abs=1e-6)
    assert scalars["largest_mode_share"] == table["share"].max()
    assert table["size"].sum() == int(moved_N.sum())


def test_correlations_of_all_weights_are_held_by_no_fitted_method_and_found_again():
    posthoc = CMDPosthoc(3, 30)
    posthoc.fit(make_run(trajectory(random_rows(11, 9), first=0), 8))
    held, found = posthoc.cmd.tensors(), posthoc.fitted()
    assert held.pop("rho_N").numel() == 0
    assert found["rho_N"].shape == (LAYOUT.N,)
    assert all(torch.equal(found[name], value) for name, value in held.items())


def test_a_snapshot_that_is_not_finite_is_named():
    rows_TN = random_rows(12, 9)
    rows_TN[5, 20], rows_TN[7, 3] = np.inf, np.nan
    with pytest.raises(ValueError, match="snapshot t=5 must be finite, got nan or inf in bias"):
        CMDPosthoc(3, 30).fit(make_run(trajectory(rows_TN, first=0), 8))
    rows_TN[5, 20] = 0
    online = begun(CMDOnline(3, 30, warmup=3), rows_TN)
    with pytest.raises(ValueError, match="snapshot t=7 must be finite, got nan or inf in conv"):
        watch(online, rows_TN)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CMDPosthoc(modes=0), "modes must be at least 1, got 0"),
        (lambda: CMDOnline(modes=11, samples=10), "modes must be at most samples = 10, got 11"),
        (lambda: CMDOnline(samples=True), "samples must be a whole number, got True"),
        (lambda: CMDOnline(warmup=1), "warmup must be at least 2, got 1"),
        (lambda: CMDOnline(warmup=20).needs(20), "warmup must be below epochs = 20, got 20"),
        (lambda: CMDPosthoc().needs(2), "epochs must give CMD at least 3 snapshots, got 2"),
        (lambda: decompose(trajectory(random_rows(0, 2)), 2, torch.arange(5)), "epochs must give CMD at least 3"),
    ],
)
def test_bad_parameters(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


def test_layers_table_counts_the_moving_weights_of_each_tensor():
    torch.manual_seed(0)
    driver_T = torch.randn(8)
    snapshots_TN = driver_T[:, None] * torch.randn(30) + 0.01 * torch.randn(8, 30)
    snapshots_TN[:, 4:9] = 1.0
    trajectory = MemoryTrajectory.of([Snapshot(t, t, row_N, {}) for t, row_N in enumerate(snapshots_TN)])
    layout = Layout(("a", "b"), ((10,), (4, 5)))
    model = decompose(trajectory, 3, torch.tensor([0, 1, 2, 20, 25]))
    layers = ModeReport.of(model, layout).layers(layout)
    assert layers.groupby("tensor")["weights"].sum().to_dict() == {"a": 5, "b": 20}
    assert layers.groupby("mode")["weights"].sum().tolist() == model.size_M.tolist()
    assert layers.groupby("tensor")["share"].sum().tolist() == pytest.approx([100, 100])
