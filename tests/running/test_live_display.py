"""What a person watching a run is shown, on a clock of the test's own, with and without a terminal."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console
from still_clock import still_clock

import harness.running.display
from harness.running.display import Display
from harness.running.events import BatchesDone, EpochEnded, JobResumed

NET, BRANCH = ("net", "data", False), ("net", "data", True)


@pytest.fixture
def clock(monkeypatch):
    return still_clock(monkeypatch, harness.running.display)


class Job:
    """A job, as far as a display looks at it."""

    def __init__(self, label="net-data-sgd-s0", epochs=10, kind="train"):
        self.label, self.epochs, self.kind, self.cells = label, epochs, kind, ()
        config = SimpleNamespace(model=SimpleNamespace(name="net"), data="data")
        self.base = SimpleNamespace(config=config)


def display(epochs, slots=1, width=140, terminal=False, **more):
    console = Console(width=width, force_terminal=terminal, record=True, file=io.StringIO())
    return Display(console, 0, 4, {NET: epochs}, slots, **more), console


def test_time_left_after_two_batches(clock):
    """An epoch of 20 batches at 3 s each takes a minute: 10 of them less the 2 batches."""
    shown, _ = display(10)
    job = Job()
    shown.begin(job)
    assert shown._left_text() == "time left: not known yet"
    clock.now += 6
    shown.batches(job, BatchesDone(1, 2, 20, 40.0, 60.0))
    assert shown._left_text() == "about 9 min 54 s left"


def test_an_expected_time_stands_until_a_pace_is_known(clock):
    shown, _ = display(10, expected={NET: 30.0})
    job = Job()
    shown.begin(job)
    assert shown._left_text() == "about 5 min 00 s left"
    shown.batches(job, BatchesDone(1, 2, 4, 40.0, 60.0))
    assert shown._left_text() == "about 9 min 30 s left"


def test_the_start_of_a_job_is_no_part_of_an_epochs_pace(clock):
    """A minute to start, then 2 of 4 batches in 10 s; the epoch ends after another 10 s: 20 s, and not 80."""
    shown, _ = display(10)
    job = Job()
    shown.begin(job)
    clock.now += 70
    shown.batches(job, BatchesDone(1, 2, 4, 40.0, 20.0))
    clock.now += 10
    shown.epoch(job, EpochEnded(1, 40.0, 50.0))
    assert shown._left_text() == "about 3 min 00 s left"


def test_branches_have_a_pace_of_their_own(clock):
    """An epoch of a base takes a minute with what watches it, one of a branch is expected to take 5 s and takes 10."""
    shown = Display(Console(quiet=True), 0, 4, {NET: 2, BRANCH: 30}, 1, {NET: 60.0, BRANCH: 5.0})
    base, branch = Job(epochs=2), Job(epochs=10, kind="branch")
    shown.begin(base)
    for epoch in (1, 2):
        clock.now += 60
        shown.epoch(base, EpochEnded(epoch, 40.0, 50.0))
    shown.end(base)
    assert shown._left_text() == "about 2 min 30 s left"
    shown.begin(branch)
    clock.now += 10
    shown.epoch(branch, EpochEnded(1, 40.0, 50.0))
    assert shown._left_text() == "about 4 min 50 s left"


def test_the_last_job_is_not_shared_by_the_slots(clock):
    """Two slots, one job of 10 epochs of 60 s: ten minutes."""
    shown, _ = display(10, slots=2)
    job = Job()
    shown.begin(job)
    clock.now += 60
    shown.epoch(job, EpochEnded(1, 40.0, 50.0))
    assert shown._left_text() == "about 9 min 00 s left"


def test_a_resumed_job_says_where_and_no_speed_that_it_does_not_know(clock):
    shown, console = display(10)
    job = Job()
    shown.begin(job)
    shown.resumed(job, JobResumed(5))
    console.print(shown._view())
    text = console.export_text()
    assert "net-data-sgd-s0: resumed at epoch 5/10" in text
    assert "5/10" in text.splitlines()[-1]
    assert " 0 " not in text.splitlines()[-1].replace("0 s", "")
    shown.batches(job, BatchesDone(6, 2, 20, 40.0, 60.0))
    assert shown._left_text() == "about 4 min 54 s left"


def test_plain_lines_hear_of_a_long_epoch(clock):
    """Not at once, and not of one that is over soon."""
    shown, console = display(10)
    job, other = Job(), Job("other")
    shown.begin(job)
    shown.begin(other)
    shown.batches(job, BatchesDone(1, 2, 200, 40.0, 600.0))
    clock.now += 61
    shown.batches(job, BatchesDone(1, 20, 200, 40.0, 600.0))
    shown.batches(job, BatchesDone(1, 21, 200, 40.0, 600.0))
    shown.batches(other, BatchesDone(1, 3, 4, 40.0, 50.0))
    (line,) = console.export_text().splitlines()
    assert line.startswith("net-data-sgd-s0: epoch 1/10: batch 20/200, 40 images/s, 0/4 cells, about ")


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
def test_nothing_is_cut_at_any_width(clock, width):
    """Every word of every column stands whole, in a table or one job below the other."""
    shown, _ = display(100, width=width, terminal=True)
    for seed in range(3):
        job = Job(f"a_model_with_a_name-data-adam-s{seed}", epochs=100)
        shown.begin(job)
        shown.epoch(job, EpochEnded(41, 12345.6, 91.5))
        shown.batches(job, BatchesDone(42, 117, 390, 12345.6, 60.0))
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(shown._view())
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    words = " ".join(lines).replace(",", " ,").split()
    for word in ("images/s", "elapsed", "a_model_with_a_name-data-adam-s2", "42/100", "117/390", "12", "91.50"):
        assert any(word in found for found in words), lines
    assert not any("…" in line or "..." in line for line in lines)
