"""The tables and the plane of post-hoc CMD, on modes planted by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from baselines.cmd import CMD, analysis
from baselines.cmd.modes import ModeReport
from baselines.cmd.posthoc import Sample
from baselines.cmd_posthoc import CMDPosthoc
from harness.method import Layout, Run, Snapshot
from harness.snapshots import MemoryTrajectory

T = 8
LAYOUT = Layout(("stem.weight", "stem.bias", "frozen.weight", "head.weight"), ((10, 12), (40,), (30,), (60,)))
SINGLE = Layout(("all",), ((3,),))


def run_of(W_TN, layout=LAYOUT):
    """A run whose snapshots of the epochs 1..T are these rows."""
    trajectory = MemoryTrajectory(W_TN, range(1, len(W_TN) + 1))
    return Run(layout, trajectory, len(W_TN), 1, torch.device("cpu"), lambda _: torch.Generator().manual_seed(0))


def planted():
    """The stem follows one trajectory, the head another, uncorrelated one; the frozen tensor never moves."""
    rng = torch.Generator().manual_seed(0)
    random_T2 = torch.randn(T, 2, dtype=torch.float64, generator=rng)
    x_T, y_T = torch.linalg.qr(random_T2 - random_T2.mean(0)).Q.T
    scale_N = torch.rand(LAYOUT.N, generator=rng).double() + 0.5
    W_TN = torch.cat([x_T[:, None].expand(T, 160), torch.zeros(T, 30), y_T[:, None].expand(T, 60)], 1) * scale_N
    return (W_TN + torch.randn(LAYOUT.N, generator=rng)).float()


@pytest.fixture(scope="module")
def method():
    made = CMDPosthoc(modes=2, samples=50)
    made.fit(run_of(planted()))
    return made


@pytest.fixture(scope="module")
def tables(method):
    return method.tables()


def test_the_sample_is_ordered_by_mode_and_the_correlation_is_one_within_and_zero_between(tables):
    sample, correlation = tables["sample"], tables["correlation"]
    assert sample["mode"].is_monotonic_increasing
    assert sample.groupby("mode")["reference"].sum().tolist() == [1, 1]
    assert sample.loc[sample["reference"], "weight"].tolist() == tables["modes"]["reference"].tolist()
    families = sample["tensor"].str.split(".").str[0].groupby(sample["mode"]).unique()
    assert sorted(name for (name,) in families) == ["head", "stem"]
    same = sample["mode"].to_numpy()[:, None] == sample["mode"].to_numpy()
    assert list(correlation) == ["position", *map(str, range(50))]
    np.testing.assert_allclose(correlation.drop(columns="position").to_numpy(), same, atol=1e-3)


def test_within_a_mode_the_linkage_puts_close_weights_side_by_side():
    """Two kinds of motion in one mode, correlated 0.9 between and 1 within, given alternately; another mode apart."""
    kind = np.array([0, 2, 1, 0, 1, 0, 2, 1])
    random_T3 = np.random.default_rng(0).normal(size=(T, 3))
    basis_T3 = np.linalg.qr(random_T3 - random_T3.mean(0))[0]
    motions_T3 = np.stack([basis_T3[:, 0], 0.9 * basis_T3[:, 0] + 0.19**0.5 * basis_T3[:, 1], basis_T3[:, 2]], axis=1)
    mode_K = torch.from_numpy((kind == 2).astype(np.int64))
    order_K, corr_KK = analysis.clustered(Sample(torch.arange(8), torch.from_numpy(motions_T3[:, kind]), mode_K))
    assert float(corr_KK[0, 2]) == pytest.approx(0.9)
    assert sorted(order_K.tolist()) == list(range(8))
    assert mode_K[order_K].tolist() == [0] * 6 + [1] * 2
    assert np.count_nonzero(np.diff(kind[order_K])) == 2


def test_many_samples_are_averaged_in_squares(method, tables, monkeypatch):
    monkeypatch.setattr(analysis, "POOLED", 12)
    pooled = method.tables()["correlation"]
    first = [*range(0, 50, 5)]
    assert pooled["position"].tolist() == first
    assert list(pooled) == ["position", *map(str, first)]
    whole = tables["correlation"].drop(columns="position").to_numpy()
    squares = whole.reshape(10, 5, 10, 5).mean((1, 3))
    np.testing.assert_allclose(pooled.drop(columns="position").to_numpy(), squares, atol=1e-3)


def test_the_last_squares_may_be_smaller(monkeypatch):
    monkeypatch.setattr(analysis, "POOLED", 2)
    corr_KK = torch.tensor([[1, 0.5, 0.2], [0.5, 1, 0.4], [0.2, 0.4, 1]], dtype=torch.float64)
    pooled = analysis.pooled(corr_KK, torch.arange(3))
    assert pooled.to_numpy().tolist() == [[0, 0.75, 0.3], [2, 0.3, 1]]


def test_layers_count_exactly_the_weights_that_moved(tables):
    assert list(tables["layers"]) == ["tensor", "mode", "weights", "share"]
    counts = tables["layers"].pivot_table(index="tensor", columns="mode", values="weights", sort=False)
    head = tables["sample"].loc[tables["sample"]["tensor"] == "head.weight", "mode"].iloc[0]
    assert counts[head].tolist() == [0, 0, 0, 60]
    assert counts[1 - head].tolist() == [120, 40, 0, 0]
    assert tables["layers"].groupby("tensor", sort=False)["share"].sum().tolist() == [100, 100, 0, 100]


def test_histograms_hold_every_weight_that_moved_in_its_bin(tables):
    rho = tables["rho"]
    assert list(rho) == ["mode", "mean_abs_rho", "low", "high", "weights"]
    assert rho["mode"].unique().tolist() == ["0", "1", *analysis.SURROGATES]
    assert rho.groupby("mode")["weights"].sum()[list(analysis.SURROGATES)].tolist() == [220] * 3
    own = rho[rho["mode"].str.isdecimal()]
    assert own["weights"].sum() == 220
    # multiples of one trajectory: |rho| = 1
    assert own.loc[own["high"] == 1.0, "weights"].sum() == 220
    assert own["mean_abs_rho"].to_numpy() == pytest.approx(1, abs=1e-5)


def test_surrogates_are_compared_on_the_weights_that_moved(tables):
    """Steps in one other order leave multiples of a trajectory multiples; in orders of their own they do not."""
    table = tables["surrogates"].set_index("steps")
    assert table.index.tolist() == [analysis.RUN, *analysis.SURROGATES]
    assert table["weights"].tolist() == [220] * 4
    assert table.loc[analysis.RUN, "mean_abs_rho"] == pytest.approx(1, abs=1e-5)
    assert table.loc[analysis.ALIKE, "mean_abs_rho"] == pytest.approx(1, abs=1e-5)
    assert (table.loc[[analysis.PER_WEIGHT, analysis.FLIPPED], "mean_abs_rho"] < 0.9).all()
    means = tables["rho"].groupby("mode")["mean_abs_rho"].first()
    for name in analysis.SURROGATES:
        assert means[name] == table.loc[name, "mean_abs_rho"]


@pytest.mark.parametrize("name", analysis.SURROGATES)
def test_steps_of_a_surrogate(name):
    """Every weight keeps its steps but for order or sign; the order is common to all, or each weight's own."""
    steps_SN = torch.arange(1.0, 601).view(6, 100)
    made_SN = analysis.surrogate_steps(steps_SN, name, torch.Generator().manual_seed(0))
    assert torch.equal(made_SN.abs().sort(0).values, steps_SN)
    assert (made_SN < 0).any() == (name == analysis.FLIPPED)
    orders = {tuple(order) for order in made_SN.abs().argsort(0).T.tolist()}
    # of 100 draws of 720 orders at least 80 are different ones
    assert len(orders) == 1 if name != analysis.PER_WEIGHT else len(orders) > 80
    assert not torch.equal(made_SN, steps_SN)


