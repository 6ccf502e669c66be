"""Averages over steps, soups, extrapolation and other references of CMD, against sums and closed forms in float64."""

import math

import numpy as np
import pytest
import torch
from schedulefree import RAdamScheduleFree, SGDScheduleFree
from torch import nn

from baselines.cmd_online import CMDOnline
from baselines.cmd_posthoc import CMDPosthoc
from baselines.cmd_references import CMDReferences, mode_references
from baselines.ema import EMA
from baselines.greedy_soup import GreedySoup
from baselines.kernel import MOST, kernel_scalars, kernel_table
from baselines.lawa import LAWA
from baselines.posthoc_ema import GRID, STORED, PostHocEMA
from baselines.power_ema import PowerEMA
from baselines.power_profile import exponent, products, width
from baselines.rna import RNA
from baselines.schedule_free import ScheduleFree
from baselines.swa import SWA
from baselines.two_tailed import TwoTailed
from baselines.uniform_soup import UniformSoup
from harness.kernel import checked, numbers
from harness.method import Branch, Layout, Run, Snapshot
from harness.randomness import generator
from harness.snapshots import MemoryTrajectory, weights_of

N, STEPS, EPOCHS = 12, 4, 10


def walk(length, weights=N, seed=0):
    """w(0), w(1), ...: float32 rows far from zero, so that an average that starts at zero is seen."""
    return (np.random.default_rng(seed).normal(size=(length, weights)).cumsum(0) + 100).astype(np.float32)


def run(rows_TN, steps=STEPS, loss=None):
    """A base whose snapshots after every epoch are the rows; `loss` is the probe's."""
    layout = Layout(("w",), ((rows_TN.shape[1],),))
    rest = {} if loss is None else {"probe_loss": loss}
    trajectory, epochs = MemoryTrajectory(torch.tensor(rows_TN)), len(rows_TN) - 1
    return Run(layout, trajectory, epochs, steps, torch.device("cpu"), lambda name: generator(0, name), **rest)


