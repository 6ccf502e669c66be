"""What a person watching a search is shown, on a clock of the test's own."""

import io
from types import SimpleNamespace

import pytest
from optuna.trial import TrialState
from rich.console import Console
from still_clock import still_clock
from studies import by_seed, finished, made, result

import harness.tune.display
from harness.tune.display import TuneDisplay


@pytest.fixture
def clock(monkeypatch):
    return still_clock(monkeypatch, harness.tune.display)


def shown(search, terminal=False):
    console = Console(width=140, record=True, force_terminal=terminal, file=io.StringIO())
    return TuneDisplay(console, [search]), console


class Job:
    """A job of a search's method, as far as a display looks at it."""

    epochs = 6

    def __init__(self, search, kind="replay"):
        self.kind = kind
        self.base = search.problem.bases[0]
        self.label = self.base.config.label
        self.cells = () if kind == "train" else (SimpleNamespace(method=search.method),)


def add(search, *accuracies, **attrs):
    for accuracy in accuracies:
        search.study.add_trial(finished({"modes": 3, "warmup": 2}, by_seed([accuracy] * 3), **attrs))


def test_best_so_far_pace_and_time_left(tmp_path, clock):
    """Of 10 trials 4 were there, and 4 more took a minute: the other 2 take half a minute."""
    search = made(tmp_path, trials=10, default=by_seed([80.0] * 3))
    add(search, 70.0, 71.0, 72.0, 73.0)
    display, console = shown(search)
    display.begin(Job(search))
    clock.now += 60
    add(search, 84.5, 74.0, 75.0, 76.0)
    display.told(search)
    (line,) = console.export_text().splitlines()
    assert line == "cmd_online on net-data-sgd: 8/10 trials, best 84.50 %, 4 trials/min, about 30 s left"


def test_the_clock_of_a_search_does_not_run_while_bases_are_trained(tmp_path, clock):
    search = made(tmp_path, trials=4)
    display, console = shown(search)
    display.begin(Job(search, "train"))
    clock.now += 3600
    display.begin(Job(search))
    clock.now += 30
    add(search, 70.0, 71.0)
    display.told(search)
    first, last = console.export_text().splitlines()
    assert first == "net-data-sgd-s0: trained for the searches on it"
    assert "4 trials/min, about 30 s left" in last


def test_a_search_that_waits_for_another_has_no_pace(tmp_path, clock):
    """The same method on another problem: its clock runs from its own first job on."""
    first, second = made(tmp_path / "one", trials=4), made(tmp_path / "two", trials=4)
    console = Console(width=140, record=True, file=io.StringIO())
    display = TuneDisplay(console, [first, second])
    display.begin(Job(first))
    clock.now += 3600
    display.begin(Job(second))
    clock.now += 30
    add(second, 70.0, 71.0)
    display.told(second)
    assert "4 trials/min, about 30 s left" in console.export_text()


def test_the_default_may_be_the_best(tmp_path, clock):
    search = made(tmp_path, trials=2, default=by_seed([80.0, 81.0, 82.0]))
    display, console = shown(search)
    display.begin(Job(search))
    clock.now += 15
    add(search, 70.0, 60.0)
    display.told(search)
    assert console.export_text().strip() == "cmd_online on net-data-sgd: 2/2 trials, best 81.00 %, 8 trials/min"


def test_failed_and_pruned_trials_are_counted(tmp_path, clock):
    """A loss, of which the least is the best; a refused setting is none of them."""
    search = made(tmp_path, trials=9, metric="loss")
    params = {"modes": 3, "warmup": 2}
    search.study.add_trial(finished(params, by_seed([9.0] * 3, [0.5] * 3), "loss"))
    search.study.add_trial(finished(params, by_seed([8.0] * 3, [0.7] * 3), "loss"))
    search.study.add_trial(finished(params, {}, state=TrialState.PRUNED))
    search.study.add_trial(finished(params, {}, state=TrialState.PRUNED, refused="no"))
    search.study.add_trial(finished(params, {0: result(None)}, state=TrialState.FAIL, error="no"))
    display, console = shown(search)
    display.told(search)
    assert console.export_text().strip() == ("cmd_online on net-data-sgd: 3/9 trials, best 0.5000, 1 failed, 1 pruned")


def test_seconds_as_a_budget(tmp_path, clock):
    """20 of 60 seconds were spent in one minute: 40 more take two. Twelve trials are no limit here."""
    search = made(tmp_path, trials=None, seconds=60)
    display, console = shown(search)
    display.begin(Job(search))
    clock.now += 60
    add(search, 70.0, 71.0, seconds=10.0)
    display.told(search)
    assert "2 trials, 20/60 s, best 71.00 %, 2 trials/min, about 2 min 00 s left" in console.export_text()


def test_a_terminal_shows_every_search_and_job(tmp_path, clock):
    search = made(tmp_path, trials=10)
    display, console = shown(search, terminal=True)
    display.start()
    try:
        job = Job(search)
        display.begin(job)
        display.epoch(job, 3)
        clock.now += 60
        add(search, 80.0, 90.0)
        display.told(search)
        console.print(display._view())
        text = console.export_text()
    finally:
        display.stop()
    for word in ("cmd_online on net-data-sgd", "2/10 trials", "90.00 %", "trials/min", "4 min 00 s", "epoch 3/6"):
        assert word in text, text


def test_why_a_search_ended(tmp_path, clock):
    search = made(tmp_path)
    display, console = shown(search)
    search.ended = "done"
    display.ended(search)
    search.ended = "its base diverged"
    display.ended(search)
    assert console.export_text().strip() == "cmd_online on net-data-sgd: ended: its base diverged"
