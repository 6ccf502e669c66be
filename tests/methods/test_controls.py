"""Controls that are linear in the snapshots, against sums, least squares and closed forms in float64."""

import numpy as np
import pytest
import torch

from baselines.clock import Clock, clock_kernel
from baselines.clock_online import ClockOnline
from baselines.cmd.clustering import abs_correlation
from baselines.cmd.posthoc import mode_kernels
from baselines.cmd_mean_kernel import CMDMeanKernel
from baselines.cmd_posthoc import CMDPosthoc
from baselines.epoch_ema import EpochEMA
from baselines.kernel import kernel_scalars, kernel_table
from baselines.lawa import LAWA
from baselines.pca_reconstruction import PCAReconstruction
from baselines.persistence import Persistence
from baselines.random_references import RandomReferences, draw_modes
from baselines.swa import SWA
from baselines.time_mean import TimeMean
from harness.method import Layout, Run, Snapshot
from harness.randomness import generator
from harness.snapshots import MemoryTrajectory

N, T = 40, 9
CLOCKS = {"t": lambda t: t, "sqrt": np.sqrt, "log": np.log}


def walk(length=T + 1, weights=N, seed=0):
    """w(0), w(1), ...: float32 rows far from zero, so that what starts at zero is seen; the last weight never moves."""
    rows_TN = np.random.default_rng(seed).normal(size=(length, weights)).cumsum(0) + 100
    rows_TN[:, -1] = 7
    return rows_TN.astype(np.float32)


def run(rows_TN):
    snapshots = MemoryTrajectory(torch.tensor(rows_TN))
    layout = Layout(("w",), ((rows_TN.shape[1],),))
    return Run(layout, snapshots, len(rows_TN) - 1, 3, torch.device("cpu"), lambda name: generator(0, name))


def watch(method, rows_TN):
    """The proposal after each snapshot, with every snapshot overwritten once it was observed."""
    method.begin(run(rows_TN))
    proposals = []
    for t, row_N in enumerate(rows_TN):
        theta_N = torch.tensor(row_N)
        method.observe(Snapshot(t, 3 * t, theta_N, {}))
        theta_N.fill_(float("nan"))
        proposal = method.propose()
        proposals.append(None if proposal is None else proposal.theta_N.numpy())
    return proposals


def fitted(method, rows_TN):
    method.fit(run(rows_TN))
    return method


def last(method, rows_TN):
    return fitted(method, rows_TN).reconstruct(len(rows_TN) - 1).theta_N.numpy()


def line(x_T, w_TN, p_T, at):
    """Weighted least squares w ~ a x + b by numpy, evaluated at one x; the weighted mean where x is one value."""
    if len(x_T) == 1:
        return w_TN[0]
    return np.stack([np.polyval(np.polyfit(x_T, w_T, 1, w=np.sqrt(p_T)), at) for w_T in w_TN.T])


# --- averages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forgetting", [0.3, 0.7, 0.9999999])
def test_epoch_ema_is_the_explicit_weighted_mean(forgetting):
    rows_TN = walk()
    proposals = watch(EpochEMA(forgetting), rows_TN)
    assert proposals[0] is None
    for t in range(1, T + 1):
        p_T = forgetting ** np.arange(t - 1, -1, -1.0)
        np.testing.assert_allclose(proposals[t], p_T @ rows_TN[1 : t + 1] / p_T.sum(), rtol=1e-6)


def test_epoch_ema_that_forgets_nothing_is_the_time_mean():
    rows_TN = walk()
    np.testing.assert_array_equal(watch(EpochEMA(1.0), rows_TN)[-1], watch(TimeMean(), rows_TN)[-1])


def test_persistence_holds_the_end_of_the_warm_up():
    rows_TN = walk()
    method = Persistence(warmup=3)
    proposals = watch(method, rows_TN)
    assert proposals[:4] == [None] * 4
    for t in range(4, T + 1):
        np.testing.assert_array_equal(proposals[t], rows_TN[4])
    assert method.epochs_read(T) == 4
    assert method.needs(T) is None
    with pytest.raises(ValueError, match="warmup must be below epochs = 3, got 3"):
        method.needs(3)


