"""Observers that are fed, evaluated, failed and resumed, without any model: the evaluator counts what it is asked."""

from types import SimpleNamespace

import pytest
import torch

from harness.causes import Interrupted
from harness.method import Observer, Proposal, Reconstruction, Snapshot
from harness.running.audience import Audience, RunningCell
from harness.storage.files import CorruptFile
from harness.storage.tensors import pack, read_tensors, write_tensors
from harness.training.clock import Clock

EPOCHS = 3
CPU = torch.device("cpu")


class Evaluator:
    """Gives the number of the evaluation as its loss; `asked` has epoch, BatchNorm policy and whether it is the base's
    own weights."""

    flat = SimpleNamespace(layout=SimpleNamespace(N=1))
    device = CPU
    client_accuracy_K = None

    def __init__(self, due=(1, 2, 3)):
        self.config = SimpleNamespace(epochs=lambda epochs: due, reconstructions="every")
        self.asked = []

    def splits(self, last):
        return ("val",)

    def evaluate(self, snapshot, proposal, policy, splits):
        self.asked.append((snapshot.t, policy, proposal is None))
        return {"val_loss": float(len(self.asked))}


class Watching(Observer):
    """Remembers the epochs that it saw; `fails_at` one of them; `proposes` weights of its own, or the base's."""

    def __init__(self, cadence="epoch", fails_at=None, proposes=False, error=None):
        self.cadence, self.fails_at, self.proposes = cadence, fails_at, proposes
        self.error = error or RuntimeError("no more")
        self.seen = []

    def begin(self, run):
        self.run = run

    def observe(self, snapshot):
        if snapshot.t == self.fails_at:
            raise self.error
        self.seen.append(snapshot.step if self.cadence != "epoch" else snapshot.t)

    def propose(self):
        return Proposal(torch.zeros(1)) if self.proposes else None

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = list(state["seen"])


class Fitted(Reconstruction):
    """Proposes weights for every epoch."""

    def fit(self, run):
        self.run = run

    def reconstruct(self, t):
        return Proposal(torch.full((1,), float(t)))


class Snapshots:
    """A trajectory whose every epoch is there."""

    ts = tuple(range(EPOCHS + 1))

    def window(self, first, last):
        return self

    def __getitem__(self, index):
        return at(self.ts[index])


def at(t, step=None):
    return Snapshot(t, 10 * t if step is None else step, torch.zeros(1), {})


def entry(key, method, policy="as_is"):
    cadence = method.cadence if isinstance(method, Observer) else None
    settings = SimpleNamespace(batchnorm=policy, name=key)
    return RunningCell(SimpleNamespace(key=key, cadence=cadence, method=settings, needs=None), method)


def audience_of(*entries, evaluator=None):
    base = SimpleNamespace(epochs=EPOCHS, batch_size=8, seed=0)
    return Audience(base, entries, evaluator or Evaluator(), Clock(CPU), Snapshots(), 10, save_final=False)


def show(audience, *epochs):
    for t in epochs:
        audience.epoch(at(t), {"epoch": t})


def test_every_epoch_is_seen_and_has_a_row_with_or_without_an_evaluation():
    watching = entry("one", Watching())
    audience = audience_of(watching, evaluator=Evaluator(due=(2,)))
    audience.begin()
    audience.start(at(0))
    show(audience, 1, 2, 3)
    audience.finish(at(3))
    assert watching.method.seen == [0, 1, 2, 3]
    assert [row["epoch"] for row in watching.rows] == [1, 2, 3]
    assert [row.get("val_loss") for row in watching.rows] == [None, 1.0, None]
    assert watching.status == "done"


