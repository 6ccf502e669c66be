"""A run that was killed or interrupted at several points ends as an undisturbed one does, to the last bit."""

import hashlib
import json
import re
import signal

import pandas as pd
from command import assert_same, curves, numbers
from offline import offline_runs

from harness.tracking.wandb.transaction_log import read_offline

CELLS = 18


def test_every_attempt_was_ended_on_the_way(interrupted):
    """Each one had something left to do, and none was needed twice for what an earlier one had finished."""
    done = [end.records for end in interrupted.ends.values()]
    assert all(count < CELLS for count in done)
    assert done == sorted(done)
    killed = [name for name, end in interrupted.ends.items() if end.code == -signal.SIGKILL]
    assert killed == ["first bundle", "first record", "in a branch"]


def test_ctrl_c_ends_with_one_line_on_how_to_go_on(interrupted):
    end = interrupted.ends["next bundle"]
    assert end.code == 130
    (line,) = end.stderr.splitlines()
    assert line.startswith("interrupted: run the same command again")
    assert "Traceback" not in end.stdout


def test_frame_and_history_are_those_of_an_undisturbed_run(interrupted, smoke):
    assert_same(numbers(smoke.results, "smoke"), numbers(interrupted.results, "smoke"))
    assert_same(curves(smoke.results, "smoke"), curves(interrupted.results, "smoke"))


def test_weights_are_those_of_an_undisturbed_run(interrupted, smoke):
    """Of the bases after every epoch, by their digests, and of every cell at its end."""
    for path in smoke.results.glob("bases/*/base.json"):
        expected = json.loads(path.read_text())
        got = json.loads((interrupted.results / path.relative_to(smoke.results)).read_text())
        assert len(expected["digests"]) == 7
        assert got["digests"] == expected["digests"]
        assert got["counts"] == expected["counts"]
    finals = sorted(smoke.results.glob("cells/*/weights.safetensors"))
    assert len(finals) == CELLS
    for path in finals:
        other = interrupted.results / path.relative_to(smoke.results)
        assert hashlib.sha256(other.read_bytes()).digest() == hashlib.sha256(path.read_bytes()).digest()


def test_wandb_holds_every_epoch_once(interrupted):
    """Over all fragments of a run, in order: the rows of its record, none twice, none missing."""
    fragments = 0
    for path in interrupted.results.glob("cells/*/record.json"):
        record = json.loads(path.read_text())
        logs = offline_runs(interrupted.results, record["run_id"])
        fragments = max(fragments, len(logs))
        rows = [row for log in logs for row in read_offline(log).history]
        history = pd.read_parquet(path.parent / "history.parquet")
        assert [row["epoch"] for row in rows] == list(history["epoch"])
        assert rows == [{k: v for k, v in row.items() if v == v} for row in history.to_dict("records")]
        assert read_offline(logs[-1]).finished
        assert read_offline(logs[-1]).summary["status"] == "done"
    assert fragments > 1


def test_an_interruption_is_no_new_generation(interrupted):
    for path in interrupted.results.glob("cells/*/record.json"):
        record = json.loads(path.read_text())
        assert record["generation"] == 0
        assert re.fullmatch(rf".+-{record['method']}-[0-9a-f]{{8}}", record["run_id"])


def test_nothing_half_done_is_left_over(interrupted):
    assert not list(interrupted.results.rglob("latest.safetensors"))
    assert not list(interrupted.results.rglob("*.corrupt-*"))
    assert "set aside" not in interrupted.stdout
