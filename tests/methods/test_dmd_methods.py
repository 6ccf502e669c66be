"""DMD as the harness runs it: forecasts from the warm-up alone, CMD's references, and jumps on a scripted session."""

import dataclasses

import numpy as np
import pytest
import torch

from baselines.cmd import CMD
from baselines.cmd_dmd import DMDOfReferences
from baselines.dmd import DMD
from baselines.dmd_forecast import DMDForecast
from baselines.dmd_jumps import DMDJumps
from baselines.dmd_reconstruction import DMDReconstruction
from harness.method import Branch, Layout, Run, Snapshot
from harness.snapshots import MemoryTrajectory

CPU = torch.device("cpu")
N, EPOCHS, WARMUP = 300, 12, 6
LAYOUT = Layout(("first", "second"), ((100,), (20, 10)))


def snapshots():
    """A few driving motions in random proportions, with noise."""
    rng = np.random.default_rng(0)
    W_TN = rng.standard_normal((EPOCHS + 1, 3)).cumsum(0) @ rng.standard_normal((3, N))
    W_TN += 0.3 * rng.standard_normal(W_TN.shape)
    return [Snapshot(t, t, row_N, {}) for t, row_N in enumerate(torch.tensor(W_TN, dtype=torch.float32))]


class Present:
    """Snapshots that come one by one, each read from a window made before it came."""

    def __init__(self, seen, first=0, last=EPOCHS):
        self.seen, self.first, self.last = seen, first, last

    def now(self):
        return MemoryTrajectory.of([snapshot for snapshot in self.seen if self.first <= snapshot.t <= self.last])

    def __len__(self):
        return len(self.now())

    @property
    def ts(self):
        return self.now().ts

    def __getitem__(self, index):
        return self.now()[index]

    def window(self, first, last):
        return Present(self.seen, first, last)

    def blocks(self, max_bytes):
        return self.now().blocks(max_bytes)


def run_of(trajectory):
    return Run(LAYOUT, trajectory, EPOCHS, 3, CPU, lambda purpose: torch.Generator().manual_seed(0))


def watch(method, shown):
    """Proposals by epoch."""
    seen = []
    method.begin(run_of(Present(seen)))
    proposals = {}
    for snapshot in shown:
        seen.append(snapshot)
        method.observe(snapshot)
        proposals[snapshot.t] = method.propose()
    return proposals


def warmup_rows(shown):
    return torch.stack([snapshot.theta_N for snapshot in shown[1 : WARMUP + 2]])


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("offset", ["constant", "none"])
def test_every_later_epoch_is_forecast_from_the_warm_up(offset, clip):
    shown = snapshots()
    proposals = watch(DMDForecast(WARMUP, 3, offset=offset, clip=clip), shown)
    dmd = DMD.fit(warmup_rows(shown), 3, offset=offset)
    for t, proposal in proposals.items():
        assert (proposal is None) == (t <= WARMUP)
        if proposal is not None:
            assert torch.equal(proposal.theta_N, dmd.forecast(t - WARMUP - 1, clip))


@pytest.mark.parametrize("make", [lambda: DMDForecast(WARMUP), lambda: DMDOfReferences(4, 80, WARMUP)])
def test_what_comes_after_the_warm_up_changes_no_forecast(make):
    shown = snapshots()
    other = [
        dataclasses.replace(s, theta_N=s.theta_N.flip(0) * 50 if s.t == 0 or s.t > WARMUP + 1 else s.theta_N)
        for s in shown
    ]
    ours, theirs = watch(make(), shown), watch(make(), other)
    for t in range(WARMUP + 1, EPOCHS + 1):
        assert torch.equal(ours[t].theta_N, theirs[t].theta_N)


def test_state_is_the_inner_products_alone():
    method = DMDForecast(WARMUP)
    watch(method, snapshots())
    state = method.state_dict()
    assert set(state) == {"t", "gram_TT"}
    assert tuple(state["gram_TT"].shape) == (WARMUP + 1, WARMUP + 1)
    assert method.memory_floats(N) == 2 * N