def test_a_method_that_raises_ends_its_own_cell_with_its_traceback():
    bad, good = entry("bad", Watching(fails_at=2)), entry("good", Watching())
    audience = audience_of(bad, good)
    show(audience, 1, 2, 3)
    audience.finish(at(3))
    assert (bad.status, bad.reason) == ("failed", "RuntimeError: no more")
    assert "in observe" in bad.traceback
    assert bad.where.endswith("in observe: raise self.error")
    assert len(bad.rows) == 1
    assert (good.status, len(good.rows)) == ("done", 3)


class Writing(Watching):
    """Writes into what it is shown: the weights, a view of them, or a buffer."""

    def __init__(self, where, cadence="epoch"):
        super().__init__(cadence)
        self.where = where

    def observe(self, snapshot):
        super().observe(snapshot)
        {"weights": snapshot.theta_N, "view": snapshot.theta_N[:1], "buffer": snapshot.buffers["mean"]}[
            self.where
        ].add_(1)


@pytest.mark.parametrize("where", ["weights", "view", "buffer"])
@pytest.mark.parametrize("cadence", ["epoch", 5])
def test_a_method_that_writes_into_a_snapshot_ends_alone_and_nobody_else_sees_it(where, cadence):
    seen = []

    class Reading(Watching):
        def observe(self, snapshot):
            seen.append((snapshot.theta_N.item(), snapshot.buffers["mean"].item()))

    live = Snapshot(1, 10, torch.zeros(1), {"mean": torch.zeros(1)})
    bad, good = entry("bad", Writing(where, cadence)), entry("good", Reading(cadence))
    audience = audience_of(bad, good)
    for _ in range(2):
        if cadence == "epoch":
            audience.epoch(live, {"epoch": 1})
        else:
            audience.step(live)
    assert (live.theta_N.item(), live.buffers["mean"].item()) == (0, 0)
    assert seen == [(0, 0), (0, 0)]
    assert (bad.status, good.status) == ("failed", "running")
    assert bad.reason.startswith("ValueError: observe must leave the snapshot that it is given as it is")


def test_methods_that_keep_what_they_are_shown_without_a_copy_can_be_stored(tmp_path):
    """Both have the same tensor in their states."""

    class Keeping(Watching):
        def observe(self, snapshot):
            self.kept_N = snapshot.theta_N

        def state_dict(self):
            return {"kept_N": self.kept_N}

    audience = audience_of(entry("one", Keeping()), entry("two", Keeping()))
    show(audience, 1)
    tensors, _ = pack(audience.state_dict())
    write_tensors(tmp_path / "state.safetensors", tensors, {})
    assert [tensor.item() for tensor in read_tensors(tmp_path / "state.safetensors")[0].values()] == [0, 0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (torch.zeros(1), "propose of Watching must give a Proposal or None, got Tensor"),
        (Proposal(torch.zeros(3)), "propose of Watching must give 1 weights in one dimension, got (3,)"),
        (Proposal(torch.zeros(1, 1)), "propose of Watching must give 1 weights in one dimension, got (1, 1)"),
        (Proposal([0.0]), "propose of Watching must give 1 weights in one dimension, got list"),
    ],
)
def test_what_a_method_proposes_is_weights_or_none(given, said):
    bad, good = entry("bad", Watching()), entry("good", Watching())
    bad.method.propose = lambda: given
    show(audience_of(bad, good), 1)
    assert (bad.status, bad.reason, good.status) == ("failed", f"ValueError: {said}", "running")


def test_a_method_that_leaves_the_process_ends_its_own_cell():
    bad, good = entry("bad", Watching(fails_at=2, error=SystemExit("enough"))), entry("good", Watching())
    show(audience_of(bad, good), 1, 2)
    assert (bad.status, bad.reason, good.status) == ("failed", "SystemExit: enough", "running")


@pytest.mark.parametrize("error", [CorruptFile("a file"), OSError(28, "No space left on device"), Interrupted(143)])
def test_what_is_no_methods_fault_is_the_jobs_to_deal_with(error):
    bad = entry("bad", Watching(fails_at=1, error=error))
    with pytest.raises(type(error)):
        show(audience_of(bad), 1)
    assert bad.status == "running"