@pytest.mark.parametrize(("modes", "mean"), [(1, 0.61), (10, 0.76)])
def test_random_walks_are_their_own_surrogates(modes, mean):
    """Walks of 21 points: 0.61 with the most central reference of a sample, 0.76 with the best of ten (found apart).

    The order and the signs of independent steps do not matter."""
    walks_TN = torch.randn(21, 3000, generator=torch.Generator().manual_seed(0)).cumsum(0)
    method = CMDPosthoc(modes=modes, samples=500)
    method.fit(run_of(walks_TN, Layout(("walks",), ((3000,),))))
    table = method.tables()["surrogates"]
    assert table["mean_abs_rho"].to_numpy() == pytest.approx(mean, abs=0.03)


def test_surrogates_do_not_depend_on_the_blocks_that_snapshots_are_read_in(method, tables, monkeypatch):
    monkeypatch.setattr(analysis, "BLOCK_BYTES", 4 * T * 4 * 7)
    monkeypatch.setattr(analysis, "COUNT_BYTES", 4 * 11)
    assert method.tables()["surrogates"].equals(tables["surrogates"])


@pytest.fixture(scope="module")
def whole(method):
    """The method's fit with the correlations of all weights."""
    return CMD(**{name: value for name, value in method.fitted().items() if name != "ts"}, ts=method.cmd.ts)


