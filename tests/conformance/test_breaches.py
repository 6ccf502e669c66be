"""Methods that break one clause each: the suite must find them, by the check and the words that fit."""

import importlib
import sys
from dataclasses import replace
from itertools import count

import pandas as pd
import pytest
import torch

from harness.config import MethodConfig
from harness.conformance import MethodConformance
from harness.conformance.tiny import as_in_a_job, find_subject
from harness.method import Branch, Brancher, Observer, Proposal, Reconstruction
from harness.storage.keys import source_digest

COUNTER = count()


class Present(Observer):
    """Keeps the contract: proposes the present weights."""

    def begin(self, run):
        self.run = run

    def observe(self, snapshot):
        self.theta_N = snapshot.theta_N.clone()

    def propose(self):
        return Proposal(self.theta_N.clone())

    def tables(self):
        return {"kernel": pd.DataFrame({"mode": ["all"], "epoch": [self.run.epochs], "coefficient": [1.0]})}

    def state_dict(self):
        return {"theta_N": self.theta_N}

    def load_state_dict(self, state):
        self.theta_N = state["theta_N"]


class Aliasing(Present):
    def observe(self, snapshot):
        self.theta_N = snapshot.theta_N


class Handing(Aliasing):
    def propose(self):
        return Proposal(self.theta_N)


class Forgetful(Present):
    def begin(self, run):
        self.best_N = None

    def observe(self, snapshot):
        super().observe(snapshot)
        self.best_N = self.theta_N if self.best_N is None else self.best_N

    def propose(self):
        return Proposal(self.best_N.clone())

    def load_state_dict(self, state):
        self.best_N = state["theta_N"]


class Impure(Present):
    def propose(self):
        self.theta_N = self.theta_N * 1.01
        return super().propose()


class Counting(Present):
    asked = 0

    def propose(self):
        self.asked += 1
        return super().propose()

    def state_dict(self):
        return {**super().state_dict(), "asked": self.asked}


class Lending(Present):
    def propose(self):
        return Proposal(self.theta_N)


class Accumulating(Present):
    def observe(self, snapshot):
        if snapshot.t == 0:
            super().observe(snapshot)
        else:
            self.theta_N.add_(snapshot.theta_N)

    def propose(self):
        return Proposal(self.theta_N[:])


class Seeding(Present):
    def begin(self, run):
        torch.manual_seed(0)


class Drawing(Present):
    def observe(self, snapshot):
        super().observe(snapshot)
        self.theta_N += 0 * torch.rand(())


class Irreproducible(Present):
    def observe(self, snapshot):
        super().observe(snapshot)
        self.theta_N += next(COUNTER)


class Meddling(Present):
    def observe(self, snapshot):
        super().observe(snapshot)
        snapshot.theta_N.mul_(0.99)


class Shifting(Present):
    cadence = 1

    def observe(self, snapshot):
        super().observe(snapshot)
        torch.rand(())


class Greedy(Present):
    def needs(self, epochs):
        return 1, 2

    def propose(self):
        self.run.trajectory.window(0, 2)
        return super().propose()


class Thrifty(Present):
    def epochs_read(self, epochs):
        return epochs - 1


class Double(Present):
    def propose(self):
        return Proposal(self.theta_N.double())


class Column(Present):
    def scalars(self):
        return {"val_loss": 0.0}


class Unstorable(Present):
    def state_dict(self):
        return {"theta_N": self.theta_N, "set": {1}}


class Belated(Present):
    def tables(self):
        return {"kernel": super().tables()["kernel"].assign(epoch=self.run.epochs - 1)}


class Halving(Present):
    def tables(self):
        return {"kernel": super().tables()["kernel"].assign(coefficient=0.5)}


class Inventing(Present):
    def tables(self):
        return {"kernel": super().tables()["kernel"].assign(epoch=self.run.epochs - 0.5)}


class Unasking(Present):
    needs_probe = True


class Last(Reconstruction):
    """Keeps the contract: every epoch's weights are the last."""

    def needs(self, epochs):
        return epochs, epochs

    def fit(self, run):
        self.epochs, self.theta_N = run.epochs, run.trajectory[-1].theta_N.clone()

    def reconstruct(self, t):
        return Proposal(self.theta_N.clone())

    def tables(self):
        return {"kernel": pd.DataFrame({"mode": ["all"], "epoch": [self.epochs], "coefficient": [1.0]})}


class Moded(Last):
    def tables(self):
        first = pd.DataFrame({"mode": ["0"], "epoch": [0], "coefficient": [1.0]})
        return {"kernel": pd.concat([first, first.assign(mode="1", epoch=1)])}


class Scribbling(Last):
    def fit(self, run):
        super().fit(run)
        run.trajectory[-1].theta_N.zero_()


class Drifting(Last):
    def reconstruct(self, t):
        self.theta_N += 1
        return super().reconstruct(t)


class Plain(Brancher):
    """Keeps the contract: trains the base on from the middle."""

    def branch(self, epochs):
        return Branch(2, 3, 2)

    def begin(self, session):
        self.epochs = 0

    def train_epoch(self, session):
        session.train_epoch()
        self.epochs += 1
        session.theta_N.mul_(1 - 0.001 * self.epochs)

    def state_dict(self):
        return {"epochs": self.epochs}

    def load_state_dict(self, state):
        self.epochs = state["epochs"]


class Amnesiac(Plain):
    def load_state_dict(self, state):
        pass


class Endless(Plain):
    def branch(self, epochs):
        return Branch(2, epochs + 1, 2)


class Prying(Plain):
    def needs(self, epochs):
        return 2, 3

    def begin(self, session):
        super().begin(session)
        session.trajectory.window(0, 3)


class Idle(Plain):
    def train_epoch(self, session):
        pass


