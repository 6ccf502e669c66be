"""The public classes in one's own loop: what they give, save and restore, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from baselines.cmd import CMD, OnlineCMD, layout_of, weights_of
from baselines.cmd_online import CMDOnline
from baselines.cmd_posthoc import CMDPosthoc
from harness.method import Layout, Run, Snapshot
from harness.snapshots import MemoryTrajectory
from harness.storage.files import CorruptFile
from harness.storage.paths import snapshot_path
from harness.storage.trajectory import StoredTrajectory, write_snapshot

CPU = torch.device("cpu")


class Net(nn.Module):
    """BatchNorm, a 0-d parameter, a tied one and a frozen one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)
        self.again = nn.Linear(6, 6)
        self.again.weight = self.inner.weight
        self.norm = nn.BatchNorm1d(6)
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, x):
        return self.scale * self.norm(self.again(torch.relu(self.inner(x))))


N = 36 + 6 + 6 + 12 + 1


def train(model, seed):
    torch.manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    model.train()
    for _ in range(3):
        optimizer.zero_grad()
        (model(torch.randn(16, 6)) - 1).pow(2).mean().backward()
        optimizer.step()


def net(seed=0):
    torch.manual_seed(seed)
    return Net()


def walk(T=12, count=200, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(T, 3)).cumsum(0) @ rng.normal(size=(3, count)) + rng.normal(size=(T, count))).astype("f")


def everything(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def test_all_ways_to_give_snapshots_agree_to_the_last_bit(tmp_path):
    rows_TN = walk()
    snapshots = [Snapshot(t, t, torch.from_numpy(row_N), {}) for t, row_N in enumerate(rows_TN)]
    for snapshot in snapshots:
        write_snapshot(tmp_path, snapshot)
    given = [rows_TN, torch.from_numpy(rows_TN), MemoryTrajectory.of(snapshots), StoredTrajectory(tmp_path, CPU)]
    layout = Layout(("first", "second"), ((80,), (12, 10)))
    for options in ({}, {"layout": layout}, {"seed": 3}, {"sample_K": np.arange(40)}):
        fits = [CMD.fit(one, 4, 50, **options) for one in given]
        for other in fits[1:]:
            assert torch.equal(other.reference_M, fits[0].reference_M)
            for t in range(12):
                assert torch.equal(other.reconstruct(t), fits[0].reconstruct(t))


def test_a_mode_is_an_affine_function_of_its_reference():
    rows_TN = walk()
    cmd = CMD.fit(rows_TN, 4, 50)
    assert torch.equal(cmd.references_TM, torch.from_numpy(rows_TN)[:, cmd.reference_M].double())
    x_N = cmd.references_TM[5][cmd.mode_N.long()]
    torch.testing.assert_close((cmd.a_N * x_N + cmd.b_N).float(), cmd.reconstruct(5), rtol=1e-5, atol=1e-5)
    i = 77
    rho = np.corrcoef(rows_TN[:, i], rows_TN[:, int(cmd.reference_M[int(cmd.mode_N[i])])])[0, 1]
    assert float(cmd.rho_N[i]) == pytest.approx(rho, abs=1e-6)


def test_save_and_load(tmp_path):
    layout = Layout(("first", "second"), ((80,), (12, 10)))
    for known in (None, layout):
        cmd = CMD.fit(walk(), 4, 50, layout=known)
        cmd.save(tmp_path / "cmd.safetensors")
        back = CMD.load(tmp_path / "cmd.safetensors")
        assert (back.ts, back.layout) == (cmd.ts, known)
        for name in ("a_N", "b_N", "mode_N", "rho_N", "reference_M", "references_TM"):
            assert torch.equal(getattr(back, name), getattr(cmd, name))
        assert torch.equal(back.reconstruct(11), cmd.reconstruct(11))
    (tmp_path / "other").write_bytes(b"x" * 50)
    with pytest.raises(ValueError, match=r"^path must name a file from CMD.save"):
        CMD.load(tmp_path / "other")


def test_a_damaged_file_of_a_trajectory_is_refused(tmp_path):
    for t, row_N in enumerate(walk()):
        write_snapshot(tmp_path, Snapshot(t, t, torch.from_numpy(row_N), {"a": torch.ones(2), "z": torch.ones(2)}))
    path = snapshot_path(tmp_path, 4)
    data = bytearray(path.read_bytes())
    data[-300] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptFile, match="00004"):
        list(StoredTrajectory(tmp_path, CPU).blocks(400))