def test_of_many_weights_surrogates_have_some(method, whole, monkeypatch):
    """Each that moved is as likely, and none that did not: 40 of the stem's and the head's 160 and 60."""
    monkeypatch.setattr(analysis, "DRAWN_WEIGHTS", 40)
    drawn = np.zeros(LAYOUT.N)
    for seed in range(100):
        run = replace(method.run, rng=lambda _, seed=seed: torch.Generator().manual_seed(seed))
        drawn[analysis.draw_moving(whole, method.report, run)] += 1
    assert drawn[160:190].sum() == 0
    # 100 draws of 40 out of 220: 18.2 with a deviation of 3.9, of which five are allowed
    assert np.abs(np.delete(drawn, range(160, 190)) - 4000 / 220).max() < 20


def test_chosen_weights_are_of_both_modes_no_references_and_their_model_is_exact(tables):
    table = tables["trajectories"]
    assert list(table) == ["weight", "tensor", "mode", "rho", "epoch", "base", "post-hoc CMD", "DMD"]
    chosen = table.groupby("weight", sort=False).first()
    assert len(chosen) == analysis.PANELS
    assert set(chosen["mode"]) == {0, 1}
    assert not set(chosen.index) & set(tables["modes"]["reference"])
    assert {"stem.weight", "stem.bias", "head.weight"} == set(chosen["tensor"])
    np.testing.assert_allclose(table["post-hoc CMD"], table["base"], atol=1e-5)
    for weight, own in table.groupby("weight"):
        assert own["base"].tolist() == planted()[:, weight].tolist()
        assert own["epoch"].tolist() == list(range(1, T + 1))


def test_members_are_found_by_their_rank_in_blocks(method, whole, monkeypatch):
    """The mode of the stem holds the weights 0..159, that of the head 190..249."""
    monkeypatch.setattr(analysis, "COUNT_BYTES", 4 * 7)
    report, cmd = method.report, whole
    stem = 0 if report.size_LM[0][0] else 1
    rank_R = torch.tensor([159, 0, 3, 3])
    assert analysis._members(cmd, stem, rank_R, LAYOUT.N).tolist() == [159, 0, 3, 3]
    assert analysis._members(cmd, 1 - stem, torch.tensor([59, 0]), LAYOUT.N).tolist() == [249, 190]
    assert analysis._members(cmd, None, torch.tensor([219, 159, 160]), LAYOUT.N).tolist() == [249, 159, 190]


# Three motions over four snapshots, orthogonal to each other and of mean 0, each of squared length 4.
WALSH_4 = torch.tensor([[1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]], dtype=torch.float64)


def shares(W_TN, modes):
    cmd = CMD.fit(W_TN.float(), modes=modes, samples=W_TN.shape[1], seed=0)
    table, _ = analysis.unexplained(cmd, run_of(W_TN.float(), SINGLE).trajectory, W_TN.shape[1])
    assert list(table) == ["fit", "dimension", "share"]
    return {(fit, dimension): share for fit, dimension, share in table.itertuples(index=False)}