def by_steps(method, rows_SN, loss=None, steps=STEPS):
    """The proposal after each step of a base whose states are the rows, w(0) first."""
    epochs = (len(rows_SN) - 1) // steps
    method.begin(run(rows_SN[: epochs + 1], steps, loss))
    proposals = []
    for step, row_N in enumerate(rows_SN):
        theta_N = torch.tensor(row_N)
        method.observe(Snapshot(step // steps, step, theta_N, {}))
        theta_N.fill_(float("nan"))
        proposal = method.propose()
        proposals.append(None if proposal is None else proposal.theta_N.numpy())
    return proposals


def step_kernel(method):
    """The coefficients that a method's table gives, by step."""
    table = method.tables()["kernel"]
    return dict(zip((table["epoch"] * STEPS).round().astype(int), table["coefficient"], strict=True))


# --- power-function averages ------------------------------------------------------------------------------------------


def test_widths_are_those_of_the_paper():
    """Karras et al. 2024, section 3.1: sigma 0.05 and 0.10 are gamma 16.97 and 6.94."""
    assert exponent(0.05) == pytest.approx(16.97, abs=0.005)
    assert exponent(0.10) == pytest.approx(6.94, abs=0.005)


@pytest.mark.parametrize("sigma", [0.01, 0.03, 0.075, 0.2, 0.28])
def test_a_width_is_the_standard_deviation_of_its_profile(sigma):
    """Of t^g on 0..1 about its mean, by numerical integration."""
    g = exponent(sigma)
    assert width(g) == pytest.approx(sigma, rel=1e-12)
    t = (np.arange(400_000) + 0.5) / 400_000
    weight = t**g / (t**g).sum()
    mean = weight @ t
    assert math.sqrt(weight @ (t - mean) ** 2) == pytest.approx(sigma, rel=1e-4)


@pytest.mark.parametrize("sigma", [0.03, 0.075, 0.25])
def test_power_ema_is_the_explicit_product(sigma):
    """theta <- beta theta + (1 - beta) w with beta = (1 - 1/t)^(g+1), written out; the initial state never counts."""
    rows_SN, g = walk(EPOCHS * STEPS + 1), exponent(sigma)
    proposals = by_steps(PowerEMA(sigma), rows_SN)
    assert proposals[0] is None
    expected_N = np.zeros(N)
    for step in range(1, len(rows_SN)):
        beta = (1 - 1 / step) ** (g + 1)
        expected_N = beta * expected_N + (1 - beta) * rows_SN[step].astype(np.float64)
        np.testing.assert_allclose(proposals[step], expected_N, rtol=1e-5)


def test_products_of_profiles_are_integrals():
    """Of (g + 1) s^g / t^(g+1) on 0..min(t, t'), by numerical integration."""
    g_K, t_K = torch.tensor([2.0, 5.0, 9.0]), torch.tensor([4.0, 7.0, 7.0])
    found_KK = products(g_K, t_K, g_K, t_K).numpy()
    for a in range(3):
        for b in range(3):
            (ga, ta), (gb, tb) = ((float(g_K[i]), float(t_K[i])) for i in (a, b))
            s = (np.arange(200_000) + 0.5) / 200_000 * min(ta, tb)
            profile = (ga + 1) * s**ga / ta ** (ga + 1) * (gb + 1) * s**gb / tb ** (gb + 1)
            assert found_KK[a, b] == pytest.approx(profile.mean() * min(ta, tb), rel=1e-6)


@pytest.mark.parametrize("sigma", STORED)
def test_posthoc_ema_of_a_stored_width_is_the_stored_average(sigma):
    rows_SN = walk(EPOCHS * STEPS + 1)
    expected_N = by_steps(PowerEMA(sigma), rows_SN)[-1]
    np.testing.assert_allclose(by_steps(PostHocEMA(sigma), rows_SN)[-1], expected_N, rtol=1e-6)


@pytest.mark.parametrize("sigma", [0.06, 0.075, 0.09, 0.15])
def test_posthoc_ema_comes_close_to_the_average_that_was_tracked(sigma):
    """Its error is small beside how far the averages of the stored widths lie apart."""
    rows_SN = walk(40 * STEPS + 1)
    tracked_N, narrow_N, wide_N = (by_steps(PowerEMA(one), rows_SN)[-1] for one in (sigma, *STORED))
    found_N = by_steps(PostHocEMA(sigma, stored=40), rows_SN)[-1]
    assert np.linalg.norm(found_N - tracked_N) < 0.02 * np.linalg.norm(narrow_N - wide_N)


def test_posthoc_ema_takes_the_width_with_the_least_probe_loss():
    """The loss is the distance to the tracked average of one width of the grid."""
    rows_SN = walk(EPOCHS * STEPS + 1)
    wanted_N = torch.tensor(by_steps(PowerEMA(GRID[3]), rows_SN)[-1])
    method = PostHocEMA(choose="probe")
    assert method.needs_probe
    by_steps(method, rows_SN, loss=lambda theta_N: float((theta_N - wanted_N).norm()))
    assert method.chosen() == GRID[3]
    assert method.scalars() == {"sigma": GRID[3]}
    assert not PostHocEMA().needs_probe


# --- kernels over steps -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [lambda: EMA(0.6), lambda: PowerEMA(0.1), lambda: PostHocEMA(0.08), lambda: LAWA(4, 3), lambda: LAWA(3, 0.1)],
)
def test_kernels_over_steps_give_the_weights(make):
    rows_SN, method = walk(EPOCHS * STEPS + 1), make()
    last_N = by_steps(method, rows_SN)[-1]
    kernel = step_kernel(method)
    assert sum(kernel.values()) == pytest.approx(1, rel=1e-9)
    np.testing.assert_allclose(sum(c * rows_SN[s].astype(np.float64) for s, c in kernel.items()), last_N, rtol=2e-5)


def test_the_kernel_of_an_exponential_average_is_geometric():
    rows_SN, method = walk(EPOCHS * STEPS + 1), EMA(half_life=0.5)
    by_steps(method, rows_SN)
    kernel, beta = step_kernel(method), 0.5 ** (1 / (0.5 * STEPS))
    for step in range(EPOCHS * STEPS):
        assert kernel[step] / kernel[step + 1] == pytest.approx(beta, rel=1e-9)


def test_long_kernels_are_shortened_without_changing_age_and_number():
    T = 7 * MOST + 13
    c_T = torch.rand(T, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    c_1T, ts = (c_T / c_T.sum())[None], [t / 100 for t in range(1, T + 1)]
    table = kernel_table(c_1T, ts)
    assert len(table) <= MOST
    assert table["snapshots"].sum() == T
    found = numbers(checked(table), last=math.ceil(ts[-1]))
    age, squares = float(c_1T[0] @ (math.ceil(ts[-1]) - torch.tensor(ts, dtype=torch.float64))), float((c_1T**2).sum())
    assert found == pytest.approx({"age": age, "n_eff": 1 / squares}, rel=1e-9)


def test_the_table_says_what_the_method_said_of_modes():
    """Age and effective number of the table are those of the scalars, over modes of different sizes."""
    method = CMDPosthoc(modes=3, samples=20)
    method.fit(run(walk(EPOCHS + 1, 40)))
    method.reconstruct(EPOCHS)
    scalars, found = method.scalars(), numbers(checked(method.tables()["kernel"]), EPOCHS)
    assert found == pytest.approx({"age": scalars["kernel_age"], "n_eff": scalars["kernel_n_eff"]}, rel=1e-9)
    assert kernel_scalars(torch.ones(1, 1), [3]) == {"kernel_age": 0.0, "kernel_n_eff": 1.0}


@pytest.mark.parametrize("forgetting", [1.0, 0.8])
def test_online_cmd_gives_the_kernel_of_every_mode(forgetting):
    rows_TN = walk(EPOCHS + 1, 40)
    method = CMDOnline(modes=3, samples=20, warmup=4, forgetting=forgetting)
    whole = run(rows_TN)
    method.begin(whole)
    for t, row_N in enumerate(rows_TN):
        method.observe(Snapshot(t, STEPS * t, torch.tensor(row_N), {}))
    kernel = method.tables()["kernel"].pivot_table(index="mode", columns="epoch", values="coefficient", sort=False)
    mode_N = method.online.mode_N.numpy()
    expected_N = (kernel.to_numpy() @ rows_TN[kernel.columns].astype(np.float64))[mode_N, np.arange(40)]
    np.testing.assert_allclose(method.propose().theta_N.numpy(), expected_N, rtol=1e-6)


# --- latest weights, over steps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("every", "stride"), [(3, 3), (0.1, 4), (1e-9, 1)])
@pytest.mark.parametrize(("start", "first"), [(0.0, 1), (0.3, 12)])
def test_lawa_averages_the_latest_states_of_so_many_steps(every, stride, start, first):
    rows_SN = walk(EPOCHS * STEPS + 1)
    proposals = by_steps(LAWA(4, every, start), rows_SN)
    for step in range(len(rows_SN)):
        taken = [s for s in range(1, step + 1) if s % stride == 0 and s >= first][-4:]
        if taken:
            np.testing.assert_allclose(proposals[step], rows_SN[taken].mean(0, dtype=np.float64), rtol=1e-6)
        else:
            assert proposals[step] is None


# --- two tails --------------------------------------------------------------------------------------------------------


def melis(rows_SN, loss, period, patience):
    """The pseudo code in floats: what stands for the method after every comparison, as the states that it averages."""
    short, long, stands = [], [], []
    best = {"short": (math.inf, 0), "long": (math.inf, 0)}

    def seen(name, value):
        least, since = best[name]
        best[name] = (value, 0) if value < least else (least, since + 1)

    for step in range(1, len(rows_SN)):
        short, long = [*short, step], [*long, step]
        if step % period:
            continue
        of_short, of_long = (loss(rows_SN[one].mean(0, dtype=np.float64)) for one in (short, long))
        seen("short", of_short)
        seen("long", of_long)
        if of_short <= of_long or best["long"][1] >= patience:
            long, of_long, best["long"] = short, of_short, best["short"]
            short, best["short"] = [], (math.inf, 0)
        elif best["short"][1] >= patience:
            short, best["short"] = [], (math.inf, 0)
        raw = len(long) > 1 and loss(rows_SN[step].astype(np.float64)) <= of_long
        stands.append([step] if raw else long)
        if raw and len(long) == period:
            short, long = [], []
            best = {"short": (math.inf, 0), "long": (math.inf, 0)}
    return stands


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("noise", [0.3, 3.0])
def test_two_tailed_follows_its_pseudo_code(seed, noise):
    """On a run that comes closer to 0 as it goes on, with noise, by the distance to 0."""
    rng = np.random.default_rng(seed)
    way_S = 10 * 0.97 ** np.arange(30 * STEPS + 1)
    rows_SN = (way_S[:, None] + noise * rng.normal(size=(len(way_S), N))).astype(np.float32)
    method = TwoTailed(patience=2)
    proposals = by_steps(method, rows_SN, loss=lambda theta_N: float(theta_N.double().norm()))
    expected = melis(rows_SN, np.linalg.norm, STEPS, 2)
    for number, steps in enumerate(expected, start=1):
        found_N = proposals[number * STEPS]
        if len(steps) == 1:
            assert found_N is None
        else:
            np.testing.assert_allclose(found_N, rows_SN[steps].mean(0, dtype=np.float64), rtol=0, atol=1e-5)
    assert sorted(step_kernel(method)) == expected[-1]
    assert len({len(steps) for steps in expected}) >= 3


# --- soups ------------------------------------------------------------------------------------------------------------


def test_a_uniform_soup_is_the_mean_of_the_tail_and_swa():
    rows_TN = walk(EPOCHS + 1)
    soup, swa = UniformSoup(first=8), SWA(0.75)
    soup.fit(run(rows_TN))
    swa.begin(run(rows_TN))
    for t, row_N in enumerate(rows_TN):
        swa.observe(Snapshot(t, STEPS * t, torch.tensor(row_N), {}))
    expected_N = rows_TN[8:].mean(0, dtype=np.float64)
    np.testing.assert_allclose(soup.reconstruct(3).theta_N.numpy(), expected_N, rtol=1e-6)
    np.testing.assert_allclose(swa.propose().theta_N.numpy(), expected_N, rtol=1e-6)


def test_a_greedy_soup_keeps_what_lowers_the_loss():
    """By the distance to a point: found again by trying in the order of single losses."""
    rows_TN = walk(EPOCHS + 1)
    target_N = rows_TN[5:8].mean(0, dtype=np.float64)

    def loss(w_N):
        return float(np.linalg.norm(np.asarray(w_N, dtype=np.float64) - target_N))

    kept, *others = sorted(range(2, EPOCHS + 1), key=lambda t: loss(rows_TN[t]))
    kept = [kept]
    for t in others:
        if loss(rows_TN[[*kept, t]].mean(0, dtype=np.float64)) < loss(rows_TN[kept].mean(0, dtype=np.float64)):
            kept.append(t)
    method = GreedySoup(first=2)
    method.fit(run(rows_TN, loss=loss))
    assert 1 < len(kept) < EPOCHS - 1
    np.testing.assert_allclose(
        method.reconstruct(1).theta_N.numpy(), rows_TN[kept].mean(0, dtype=np.float64), rtol=1e-6
    )
    assert method.scalars()["kept"] == len(kept)


def test_a_greedy_soup_takes_the_later_of_equals_and_nothing_that_does_not_help():
    method = GreedySoup(first=1)
    method.fit(run(walk(EPOCHS + 1), loss=lambda theta_N: 1.0))
    table = method.tables()["kernel"]
    assert table.loc[table["coefficient"] > 0, "epoch"].tolist() == [EPOCHS]


@pytest.mark.parametrize(("candidates", "expected"), [(1, [10]), (2, [5, 10]), (3, [3, 7, 10]), (20, range(1, 11))])
def test_a_greedy_soup_tries_so_many_snapshots_up_to_the_last(candidates, expected):
    rows_TN, asked = walk(EPOCHS + 1), []

    def loss(w_N):
        asked.extend(t for t in range(EPOCHS + 1) if np.array_equal(w_N.numpy(), rows_TN[t]))
        return float(len(asked))

    GreedySoup(first=1, candidates=candidates).fit(run(rows_TN, loss=loss))
    assert asked == list(expected)


def test_a_greedy_soup_leaves_out_what_has_no_loss():
    rows_TN = walk(EPOCHS + 1)
    bad = torch.tensor(rows_TN[-1])
    method = GreedySoup(first=1)
    method.fit(run(rows_TN, loss=lambda w_N: math.nan if torch.equal(w_N, bad) else float(w_N.norm())))
    assert method.c_T[-1] == 0


# --- extrapolation ----------------------------------------------------------------------------------------------------


def test_rna_finds_the_minimum_of_a_quadratic():
    """Under gradient descent on a quadratic with as few distinct curvatures as it combines steps, less one, the
    extrapolation is the minimum, which the descent is far from."""
    curvature_N = np.repeat([0.02, 0.1, 0.5], 4)
    minimum_N = np.random.default_rng(0).normal(size=N)
    rows = [minimum_N + np.linspace(1, 2, N)]
    for _ in range(8):
        rows.append(rows[-1] - curvature_N * (rows[-1] - minimum_N))

    def loss(w_N):
        away_N = np.asarray(w_N, dtype=np.float64) - minimum_N
        return float(away_N @ (curvature_N * away_N))

    rows_TN = np.array(rows, dtype=np.float32)
    method = RNA(k=4)
    method.fit(run(rows_TN, loss=loss))
    away, before = (np.abs(w_N - minimum_N).max() for w_N in (method.reconstruct(1).theta_N.numpy(), rows_TN[-1]))
    assert before > 1
    assert away < 0.02 * before
    assert "regularisation" in method.scalars()


def test_rna_keeps_the_last_weights_where_nothing_is_better_or_nothing_moved():
    rows_TN = walk(EPOCHS + 1)
    last = torch.tensor(rows_TN[-1])
    for rows, loss in (
        (rows_TN, lambda w_N: 0.0 if torch.equal(w_N, last) else 1.0),
        (np.ones_like(rows_TN), lambda w_N: 1.0),
    ):
        method = RNA(k=3)
        method.fit(run(rows, loss=loss))
        np.testing.assert_array_equal(method.reconstruct(2).theta_N.numpy(), rows[-1])
        assert "regularisation" not in method.scalars()


# --- other references of CMD ------------------------------------------------------------------------------------------


def sheets(modes=3, members=12, T=14, noise=0.3, seed=0):
    """Trajectories (T, K) that are one of few motions up to scale, sign and noise, and the mode of each."""
    rng = np.random.default_rng(seed)
    motion_TM = rng.normal(size=(T, modes)).cumsum(0)
    mode_K = np.repeat(np.arange(modes), members)
    scale_K = rng.choice([-1, 1], modes * members) * rng.uniform(0.5, 3, modes * members)
    return motion_TM[:, mode_K] * scale_K + noise * rng.normal(size=(T, modes * members)), mode_K, motion_TM


@pytest.mark.parametrize("reference", ["mean", "principal"])
def test_references_of_many_members_are_closer_to_the_motion_than_one_member(reference):
    x_TK, mode_K, motion_TM = sheets(noise=1.0)
    chosen = torch.tensor([0, 12, 24])
    given = torch.tensor(x_TK), torch.tensor(mode_K), chosen
    found_TM, member_TM = (mode_references(*given, one).numpy() for one in (reference, "member"))
    for mode in range(3):
        together, alone = (abs(np.corrcoef(x[:, mode], motion_TM[:, mode])[0, 1]) for x in (found_TM, member_TM))
        assert together > alone
        assert np.corrcoef(found_TM[:, mode], member_TM[:, mode])[0, 1] > 0


def test_the_principal_reference_is_the_first_singular_vector():
    x_TK, mode_K, _ = sheets()
    found_TM = mode_references(torch.tensor(x_TK), torch.tensor(mode_K), torch.tensor([0, 12, 24]), "principal").numpy()
    for mode in range(3):
        d = x_TK[:, mode_K == mode] - x_TK[:, mode_K == mode].mean(0)
        first = np.linalg.svd(d / np.linalg.norm(d, axis=0))[0][:, 0]
        np.testing.assert_allclose(abs(first @ found_TM[:, mode]), 1, rtol=1e-10)


def test_a_mode_that_never_moves_has_its_member():
    x_TK = torch.ones(6, 4, dtype=torch.float64)
    for reference in ("mean", "principal"):
        found = mode_references(x_TK, torch.tensor([0, 0, 1, 1]), torch.tensor([0, 2]), reference)
        torch.testing.assert_close(found, x_TK[:, :2])


@pytest.mark.parametrize("reference", ["mean", "principal"])
def test_own_references_are_least_squares_on_the_one_that_correlates_most(reference):
    x_TK, _, _ = sheets()
    rows_TN = np.concatenate([x_TK[:1], x_TK]).astype(np.float32)  # w(0), which is not read
    method = CMDReferences(reference, "own", modes=3, samples=36)
    method.fit(run(rows_TN))
    W_TN, x_TM = rows_TN[1:].astype(np.float64), method.cmd.references_TM.numpy()
    for weight in range(36):
        rho_M = [abs(np.corrcoef(W_TN[:, weight], x_TM[:, mode])[0, 1]) for mode in range(3)]
        a, b = np.polyfit(x_TM[:, np.argmax(rho_M)], W_TN[:, weight], 1)
        for t in (1, 14):
            expected = a * x_TM[t - 1, np.argmax(rho_M)] + b
            assert method.reconstruct(t).theta_N[weight].item() == pytest.approx(expected, abs=1e-4)


def test_all_references_are_least_squares_on_all():
    rows_TN = walk(EPOCHS + 1, 40)
    method = CMDReferences("member", "all", modes=4, samples=30)
    method.fit(run(rows_TN))
    W_TN = rows_TN[1:].astype(np.float64)
    X_TM = np.column_stack([np.ones(EPOCHS), method.cmd.references_TM.numpy()])
    expected_TN = X_TM @ np.linalg.lstsq(X_TM, W_TN, rcond=None)[0]
    for t in (1, EPOCHS):
        np.testing.assert_allclose(method.reconstruct(t).theta_N.numpy(), expected_TN[t - 1], rtol=1e-6)
    with pytest.raises(ValueError, match="modes must be below T - 1 = 9 where regress is all, got 9"):
        CMDReferences("member", "all", modes=9).needs(10)


def test_members_and_own_are_post_hoc_cmd():
    rows_TN = walk(EPOCHS + 1, 40)
    methods = CMDReferences("member", "own", modes=3, samples=20), CMDPosthoc(modes=3, samples=20)
    for method in methods:
        method.fit(run(rows_TN))
    ours, theirs = (method.reconstruct(EPOCHS).theta_N for method in methods)
    assert torch.equal(ours, theirs)


# --- schedule-free ----------------------------------------------------------------------------------------------------


class Session:
    """What schedule-free training asks of a session, on a little regression in float32."""

    def __init__(self):
        torch.manual_seed(0)
        self.model = nn.Linear(3, 1)
        self.parameters = list(self.model.parameters())
        self.layout = Layout(("weight", "bias"), ((1, 3), (1,)))
        self.optimizer = torch.optim.SGD(self.parameters, lr=0.05)
        self.branch, self.steps_per_epoch = Branch(0, 0, 3), 5

    @property
    def theta_N(self):
        return weights_of(self.model)

    def new_optimizer(self, factory, schedule=None, **kwargs):
        self.optimizer = factory(self.parameters, **kwargs)
        return self.optimizer

    def train(self, steps):
        rng = torch.Generator().manual_seed(1)
        for _ in range(steps):
            x = torch.randn(8, 3, generator=rng)
            self.optimizer.zero_grad()
            (self.model(x) - x.sum(1, keepdim=True)).square().mean().backward()
            self.optimizer.step()


@pytest.mark.parametrize(
    ("inner", "warmup", "make"),
    [
        ("sgd", 0.0, lambda p, r: SGDScheduleFree(p, lr=0.05, momentum=0.9, r=r)),
        ("radam", 0.0, lambda p, r: RAdamScheduleFree(p, lr=0.05, betas=(0.9, 0.999), r=r)),
    ],
)
@pytest.mark.parametrize("r", [0.0, 4.0])
def test_schedule_free_is_the_packages(inner, warmup, make, r):
    """The averaged iterate is what the package's own `eval` puts into the model."""
    session, theirs = Session(), Session()
    method = ScheduleFree(inner, lr=0.05, warmup=warmup, r=r)
    method.begin(session)
    theirs.optimizer = make(theirs.parameters, r)
    theirs.optimizer.train()
    for one in (session, theirs):
        one.train(12)
    theirs.optimizer.eval()
    torch.testing.assert_close(method.propose(session).theta_N, theirs.theta_N, rtol=1e-5, atol=1e-6)


def test_r_moves_the_average_to_the_end():
    averages = []
    for r in (0.0, 8.0):
        session = Session()
        method = ScheduleFree("sgd", lr=0.05, warmup=0.0, r=r)
        method.begin(session)
        session.train(12)
        z_N = torch.cat([session.optimizer.state[p]["z"].flatten() for p in session.parameters])
        averages.append(float((method.propose(session).theta_N - z_N).norm()))
    assert averages[1] < averages[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PowerEMA(0.3), "sigma must be above 0 and below 0.288675, got 0.3"),
        (lambda: PostHocEMA(choose="test"), "choose must be one of sigma, probe, got 'test'"),
        (lambda: PostHocEMA(stored=0), "stored must be at least 1, got 0"),
        (lambda: LAWA(every=0), "every must be at least 1, got 0"),
        (lambda: LAWA(every=1.5), "every must be above 0 and below 1, got 1.5"),
        (lambda: LAWA(start=1.0), "start must be at least 0 and below 1, got 1.0"),
        (lambda: TwoTailed(patience=0), "patience must be at least 1, got 0"),
        (lambda: UniformSoup(first=-1), "first must be at least 0, got -1"),
        (lambda: GreedySoup(first=6).needs(5), "first must be at most 5 in 5 epochs, got 6"),
        (lambda: GreedySoup(candidates=0), "candidates must be at least 1, got 0"),
        (lambda: RNA(k=0), "k must be at least 1, got 0"),
        (lambda: CMDReferences(reference="median"), "reference must be one of member, mean, principal, got 'median'"),
        (lambda: ScheduleFree("radam"), "warmup must be 0 for radam, whose rate rises by itself, got 0.05"),
        (lambda: ScheduleFree(r=-1), "r must be at least 0, got -1"),
    ],
)
def test_bad_parameters(make, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 the whole message is compared
        make()
    assert str(error.value) == message