def test_references_are_forecast_and_decoded_through_a_and_b():
    shown = snapshots()
    method = DMDOfReferences(4, 80, WARMUP, rank=2)
    proposals = watch(method, shown)
    assert [t for t, proposal in proposals.items() if proposal is None] == list(range(WARMUP + 1))
    cmd = CMD.fit(warmup_rows(shown), 4, 80, layout=LAYOUT)
    x_TM = cmd.references_TM
    ahead = DMD.fit(x_TM, 2)
    mode_N = cmd.mode_N.long()
    for t in (WARMUP + 1, WARMUP + 3, EPOCHS):
        x_M = ahead.forecast(t - WARMUP - 1).double()
        expected_N = cmd.wbar_N + cmd.a_N * (x_M - x_TM.mean(0))[mode_N]
        torch.testing.assert_close(proposals[t].theta_N, expected_N.float(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            proposals[t].theta_N, (cmd.a_N * x_M[mode_N] + cmd.b_N).float(), rtol=1e-4, atol=1e-4
        )
    tables = method.tables()
    assert set(tables) == {"modes", "layers", "rho", "eigenvalues", "fit"}
    assert len(tables["eigenvalues"]) == 2


def test_reconstruction_is_of_the_whole_run_without_its_beginning():
    shown = snapshots()
    method = DMDReconstruction(rank=3)
    method.fit(run_of(MemoryTrajectory.of(shown)))
    whole = DMD.fit(MemoryTrajectory(torch.stack([s.theta_N for s in shown[1:]]), tuple(range(1, EPOCHS + 1))), 3)
    for t in (1, 5, EPOCHS):
        assert torch.equal(method.reconstruct(t).theta_N, whole.reconstruct(t))
    with pytest.raises(ValueError, match="t must be one of"):
        method.reconstruct(0)


def test_tables_say_what_the_scalars_say():
    method = DMDForecast(WARMUP, rank=4)
    watch(method, snapshots())
    fit = method.tables()["fit"].iloc[0]
    assert (fit["snapshots"], fit["rank_asked"], fit["rank"], fit["cut"]) == (WARMUP + 1, 4, 4, False)
    scalars = method.scalars()
    eigenvalues = method.tables()["eigenvalues"]
    assert scalars["rank"] == len(eigenvalues) == 4
    assert scalars["largest_modulus"] == eigenvalues["modulus"].max() == eigenvalues["modulus"].iloc[0]
    np.testing.assert_allclose(np.hypot(eigenvalues["real"], eigenvalues["imaginary"]), eigenvalues["modulus"])
    assert 0 <= scalars["residual"] == fit["residual"] <= 1
    assert list(eigenvalues.columns) == ["mode", "real", "imaginary", "modulus", "amplitude"]


DECAY = np.array([0.9, 0.6])


class Scripted:
    """A session whose every epoch is one step of linear dynamics about 2, and whose probe losses are given."""

    def __init__(self, losses, warmup=4):
        self.losses = list(losses)
        rng = np.random.default_rng(3)
        self.mode_NR = torch.tensor(rng.standard_normal((N, 2)))
        self.layout, self.device = LAYOUT, CPU
        self.t = warmup + 1
        self.resets, self.probed = 0, []
        rows = [self.at(t).float() for t in range(1, warmup + 2)]
        self.trajectory = MemoryTrajectory.of([Snapshot(t, t, row_N, {}) for t, row_N in enumerate(rows, start=1)])
        self.theta_N = rows[-1].clone()

    def at(self, t):
        return 2 + self.mode_NR @ torch.tensor(DECAY**t)

    def step(self, theta_N):
        """One epoch of training: the same dynamics from wherever it stands."""
        z_R = torch.linalg.lstsq(self.mode_NR, (theta_N.double() - 2)[:, None]).solution[:, 0]
        return (2 + self.mode_NR @ (z_R * torch.tensor(DECAY))).float()

    def probe_loss(self):
        self.probed.append(self.theta_N.clone())
        return self.losses.pop(0)

    def reset_optimizer(self):
        self.resets += 1

    def train_epoch(self):
        self.theta_N.copy_(self.step(self.theta_N))


def train(method, session, epochs):
    """The harness's part: it moves the clock between two calls."""
    for _ in range(epochs):
        method.train_epoch(session)
        session.t += 1


def test_a_jump_is_the_forecast_and_forgets_momentum():
    session, method = Scripted([1.0, 0.5]), DMDJumps(warmup=4, window=3, ahead=3, rank=2)
    method.begin(session)
    train(method, session, 1)
    before_N, tried_N = session.probed
    torch.testing.assert_close(before_N, session.at(5).float())
    torch.testing.assert_close(tried_N, session.at(8).float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(session.theta_N, session.at(9).float(), rtol=1e-4, atol=1e-4)
    assert session.resets == 1
    (row,) = method.tables()["jumps"].to_dict("records")
    assert (row["epoch"], row["loss_before"], row["loss_after"], row["accepted"]) == (5, 1.0, 0.5, True)
    assert (row["rank_asked"], row["rank"]) == (2, 2)


@pytest.mark.parametrize("after", [1.01, float("nan"), float("inf")])
def test_a_jump_that_raises_the_loss_is_taken_back_to_the_last_bit(after):
    session, method = Scripted([1.0, after]), DMDJumps(warmup=4, window=3, rank=2)
    method.begin(session)
    here_N = session.theta_N.clone()
    train(method, session, 1)
    assert torch.equal(session.theta_N, session.step(here_N))
    assert session.resets == 0
    assert method.scalars()["jumps_rejected"] == 1
    assert method.scalars()["jumps_accepted"] == 0
    assert not method.tables()["jumps"]["accepted"].any()


def test_an_equal_loss_does_not_rise():
    session, method = Scripted([1.0, 1.0]), DMDJumps(warmup=4, window=3, rank=2)
    method.begin(session)
    train(method, session, 1)
    assert method.scalars()["jumps_accepted"] == 1


def test_jumps_are_tried_every_window_and_fitted_to_what_came_since_the_last():
    session = Scripted([1.0, 0.5, 0.4, 0.9, 0.3, 0.2])
    method = DMDJumps(warmup=4, window=3, ahead=2, rank=2)
    method.begin(session)
    train(method, session, 8)
    jumps = method.tables()["jumps"]
    assert jumps["epoch"].tolist() == [5, 8, 11]
    assert jumps["accepted"].tolist() == [True, False, True]
    assert session.losses == []
    assert session.resets == 2
    # 8 epochs, and two jumps of 2 that were kept, on dynamics that the jumps know exactly
    torch.testing.assert_close(session.theta_N, session.at(5 + 8 + 4).float(), rtol=1e-4, atol=1e-4)
    assert method.scalars()["jumps_accepted"] == 2


@pytest.mark.parametrize("done", range(1, 7))
def test_state_continues_with_the_same_bits(done):
    losses = [1.0, 0.5, 0.4, 0.9, 0.3, 0.2]
    session, method = Scripted(losses), DMDJumps(warmup=4, window=3, rank=2)
    method.begin(session)
    train(method, session, done)
    resumed_session, resumed = Scripted(losses), DMDJumps(warmup=4, window=3, rank=2)
    resumed.begin(resumed_session)
    resumed_session.theta_N.copy_(session.theta_N)
    resumed_session.t, resumed_session.losses = session.t, list(session.losses)
    resumed.load_state_dict(method.state_dict())
    for each, its_session in ((method, session), (resumed, resumed_session)):
        train(each, its_session, 6 - done)
    assert torch.equal(resumed_session.theta_N, session.theta_N)
    assert resumed.tables()["jumps"].equals(method.tables()["jumps"])


def test_the_state_holds_no_more_than_the_window():
    session, method = Scripted([1.0, 0.5, 0.4, 0.9, 0.3, 0.2]), DMDJumps(warmup=4, window=3, rank=2)
    method.begin(session)
    for expected in (2, 3, 4, 2, 3, 4):
        train(method, session, 1)
        assert len(method.state_dict()["seen_TN"]) == expected
    assert method.memory_floats(N) >= (3 + 1) * N


def test_where_the_branch_leaves_and_what_it_reads():
    assert DMDJumps(warmup=4).branch(12) == Branch(start=5, prefix=5, epochs=7)
    assert DMDJumps(warmup=4).needs(12) == (1, 5)
    assert DMDForecast(warmup=4).needs(12) == (1, 5)
    assert DMDOfReferences(warmup=4).needs(5) == (1, 5)
    assert DMDReconstruction().needs(12) == (1, 12)


@pytest.mark.parametrize("cls", [DMDForecast, DMDOfReferences, DMDJumps])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"warmup": 1}, "warmup must be at least 2, got 1"),
        ({"warmup": 2.5}, "warmup must be a whole number, got 2.5"),
        ({"rank": 0}, "rank must be a whole number of at least 1, energy or gavish_donoho, got 0"),
        ({"warmup": 4, "rank": 4}, "rank must be at most 3, what 5 snapshots span, got 4"),
        ({"energy": 1.5}, "energy must be above 0 and at most 1, got 1.5"),
        ({"offset": "mean"}, "offset must be one of constant, first, none, got 'mean'"),
        ({"clip": "no"}, "clip must be true or false, got 'no'"),
    ],
)
def test_bad_parameters(cls, values, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        cls(**values)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DMDJumps(window=1), "window must be at least 2, got 1"),
        (lambda: DMDJumps(ahead=0), "ahead must be at least 1, got 0"),
        (lambda: DMDJumps(window=3, rank=3), "rank must be at most 2, what 4 snapshots span, got 3"),
        (lambda: DMDOfReferences(modes=2, rank=3), "rank must be at most modes = 2, got 3"),
        (lambda: DMDOfReferences(modes=0), "modes must be at least 1, got 0"),
        (lambda: DMDForecast(warmup=12).needs(12), "warmup must be below epochs = 12, got 12"),
        (lambda: DMDOfReferences(warmup=12).needs(12), "warmup must be below epochs = 12, got 12"),
        (lambda: DMDJumps(warmup=11).branch(12), "warmup must be below epochs - 1 = 11, got 11"),
        (
            lambda: DMDReconstruction(rank=-1),
            "rank must be a whole number of at least 1, energy or gavish_donoho, got -1",
        ),
        (lambda: DMDReconstruction().needs(2), "epochs must give DMD at least 3 snapshots, got 2"),
        (lambda: DMDReconstruction(rank=10).needs(11), "rank must be at most 9, what 11 snapshots span, got 10"),
    ],
)
def test_bad_combinations(make, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        make()


@pytest.mark.parametrize("cls", [DMDForecast, DMDOfReferences])
def test_a_forecast_is_charged_its_warm_up(cls):
    assert cls(warmup=5).epochs_read(20) == 6
    assert cls(warmup=19).epochs_read(20) == 20