class Restless(Plain):
    def propose(self, session):
        session.theta_N.add_(1)


class Elsewhere(Plain):
    def begin(self, session):
        super().begin(session)
        self.epochs = next(COUNTER)


OBSERVERS = [
    (Aliasing, "observer_copies_what_it_keeps", "copy what you keep"),
    (Handing, "observer_gives_proposals_away", "copy what you keep"),
    (Forgetful, "observer_goes_on_from_its_state", "only what `begin` cannot recompute"),
    (Unstorable, "observer_goes_on_from_its_state", "numbers, strings and None"),
    (Impure, "observer_proposing_changes_nothing", "changes nothing, however often"),
    (Counting, "observer_proposing_changes_nothing", "changes nothing, however often"),
    (Lending, "observer_gives_proposals_away", "never written into"),
    (Accumulating, "observer_gives_proposals_away", "never written into"),
    (Seeding, "observer_seeds_nothing", "seeds nothing"),
    (Drawing, "observer_seeds_nothing", "seeds nothing"),
    (Irreproducible, "observer_repeats_to_the_last_bit", "the same live, replayed"),
    (Meddling, "observer_leaves_the_base_alone", "watches a base"),
    (Shifting, "observer_leaves_the_base_alone", "watches a base"),
    (Greedy, "observer_reads_what_it_needs", "that this method reads"),
    (Thrifty, "observer_reads_as_far_as_it_says", "what was seen by then"),
    (Double, "observer_proposes_weights_and_reports", "float32 trainable parameters"),
    (Column, "observer_proposes_weights_and_reports", "for history and tracking"),
    (Belated, "observer_kernel_is_what_it_proposes", "are no mode's kernel times the snapshots"),
    (Halving, "observer_kernel_is_what_it_proposes", "coefficients of mode all must add up to 1, got 0.5"),
    (Inventing, "observer_kernel_is_what_it_proposes", "which it was not shown"),
]
RECONSTRUCTIONS = [
    (Scribbling, "reconstruction_leaves_snapshots_alone", "read-only"),
    (Drifting, "reconstruction_changes_nothing", "for any epoch"),
    (Moded, "reconstruction_kernel_is_what_it_gives", "are no mode's kernel times the snapshots"),
]
BRANCHERS = [
    (Endless, "branch_lies_within_the_base", "trains `epochs` of its own"),
    (Prying, "brancher_proposes_weights_and_reports", "that this method reads"),
    (Restless, "brancher_proposing_changes_nothing", "changes nothing, however often"),
    (Elsewhere, "branch_from_a_restart_state_equals_one_without", "from a restart state"),
]
JOBS = [
    (Amnesiac, "job_stopped_after_every_epoch_ends_alike", "On resume `begin` runs again"),
    (Idle, "job_is_charged", "counted and timed"),
    (Unasking, "job_is_charged", "one forward pass of the probe's images"),
    (Irreproducible, "job_on_a_trained_base_equals_the_first", "the same live, replayed"),
]


def planned(cls):
    """The class as a cell on the tiny base."""
    subject, method = find_subject("base"), cls()
    config = MethodConfig(cls.__name__.lower(), f"{cls.__module__}.{cls.__name__}", {})
    cell = replace(
        subject.cell,
        key=config.name,
        method=config,
        kind=cls.kind,
        cadence=getattr(method, "cadence", None),
        needs=method.needs(subject.epochs),
        epochs_read=method.epochs_read(subject.epochs),
        branch=method.branch(subject.epochs) if cls.kind == "brancher" else None,
        source=source_digest(cls.__module__),
    )
    return replace(subject, cell=cell, values={"_target_": config.target})


class Held(MethodConformance):
    """The checks, called by name."""


@pytest.fixture(autouse=True)
def one_thread():
    with as_in_a_job(find_subject("base").base.config):
        yield


def check(cls, name, tmp_path):
    """Call one check as pytest would."""
    subject = planned(cls)
    test = getattr(Held(), f"test_{name}")
    wanted = test.__code__.co_varnames[1 : test.__code__.co_argcount]
    values = {"subject": subject, "tmp_path": tmp_path, **dict.fromkeys((cls.kind,), subject.make)}
    test(**{name: values[name] for name in wanted})


BREACHES = [*OBSERVERS, *RECONSTRUCTIONS, *BRANCHERS, *JOBS]
KEEPS = {"observer": Present, "reconstruction": Last, "brancher": Plain}


@pytest.mark.parametrize(("kind", "name"), sorted({(cls.kind, name) for cls, name, _ in BREACHES}))
def test_a_method_that_keeps_the_contract_passes(kind, name, tmp_path):
    check(KEEPS[kind], name, tmp_path)


@pytest.mark.parametrize(("cls", "name", "clause"), BREACHES)
def test_breach_is_found(cls, name, clause, tmp_path):
    with pytest.raises(AssertionError, match=r"^harness/method\.py says") as found:
        check(cls, name, tmp_path)
    assert clause in str(found.value)


@pytest.mark.parametrize(
    "line", ["import harness.storage.files", "from harness import files", "from harness.storage.files import pack"]
)
def test_other_imports_are_found(line, tmp_path, monkeypatch):
    """In a function, and in a file beside the method's own."""
    (tmp_path / "beside_it.py").write_text(f"def write():\n    {line}\n")
    source = "from beside_it import write\nfrom test_breaches import Present\n\nclass Importing(Present):\n    pass\n"
    (tmp_path / "importing.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("importing", "beside_it"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    importing = importlib.import_module("importing")
    with pytest.raises(AssertionError, match=r"imports nothing else from the harness.*beside_it\.py imports harness"):
        check(importing.Importing, "imports_only_the_contract", tmp_path)