# --- clocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("basis", CLOCKS)
@pytest.mark.parametrize("forgetting", [0.6, 0.95, 1.0])
def test_clocks_are_weighted_least_squares(basis, forgetting):
    """At the end of every epoch the recursion is the regression of all so far; post hoc it has every epoch's value."""
    rows_TN = walk()
    proposals = watch(ClockOnline(basis, forgetting), rows_TN)
    assert proposals[0] is None
    for t in range(1, T + 1):
        x_T, p_T = CLOCKS[basis](np.arange(1.0, t + 1)), forgetting ** np.arange(t - 1, -1, -1.0)
        expected = line(x_T, rows_TN[1 : t + 1].astype(np.float64), p_T, x_T[-1])
        np.testing.assert_allclose(proposals[t], expected, rtol=1e-6)
    posthoc = fitted(Clock(basis, forgetting), rows_TN)
    for t in range(1, T + 1):
        expected = line(x_T, rows_TN[1:].astype(np.float64), p_T, x_T[t - 1])
        np.testing.assert_allclose(posthoc.reconstruct(t).theta_N.numpy(), expected, rtol=1e-6)


def test_the_kernel_of_a_line_in_t_at_the_end():
    """The endpoint of ordinary least squares over 1..T weighs snapshot s by (6 s - 2 T - 2) / (T (T + 1))."""
    s_T = torch.arange(1, T + 1, dtype=torch.float64)
    expected_T = (6 * s_T - 2 * T - 2) / (T * (T + 1))
    torch.testing.assert_close(clock_kernel(tuple(range(1, T + 1)), T, "t", 1.0), expected_T, atol=1e-14, rtol=0)


@pytest.mark.parametrize("basis", CLOCKS)
@pytest.mark.parametrize("forgetting", [1e-300, 1e-17, 0.5, 1.0])
def test_a_line_goes_through_motion_that_is_one(basis, forgetting):
    """Weights that are affine in the clock are their own fit, also where all but the last two snapshots are forgotten;
    with nothing but the last remembered, the model of the last epoch is the last snapshot."""
    t_T = np.arange(0.0, T + 1)
    x_T = np.where(t_T > 0, CLOCKS[basis](np.maximum(t_T, 1)), 0)
    rows_TN = (3 + np.outer(x_T, np.arange(N))).astype(np.float32)
    np.testing.assert_allclose(last(Clock(basis, forgetting), rows_TN), rows_TN[-1], rtol=1e-6)
    np.testing.assert_allclose(watch(ClockOnline(basis, forgetting), rows_TN)[-1], rows_TN[-1], rtol=1e-6)


def test_the_clock_of_a_single_epoch_is_its_snapshot():
    rows_TN = walk(2)
    np.testing.assert_array_equal(last(Clock(), rows_TN), rows_TN[1])


# --- principal components ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2, T - 1])
def test_principal_components_are_the_truncated_svd(rank):
    rows_TN = walk()
    method = fitted(PCAReconstruction(rank), rows_TN)
    X_TN = rows_TN[1:].astype(np.float64)
    U_TS, s_S, V_SN = np.linalg.svd(X_TN - X_TN.mean(0), full_matrices=False)
    expected_TN = X_TN.mean(0) + U_TS[:, :rank] * s_S[:rank] @ V_SN[:rank]
    for t in range(1, T + 1):
        np.testing.assert_allclose(method.reconstruct(t).theta_N.numpy(), expected_TN[t - 1], rtol=1e-6)
    scalars = method.scalars()
    assert scalars["rank"] == rank
    assert scalars["unexplained"] == pytest.approx((s_S[rank:] ** 2).sum() / (s_S**2).sum(), abs=1e-12)