def test_principal_components_leave_the_smaller_motions():
    """Weights with squared motions 16, 4 and 4: the first component holds 16 of 24, the second 4 more."""
    W_TN = torch.stack([2 * WALSH_4[0], WALSH_4[1], WALSH_4[2]], 1) + 7.0
    found = shares(W_TN, modes=2)
    assert found["time mean", 0] == 1.0
    assert found["principal components", 1] == pytest.approx(8 / 24, abs=1e-6)
    assert found["principal components", 2] == pytest.approx(4 / 24, abs=1e-6)


def test_cmd_explains_a_weight_by_its_correlation_with_the_reference():
    """One mode, three weights: the reference moves as u, and the others as (3 u + 4 v) / 5, whose correlation with u is
    0.6 by construction: 0.36 of their motion is explained, if u is the reference."""
    u, v = WALSH_4[0], WALSH_4[1]
    W_TN = torch.stack([u, (3 * u + 4 * v) / 5, (3 * u - 4 * v) / 5], 1)
    # u has |correlations| 0.6 and 0.6, the others 0.6 and |9 - 16| / 25 = 0.28: u is the most central
    assert shares(W_TN, modes=1)["post-hoc CMD", 1] == pytest.approx(2 * 0.64 / 3, abs=1e-6)


def test_where_nothing_moved_tables_are_left_out():
    method = CMDPosthoc(modes=2, samples=50)
    method.fit(run_of(torch.ones(T, LAYOUT.N)))
    assert set(method.tables()) == {"modes", "layers", "rho", "kernel"}
    assert method.plane() is None


def test_modelled_buffers_are_in_no_table():
    """Tables of the weights are the same with and without; buffers follow the head's trajectory a thousandfold."""
    rows_TN = planted()
    snapshots = [
        Snapshot(t, t, row_N, {"bn.running_mean": 1000 * row_N[-5:].clone(), "bn.count": torch.tensor(t)})
        for t, row_N in enumerate(rows_TN, start=1)
    ]
    plain, modelled = CMDPosthoc(modes=2, samples=50), CMDPosthoc(modes=2, samples=50, model_buffers=True)
    plain.fit(run_of(rows_TN))
    run = run_of(rows_TN)
    modelled.fit(Run(LAYOUT, MemoryTrajectory.of(snapshots), T, 1, run.device, run.rng))
    tables, others = plain.tables(), modelled.tables()
    for name in ("layers", "sample", "correlation", "trajectories", "errors", "surrogates"):
        assert others[name].equals(tables[name]), name
    assert torch.equal(modelled.plane().axes_2N, plain.plane().axes_2N)


def test_a_point_of_the_plane_is_the_model_with_both_references_there(method):
    """CMD is exact here: at the path's points it is the run, at the origin its time average."""
    plane, rows_TN = method.plane(), planted()
    assert plane.ts == tuple(range(1, T + 1))
    for row_N, (u, v) in zip(rows_TN, plane.path_T2.tolist(), strict=True):
        point_N = plane.origin_N + u * plane.axes_2N[0] + v * plane.axes_2N[1]
        torch.testing.assert_close(point_N, row_N, atol=1e-5, rtol=0)
    torch.testing.assert_close(plane.origin_N, rows_TN.mean(0), atol=1e-5, rtol=0)
    assert plane.path_T2.dtype == torch.float64
    assert plane.path_T2.std(0, correction=0).tolist() == pytest.approx([1, 1])
    assert plane.labels[0].startswith("reference of the largest mode")


def test_other_modes_stay_where_the_run_ended():
    rng = np.random.default_rng(0)
    W_TN = torch.tensor(rng.normal(size=(T, 3)).cumsum(0)[:, np.arange(30) % 3], dtype=torch.float32)
    cmd = CMD.fit(W_TN, modes=3, samples=30)
    plane = analysis.two_mode_plane(cmd, 30)
    third_N = cmd.mode_N == 2
    assert not plane.axes_2N[:, third_N].any()
    torch.testing.assert_close(plane.origin_N[third_N], W_TN[-1, third_N])


def test_one_mode_spans_no_plane():
    line_TN = torch.arange(T, dtype=torch.float32)[:, None] * torch.ones(4)
    assert analysis.two_mode_plane(CMD.fit(line_TN, modes=1, samples=4), 4) is None


def test_a_report_survives_its_state(method):
    assert ModeReport(**method.report.state_dict()) == method.report