@pytest.mark.parametrize(
    ("snapshots", "options", "message"),
    [
        (walk(2), {}, "snapshots must be at least 3, got 2"),
        (np.zeros((4, 0), "f"), {}, "snapshots must have at least 1 weight, got 0"),
        (np.zeros(4, "f"), {}, r"snapshots must have shape \(T, N\), got \(4,\)"),
        (np.zeros((4, 3), int), {}, "snapshots must be floating-point numbers, got torch.int64"),
        (walk(), {"modes": 0}, "modes must be at least 1, got 0"),
        (walk(), {"modes": 9, "samples": 8}, "modes must be at most samples = 8, got 9"),
        (walk(), {"modes": 3, "sample_K": [1, 2]}, "modes must be at most samples = 2, got 3"),
        (walk(), {"modes": 1, "sample_K": [1, 200]}, r"sample_K must lie in 0\.\.199, got 200"),
        (walk(), {"modes": 1, "sample_K": [-1, 2]}, r"sample_K must lie in 0\.\.199, got -1"),
        (walk(), {"modes": 1, "sample_K": [2, 2]}, "sample_K must name 2 different weights, got 1"),
        (walk(), {"layout": Layout(("a", "b"), ((150,), (60,)))}, "layout must have N = 200 weights, got 210: b ends"),
        (walk(), {"layout": Layout(("a", "b"), ((50,), (60,)))}, "layout must have N = 200 weights, got 110: nothing"),
    ],
)
def test_bad_input(snapshots, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        CMD.fit(snapshots, **{"samples": 50, "modes": 4, **options})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("t", [0, 6])
def test_the_first_snapshot_that_is_not_finite_is_named(value, t):
    rows_TN = walk()
    rows_TN[t, 150], rows_TN[9, 3] = value, value
    layout = Layout(("first", "second"), ((80,), (12, 10)))
    with pytest.raises(ValueError, match=f"^snapshot t={t} must be finite, got nan or inf in second$"):
        CMD.fit(rows_TN, 4, 50, layout=layout)
    with pytest.raises(ValueError, match=f"^snapshot t={t} must be finite, got nan or inf in weight 150$"):
        CMD.fit(rows_TN, 4, 50)


def test_weights_of_a_model_are_its_trainable_parameters_once():
    model = net()
    layout = layout_of(model)
    assert layout.N == N == len(weights_of(model))
    assert "again.weight" not in layout.names
    assert ("scale", ()) in zip(layout.names, layout.shapes, strict=True)
    assert "frozen" not in layout.names


@pytest.mark.parametrize("include_initial", [False, True])
def test_online_in_a_loop_is_the_harness_s_observer(include_initial, tmp_path):
    """The same weights as `CMDOnline` proposes on the same snapshots, when both draw by the same generator."""
    model = net()
    own = OnlineCMD(model, 3, warmup=4, samples=40, include_initial=include_initial, folder=tmp_path)
    snapshots = [Snapshot(0, 0, weights_of(model), {})]
    observer = CMDOnline(3, 40, warmup=4, include_initial=include_initial)
    run = Run(layout_of(model), MemoryTrajectory.of([]), 10, 3, CPU, lambda _: torch.Generator().manual_seed(0))
    observer.begin(run)
    for t in range(1, 11):
        train(model, t)
        own.update()
        snapshots.append(Snapshot(t, t, weights_of(model), {}))
        observer.run = Run(run.layout, MemoryTrajectory.of(snapshots), 10, 3, CPU, run.rng)
        observer.observe(snapshots[-1])
        proposal = observer.propose()
        with own.applied() as ready:
            assert ready == (proposal is not None) == (t >= (4 if include_initial else 5))
            expected_N = snapshots[-1].theta_N if proposal is None else proposal.theta_N
            assert torch.equal(weights_of(model), expected_N)
        assert list(tmp_path.iterdir()) == []


def spoil(model):
    model(torch.randn(8, 6))
    model.norm.reset_running_stats()
    raise ZeroDivisionError


def test_training_is_never_touched():
    """Weights, buffers and the path of training are the same bits as without CMD, whatever happens inside."""
    alone, watched = net(), net()
    cmd = OnlineCMD(watched, 2, warmup=2, samples=30)
    for t in range(6):
        train(alone, t)
        train(watched, t)
        cmd.update()
        before = everything(watched)
        with pytest.raises(ZeroDivisionError), cmd.applied(watched):
            spoil(watched)
        assert same(everything(watched), before)
    assert same(everything(watched), everything(alone))


def test_modelled_weights_reach_another_copy_of_the_model():
    model, other = net(), net(1)
    cmd = OnlineCMD(model, 2, warmup=2, samples=30)
    for t in range(5):
        train(model, t)
        cmd.update()
    before = everything(other)
    with cmd.applied(), cmd.applied(other):
        assert torch.equal(weights_of(other), weights_of(model))
        assert other.again.weight is other.inner.weight
    assert same(everything(other), before)


@pytest.mark.parametrize("model_buffers", [False, True])
@pytest.mark.parametrize("cut", [0, 2, 4, 7])
def test_a_state_goes_on_with_the_same_bits(cut, model_buffers, tmp_path):
    def fresh(model):
        return OnlineCMD(model, 3, warmup=3, samples=40, forgetting=0.9, model_buffers=model_buffers)

    model, copy = net(), net()
    cmd = fresh(model)
    for t in range(9):
        if t == cut:
            torch.save(cmd.state_dict(), tmp_path / "state.pt")
            copy.load_state_dict(model.state_dict())
            resumed = fresh(copy)
            resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        for one, its in ((model, cmd), (copy, resumed if t >= cut else None)):
            if its is not None:
                train(one, t)
                its.update()
    with cmd.applied(), resumed.applied():
        assert same(everything(copy), everything(model))
        assert not torch.equal(weights_of(model), torch.zeros(N))


def test_buffers_are_modelled_like_weights():
    """Running statistics are least squares on their mode's reference too; a count of batches is left alone."""
    model = net()
    cmd = OnlineCMD(model, 2, warmup=5, samples=60, model_buffers=True)
    plain = OnlineCMD(model, 2, warmup=5, samples=60)
    means_T6, weights_TN = [], []
    for t in range(9):
        train(model, t)
        cmd.update()
        plain.update()
        means_T6.append(model.norm.running_mean.double().numpy().copy())
        weights_TN.append(weights_of(model).double().numpy())
    with plain.applied():
        without = weights_of(model)
        assert np.array_equal(model.norm.running_mean.numpy(), means_T6[-1].astype("f"))
    count = int(model.norm.num_batches_tracked)
    with cmd.applied():
        assert torch.equal(weights_of(model), without)
        assert int(model.norm.num_batches_tracked) == count
        assert bool((model.norm.running_var >= 0).all())
        for i in range(6):
            x_T = np.array(weights_TN)[:, int(cmd.online.reference_M[int(cmd.online.mode_N[N + i])])]
            slope, intercept = np.polyfit(x_T, np.array(means_T6)[:, i], 1)
            assert float(model.norm.running_mean[i]) == pytest.approx(slope * x_T[-1] + intercept, abs=1e-5)


def test_another_model_s_layout_is_named():
    model = net()
    cmd = OnlineCMD(model, 2, warmup=2, samples=30)
    other = net()
    other.again.bias = nn.Parameter(torch.zeros(7))
    with pytest.raises(ValueError, match=r"model must have .* expected again.bias \(6,\), got again.bias \(7,\)"):
        cmd.applied(other).__enter__()
    with pytest.raises(ValueError, match=r"state_dict must have .* expected again.bias \(7,\), got again.bias \(6,\)"):
        OnlineCMD(other, 2, warmup=2, samples=30).load_state_dict(cmd.state_dict())
    with pytest.raises(ValueError, match=r"^state_dict must have warmup = 3, got 2"):
        OnlineCMD(model, 2, warmup=3, samples=30).load_state_dict(cmd.state_dict())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OnlineCMD(net(), warmup=1), "warmup must be at least 2, got 1"),
        (lambda: OnlineCMD(net(), modes=0), "modes must be at least 1, got 0"),
        (lambda: OnlineCMD(nn.ReLU()), "model must have at least 1 trainable weight, got 0"),
        (lambda: CMDOnline(forgetting=0), "forgetting must be above 0 and at most 1, got 0"),
        (lambda: CMDOnline(forgetting=1.1), "forgetting must be above 0 and at most 1, got 1.1"),
        (lambda: CMDPosthoc(first=-1), "first must be at least 0, got -1"),
        (lambda: CMDPosthoc(first=5, include_initial=True), "first must be 0 or 1 where include_initial is true"),
        (lambda: CMDPosthoc(first=9).needs(10), "epochs must give CMD at least 3 snapshots, got 2"),
    ],
)
def test_bad_parameters(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


def test_weights_that_are_not_finite_are_refused():
    model = net()
    cmd = OnlineCMD(model, 2, warmup=2, samples=30)
    cmd.update()
    with torch.no_grad():
        model.scale.fill_(float("inf"))
    with pytest.raises(ValueError, match=r"^snapshot t=2 must be finite, got nan or inf in scale$"):
        cmd.update()


def test_posthoc_window_and_buffers():
    """From `first` on, and with buffers modelled as every least-squares fit is: the mean over time is exact."""
    model, snapshots = net(), []
    for t in range(9):
        train(model, t)
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        snapshots.append(Snapshot(t, t, weights_of(model), buffers))
    run = Run(layout_of(model), MemoryTrajectory.of(snapshots), 8, 3, CPU, lambda _: torch.Generator().manual_seed(0))
    method = CMDPosthoc(2, 40, first=3, model_buffers=True)
    assert method.needs(8) == (3, 8)
    assert method.proposes_buffers
    method.fit(run)
    proposals = [method.reconstruct(t) for t in range(3, 9)]
    expected = CMD.fit(torch.stack([s.theta_N for s in snapshots[3:]]), 2, 40, layout=run.layout)
    assert torch.equal(proposals[0].theta_N, expected.reconstruct(0))
    modelled, seen = (
        torch.stack([one.buffers["norm.running_mean"] for one in which]).mean(0) for which in (proposals, snapshots[3:])
    )
    torch.testing.assert_close(modelled, seen)
    assert proposals[2].buffers.keys() == snapshots[5].buffers.keys()
    assert int(proposals[2].buffers["norm.num_batches_tracked"]) == int(
        snapshots[5].buffers["norm.num_batches_tracked"]
    )
    with pytest.raises(ValueError, match=r"^t must be in 3\.\.8, got 2"):
        method.reconstruct(2)


def test_a_list_of_snapshots_is_their_stack():
    W_TN = torch.randn(6, 40, generator=torch.Generator().manual_seed(0)).cumsum(0)
    whole, listed = (CMD.fit(snapshots, modes=3, samples=20) for snapshots in (W_TN, [*W_TN]))
    assert torch.equal(whole.a_N, listed.a_N)
    assert torch.equal(whole.mode_N, CMD.fit([row.numpy() for row in W_TN], modes=3, samples=20).mode_N)


@pytest.mark.parametrize(
    ("snapshots", "words"),
    [
        ([torch.zeros(3), torch.zeros(4)], r"vectors of one length, got shapes \(3,\), \(4,\)"),
        ([torch.zeros(3, 2)] * 4, r"vectors of one length, got shapes \(3, 2\)"),
        ([], "vectors of one length, got shapes none"),
        (torch.nn.Linear(2, 2), r"must be \(T, N\), a list of \(N,\) or a trajectory, got Linear"),
    ],
)
def test_what_is_no_snapshots_is_refused(snapshots, words):
    with pytest.raises((ValueError, TypeError), match=words):
        CMD.fit(snapshots)


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got int"):
        weights_of(3)