def test_all_principal_components_are_the_run_itself():
    rows_TN = walk()
    np.testing.assert_allclose(last(PCAReconstruction(T - 1), rows_TN), rows_TN[-1], rtol=1e-6)


@pytest.mark.parametrize("directions", [0, 1, 2])
def test_directions_that_do_not_move_are_no_components(directions):
    """Snapshots of fewer directions than the rank: the run itself, and coefficients that still sum to 1."""
    rng = np.random.default_rng(0)
    rows_TN = (5 + rng.normal(size=(T + 1, directions)) @ rng.normal(size=(directions, N))).astype(np.float32)
    method = fitted(PCAReconstruction(5), rows_TN)
    np.testing.assert_allclose(method.reconstruct(T).theta_N.numpy(), rows_TN[-1], rtol=1e-6)
    assert method.scalars()["rank"] <= 5
    assert method.tables()["kernel"]["coefficient"].sum() == pytest.approx(1)


def test_the_rank_must_fit_the_run():
    assert PCAReconstruction(5).needs(6) == (1, 6)
    with pytest.raises(ValueError, match="rank must be at most epochs - 1 = 4, got 5"):
        PCAReconstruction(5).needs(5)


# --- CMD without what makes it CMD ------------------------------------------------------------------------------------


def test_as_many_random_references_as_samples_are_every_sampled_weight_itself():
    """All weights that move are drawn, each its own reference: the run itself, in every order of the draw."""
    rows_TN = walk()
    method = fitted(RandomReferences(modes=N, samples=N), rows_TN)
    assert method.scalars()["modes_found"] == N - 1
    for t in (1, T):
        np.testing.assert_allclose(method.reconstruct(t).theta_N.numpy(), rows_TN[t], rtol=1e-6)


def test_random_references_are_regressed_on_as_in_cmd():
    """By numpy, from the references that were drawn: the best of them for every weight, and least squares on it."""
    rows_TN = walk()
    method = fitted(RandomReferences(modes=4, samples=20), rows_TN)
    X_TN = rows_TN[1:].astype(np.float64)
    reference_M = method.tables()["modes"]["reference"].to_numpy()
    assert len(set(reference_M)) == 4
    corr_NM = np.corrcoef(X_TN[:, :-1].T, X_TN[:, reference_M].T)[: N - 1, N - 1 :]
    model_N = method.reconstruct(T).theta_N.numpy()
    for i in range(N - 1):
        x_T = X_TN[:, reference_M[np.abs(corr_NM[i]).argmax()]]
        expected = np.polyval(np.polyfit(x_T, X_TN[:, i], 1), x_T[-1])
        assert model_N[i] == pytest.approx(expected, rel=1e-5), i
    assert model_N[-1] == 7


def test_random_references_are_drawn_from_the_sample_that_cmd_clusters():
    rows_TN = walk(weights=200)
    posthoc, drawn = (fitted(cls(modes=6, samples=30), rows_TN) for cls in (CMDPosthoc, RandomReferences))
    assert torch.equal(drawn.cmd.sample.index_K, posthoc.cmd.sample.index_K)
    assert set(drawn.cmd.reference_M.tolist()) <= set(posthoc.cmd.sample.index_K.tolist())
    assert set(drawn.cmd.reference_M.tolist()) != set(posthoc.cmd.reference_M.tolist())


def test_drawn_modes_are_ordered_by_size_and_every_weight_is_drawn_alike():
    x_TK = torch.tensor(walk(weights=10)[1:, :-1], dtype=torch.float64)
    drawn = np.zeros(9)
    for seed in range(300):
        mode_K, chosen_M = draw_modes(x_TK, 3, torch.Generator().manual_seed(seed))
        sizes = np.bincount(mode_K, minlength=3)
        assert (np.diff(sizes) <= 0).all()
        corr_KM = abs_correlation(x_TK)[:, chosen_M]
        assert torch.equal(mode_K, corr_KM.argmax(1))
        drawn[chosen_M] += 1
    # In a third of 300 draws: 100 with a deviation of sqrt(300 / 3 * 2 / 3) = 8.2, five of which are allowed
    assert np.abs(drawn - 100).max() < 41


