"""How long a plan takes, against sums by hand."""

import json
from dataclasses import replace

import pytest

from harness.planning import speed as speeds
from harness.planning.compose import Request
from harness.planning.duration import duration, roughly
from harness.planning.estimate import estimate
from harness.planning.flops import work_left
from harness.planning.plan import make_plan
from harness.planning.resolve import resolve
from harness.planning.summary import cost_text
from harness.storage.store import Store

ASKED = (
    "model=lenet5", "model.lenet5.kwargs.width=1", "dataset=digits", "dataset.digits.resize=16", "device=cpu",
    "epochs=6", "batch_size=100", "method=base", "engine.workers=2",
)  # fmt: skip
EPOCH = 1200
"""training images of an epoch"""


def planned(results, *overrides):
    return make_plan(resolve(Request((*ASKED, f"results_dir={results}", *overrides)), "a test"), Store(results))


def record(plan, key, train, rest, **others):
    """A base like the plan's, as its job records it."""
    folder = plan.store.base_folder(key)
    folder.mkdir(parents=True)
    written = {
        "status": "done",
        "config": json.loads(json.dumps(vars(plan.bases[0].config), default=vars)),
        "seconds": {"train": train, "eval/cell": rest},
        "counts": {"gradients_full": 6 * EPOCH},
        "digests": [""] * 7,
        "threads": 1,
        "machine": speeds.machine(),
    }
    (folder / "base.json").write_text(json.dumps(written | others))


@pytest.fixture
def no_probe(monkeypatch):
    def probe(config, threads):
        raise RuntimeError

    monkeypatch.setattr(speeds, "_probe", probe)
    monkeypatch.setattr(speeds, "remembered", lambda kind, key, find, plain, read: find())


def test_time_follows_from_recorded_bases_of_this_machine(tmp_path, no_probe):
    """60 and 80 s of training with 12 s of all else: 82 s a base in the mean, three of them on two slots."""
    plan = planned(tmp_path, "seeds=[0,1,2]")
    record(plan, "a", 60.0, 12.0)
    record(plan, "b", 80.0, 12.0)
    record(plan, "c", 9999.0, 0.0, machine=speeds.machine() | {"cores": 1024})
    record(plan, "d", 9999.0, 0.0, threads=2)
    record(plan, "e", 9999.0, 0.0, status="failed")
    (tmp_path / "bases/f").mkdir()
    (tmp_path / "bases/f/base.json").write_text("{")
    time = duration(plan)
    assert time.seconds == pytest.approx(3 * 82 / 2)
    assert time.why == "time: as recorded here for lenet5; 2 jobs at once"
    assert time.per_epoch == {
        ("lenet5", "digits", False): pytest.approx(82 / 6),
        ("lenet5", "digits", True): pytest.approx(70 / 6),  # no cell watches a branch
    }
    # one base cannot be shared by two slots
    assert duration(planned(tmp_path, "seeds=[0]")).seconds == pytest.approx(82)


def test_time_follows_from_measured_steps_where_nothing_is_recorded(tmp_path, monkeypatch):
    """0.01 s a trained image, a third of that to evaluate one: 6 epochs of validation, the test at the end."""
    monkeypatch.setattr(speeds, "remembered", lambda kind, key, find, plain, read: 0.01)
    time = duration(planned(tmp_path))
    assert time.seconds == pytest.approx(0.01 * 6 * EPOCH + 0.01 / 3 * (6 * 237 + 360))
    assert "training steps of lenet5 measured here" in time.why


def test_what_is_unknown_is_said_to_be(tmp_path, no_probe):
    plan = planned(tmp_path)
    time = duration(plan)
    assert time.seconds is None
    text = cost_text(plan, estimate(plan), time, work_left(plan))
    assert text.startswith("time unknown, ")
    assert "known after the first batches: nothing like lenet5 is recorded here" in text
    elsewhere = duration(planned(tmp_path, "engine=slurm"))
    assert (elsewhere.seconds, "engine=slurm" in elsewhere.why) == (None, True)


def test_a_probe_trains_the_model_itself(tmp_path):
    config = planned(tmp_path).bases[0].config
    assert 0 < speeds._probe(config, 1) < 10
    with pytest.raises(RuntimeError):
        speeds._probe(replace(config, model=replace(config.model, timm="no_such_model")), 1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2, "5 s"), (44, "45 s"), (58, "1 min"), (430, "7 min"), (5000, "83 min"), (9000, "2.5 h"), (90000, "25 h"),
     (400000, "5 days")],
)  # fmt: skip
def test_a_time_is_as_exact_as_an_estimate(seconds, text):
    assert roughly(seconds) == text