def test_the_bases_own_weights_are_evaluated_once_per_batchnorm_policy():
    evaluator = Evaluator()
    cells = [entry("one", Watching()), entry("two", Watching()), entry("three", Watching(), "recalibrate")]
    own = entry("own", Watching(proposes=True))
    show(audience_of(*cells, own, evaluator=evaluator), 1)
    assert evaluator.asked == [(1, "as_is", True), (1, "recalibrate", True), (1, "as_is", False)]
    assert cells[0].rows[0]["val_loss"] == cells[1].rows[0]["val_loss"] == 1.0


def test_an_observer_of_steps_sees_those_of_its_cadence():
    steps, epochs = entry("steps", Watching(cadence=5)), entry("epochs", Watching())
    audience = audience_of(steps, epochs)
    assert audience.every_step
    for step in range(1, 21):
        audience.step(at(0, step))
    assert steps.method.seen == [5, 10, 15, 20]
    assert epochs.method.seen == []


def test_a_loss_that_is_not_finite_ends_the_cell_as_diverged():
    watching = entry("one", Watching())
    audience = audience_of(watching)
    audience.evaluator.evaluate = lambda *_: {"val_loss": float("inf")}
    show(audience, 1, 2)
    assert (watching.status, watching.reason) == ("diverged", "validation loss not finite at epoch 1")
    assert len(watching.rows) == 1


def test_a_base_that_diverges_takes_along_what_still_runs():
    failed, running = entry("failed", Watching(fails_at=1)), entry("running", Watching())
    audience = audience_of(failed, running)
    show(audience, 1)
    audience.diverge("weights not finite in epoch 2")
    assert [one.status for one in (failed, running)] == ["failed", "diverged"]


def test_columns_of_the_harness_are_not_a_methods_to_name():
    watching = entry("one", Watching())
    watching.method.scalars = lambda: {"val_loss": 1.0}
    show(audience_of(watching), 1)
    assert watching.reason == "ValueError: scalars must not be named val_loss"


def test_a_reconstruction_is_evaluated_at_every_epoch_that_is_due():
    fitted = entry("fit", Fitted())
    evaluator = Evaluator(due=(1, 3))
    audience = audience_of(fitted, evaluator=evaluator)
    audience.reconstruct([{"epoch": t} for t in (1, 2, 3)])
    audience.finish(at(3))
    assert evaluator.asked == [(1, "as_is", False), (3, "as_is", False)]
    assert [row["epoch"] for row in fitted.rows] == [1, 3]
    assert fitted.status == "done"


def test_stopped_and_resumed_it_goes_on_as_if_it_had_not_been():
    """A cell that joined since has missed the beginning, and is dropped."""
    whole = entry("one", Watching())
    show(audience_of(whole), 1, 2, 3)
    first = audience_of(entry("one", Watching()), entry("bad", Watching(fails_at=2)))
    show(first, 1, 2)
    second = audience_of(entry("one", Watching()), entry("bad", Watching()), entry("late", Watching()))
    second.load_state_dict(first.state_dict())
    for cell, before in zip(second.cells, first.cells, strict=True):
        cell.rows = [*before.rows]  # which are stored beside the state
    show(second, 3)
    one, bad = second.cells
    assert one.method.seen == whole.method.seen
    assert [row["epoch"] for row in one.rows] == [1, 2, 3]
    assert (bad.status, bad.reason, len(bad.rows)) == ("failed", "RuntimeError: no more", 1)


def test_a_state_that_cannot_be_stored_is_its_own_cells_failure():
    bad, good = entry("bad", Watching()), entry("good", Watching())
    bad.method.state_dict = lambda: {"value": object()}
    state = audience_of(bad, good).state_dict()
    assert (state["bad"]["method"], bad.status, good.status) == (None, "failed", "running")