@pytest.mark.parametrize("t", [1, 5, T])
def test_the_kernel_of_a_mode_is_cmds_model_of_its_weights(t):
    rows_TN = walk()
    method = fitted(CMDPosthoc(modes=3, samples=N), rows_TN)
    kernel_MT = mode_kernels(method.cmd.references_TM, t - 1).numpy()
    combined_MN = kernel_MT @ rows_TN[1:].astype(np.float64)
    mode_N = method.cmd.mode_N.long().numpy()
    np.testing.assert_allclose(method.cmd.reconstruct(t).numpy(), combined_MN[mode_N, np.arange(N)], rtol=1e-6)


def test_the_mean_kernel_is_cmds_own_by_the_weights_in_each_mode():
    rows_TN = walk()
    posthoc, method = (fitted(cls(modes=3, samples=N), rows_TN) for cls in (CMDPosthoc, CMDMeanKernel))
    sizes_M = posthoc.tables()["modes"]["size"].to_numpy()
    assert sizes_M.sum() == N - 1
    X_TN = rows_TN[1:].astype(np.float64)
    D_TM = posthoc.cmd.references_TM.numpy() - posthoc.cmd.references_TM.numpy().mean(0)
    kernel_T = sum(
        size / (N - 1) * (1 / T + D_TM[:, m] * D_TM[-1, m] / (D_TM[:, m] ** 2).sum()) for m, size in enumerate(sizes_M)
    )
    np.testing.assert_allclose(method.reconstruct(T).theta_N.numpy(), kernel_T @ X_TN, rtol=1e-6)
    np.testing.assert_allclose(method.tables()["kernel"]["coefficient"], kernel_T, atol=1e-12)
    for name in ("kernel_age", "rho_mean"):
        assert method.scalars()[name] == pytest.approx(posthoc.scalars()[name])


def test_with_one_mode_the_mean_kernel_is_cmd():
    rows_TN = walk()
    expected_N = last(CMDPosthoc(modes=1, samples=N), rows_TN)
    np.testing.assert_allclose(last(CMDMeanKernel(modes=1, samples=N), rows_TN), expected_N, rtol=1e-6)


@pytest.mark.parametrize("make", [lambda: CMDMeanKernel(3, 9), lambda: RandomReferences(3, 9), lambda: Clock("log")])
def test_weights_that_never_moved_are_themselves(make):
    rows_TN = np.full((T + 1, N), 3, dtype=np.float32)
    np.testing.assert_allclose(last(make(), rows_TN), rows_TN[-1], rtol=1e-6)


# --- kernels ----------------------------------------------------------------------------------------------------------


def test_age_and_effective_number_of_snapshots():
    """A mean over 1..9 lies 4 epochs back and counts 9; the last snapshot alone lies 0 back and counts 1."""
    kernel_MT = torch.stack([torch.full((T,), 1 / T), torch.eye(T)[-1]])
    ts = tuple(range(1, T + 1))
    assert kernel_scalars(kernel_MT[:1], ts) == pytest.approx({"kernel_age": 4, "kernel_n_eff": 9})
    # squares of 1/9 and 1, three weights to one, and one to one where no weight is in either: 1/3 and 5/9 on average
    assert kernel_scalars(kernel_MT, ts, torch.tensor([3, 1])) == pytest.approx({"kernel_age": 3, "kernel_n_eff": 3})
    assert kernel_scalars(kernel_MT, ts, torch.tensor([0, 0])) == pytest.approx({"kernel_age": 2, "kernel_n_eff": 1.8})
    table = kernel_table(kernel_MT, ts)
    assert table["mode"].tolist() == ["0"] * T + ["1"] * T
    assert table["epoch"].tolist() == [*ts, *ts]
    assert table["coefficient"].sum() == pytest.approx(2)


def test_a_line_in_t_is_no_older_than_the_run():
    """Its fit of the epoch itself at the end is the end, so its age is 0 although it averages."""
    scalars = fitted(Clock(), walk()).scalars()
    assert scalars["kernel_age"] == pytest.approx(0, abs=1e-9)
    assert scalars["kernel_n_eff"] > 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: EpochEMA(0.7),
        lambda: TimeMean(),
        lambda: TimeMean(include_initial=True),
        lambda: SWA(0.6),
        lambda: LAWA(3),
        lambda: ClockOnline("log", 0.9),
        lambda: Clock("sqrt"),
        lambda: PCAReconstruction(2),
        lambda: CMDMeanKernel(3, N),
    ],
)
def test_the_kernel_of_a_method_gives_its_weights(make):
    """The coefficients of its table times the run's snapshots of those epochs are the weights that it stands for."""
    rows_TN, method = walk(), make()
    model_N = watch(method, rows_TN)[-1] if hasattr(method, "observe") else last(method, rows_TN)
    table, scalars = method.tables()["kernel"], method.scalars()
    c_T = table["coefficient"].to_numpy()
    np.testing.assert_allclose(c_T @ rows_TN[table["epoch"]].astype(np.float64), model_N, rtol=1e-6)
    assert scalars["kernel_age"] == pytest.approx(c_T @ (T - table["epoch"]), abs=1e-9)
    assert scalars["kernel_n_eff"] == pytest.approx(1 / (c_T**2).sum())


# --- what they refuse, and their state --------------------------------------------------------------------------------

OBSERVERS = [
    lambda: EpochEMA(0.7),
    lambda: ClockOnline("sqrt", 0.9),
    lambda: Persistence(warmup=4),
]


@pytest.mark.parametrize("make", OBSERVERS)
@pytest.mark.parametrize("cut", range(1, T))
def test_state_continues_with_the_same_bits(make, cut):
    rows_TN = walk()
    expected = watch(make(), rows_TN)[-1]
    first, second = make(), make()
    watch(first, rows_TN[:cut])
    state = first.state_dict()
    first.observe(Snapshot(cut, 0, torch.zeros(N), {}))
    second.begin(run(rows_TN))
    second.load_state_dict(state)
    for t in range(cut, T + 1):
        second.observe(Snapshot(t, 3 * t, torch.tensor(rows_TN[t]), {}))
    np.testing.assert_array_equal(second.propose().theta_N.numpy(), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EpochEMA(0), "forgetting must be above 0 and at most 1, got 0"),
        (lambda: EpochEMA(1.5), "forgetting must be above 0 and at most 1, got 1.5"),
        (lambda: EpochEMA(float("nan")), "forgetting must be above 0 and at most 1, got nan"),
        (lambda: Clock("cube"), "basis must be one of t, sqrt, log, got 'cube'"),
        (lambda: ClockOnline(forgetting=True), "forgetting must be above 0 and at most 1, got True"),
        (lambda: PCAReconstruction(0), "rank must be at least 1, got 0"),
        (lambda: PCAReconstruction(1.5), "rank must be a whole number, got 1.5"),
        (lambda: Persistence(1), "warmup must be at least 2, got 1"),
        (lambda: RandomReferences(5, 4), "modes must be at most samples = 4, got 5"),
        (lambda: CMDMeanKernel(5, 4), "modes must be at most samples = 4, got 5"),
        (lambda: CMDMeanKernel(first=-1), "first must be at least 0, got -1"),
        (lambda: CMDMeanKernel().needs(2), "epochs must give CMD at least 3 snapshots, got 2"),
        (lambda: fitted(Clock(), walk()).reconstruct(0), "t must be in 1..9, got 0"),
        (lambda: fitted(PCAReconstruction(), walk()).reconstruct(10), "t must be in 1..9, got 10"),
        (lambda: fitted(CMDMeanKernel(2, 9), walk()).reconstruct(0), "t must be in 1..9, got 0"),
    ],
)
def test_bad_values(make, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 the whole message is compared
        make()
    assert str(error.value) == message
