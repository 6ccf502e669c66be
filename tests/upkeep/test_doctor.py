"""What an examination finds in a results folder, and what is gone or whole afterwards."""

import json

import pytest
from command import state

from harness.storage.leases import lease_name
from harness.storage.paths import stored_ts
from harness.storage.store import Store
from harness.upkeep.doctor import BAD, FINE, NOTE, Examination, doctor


def found(results, level=None):
    """Texts of what is found, without the results folder's own path."""
    findings = Examination(results).findings()
    return [f.text.replace(f"{results}/", "") for f in findings if level in (None, f.level)]


def apply(results, *, repair=False, free=False):
    """Do what can be done about it."""
    for finding in Examination(results).findings():
        action = finding.repair if repair and finding.repair is not None else finding.free if free else None
        if action is not None:
            action()


def base_of(results):
    return min((results / "bases").iterdir())


def cell_of(results):
    return min((results / "cells").iterdir())


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def rewrite_plan(results, change):
    path = results / "suites" / "smoke-fast" / "plan.json"
    plan = json.loads(path.read_text())
    change(plan)
    path.write_text(json.dumps(plan))


def keep_two(plan):
    for base in plan["bases"]:
        base["keeps"] = [0, 1]


def test_a_sound_folder_is_read_and_left(results):
    before = state(results)
    assert found(results, BAD) == []
    assert {"cells with a record: 10", "bases that ended: 2", "suite smoke-fast: 10 of 10 cells have a record"} <= set(
        found(results, FINE)
    )
    assert state(results) == before


def test_links_of_wandb_are_its_own(results, capsys):
    """They are neither said nor followed, and what W&B is writing is not taken for a half-written file of ours."""
    run = results / "wandb" / "offline-run-1"
    run.mkdir(parents=True)
    (run / ".half.tmp").write_text("of W&B")
    (results / "wandb" / "latest-run").symlink_to(run)
    (run / "debug-core.log").symlink_to("/dev/null")
    before = state(results)
    doctor(results, repair=True, free=False, say=print)
    assert "link" not in capsys.readouterr().out
    assert state(results) == before


def test_a_damaged_record_is_set_aside_on_request(results):
    cell = cell_of(results)
    flip(cell / "record.json")
    (line,) = found(results, BAD)
    assert line.startswith(f"damaged record: cells/{cell.name}/record.json: ")
    apply(results, repair=True)
    assert not (cell / "record.json").exists()
    assert len(list(cell.glob("record.json.corrupt-*"))) == 1
    assert found(results, BAD) == []


def test_a_damaged_base_and_snapshot(results):
    base = base_of(results)
    flip(base / "base.json")
    flip(base / "trajectory" / "00001.safetensors")
    assert [line.partition(": ")[0] for line in found(results, BAD)] == ["damaged base", "damaged"]
    apply(results, repair=True)
    assert found(results, BAD) == []
    assert not (base / "trajectory" / "00001.safetensors").exists()


def test_files_set_aside_are_dropped_when_room_is_asked_for(results):
    cell = cell_of(results)
    flip(cell / "record.json")
    apply(results, repair=True)
    apply(results, free=True)
    assert not list(results.rglob("*.corrupt-*"))


def test_a_damaged_plan_is_set_aside_and_keeps_all_snapshots_until_then(results):
    """What it keeps is not known."""
    rewrite_plan(results, keep_two)
    (results / "suites" / "other").mkdir()
    (results / "suites" / "other" / "plan.json").write_text("{")
    assert not [line for line in found(results) if "no plan keeps" in line]
    apply(results, repair=True)
    assert [line for line in found(results) if "no plan keeps" in line]


def test_snapshots_that_no_plan_keeps_are_dropped_when_room_is_asked_for(results):
    base = base_of(results)
    rewrite_plan(results, keep_two)
    before = stored_ts(base / "trajectory")
    apply(results, repair=True)
    assert stored_ts(base / "trajectory") == before
    apply(results, free=True)
    assert stored_ts(base / "trajectory") == (0, 1)


def test_a_base_with_an_open_cell_keeps_its_snapshots(results):
    rewrite_plan(results, keep_two)
    cell = cell_of(results)
    base = results / "bases" / json.loads((cell / "record.json").read_text())["base_key"]
    before = stored_ts(base / "trajectory")
    (cell / "record.json").unlink()
    apply(results, free=True)
    assert stored_ts(base / "trajectory") == before
    assert "suite smoke-fast: 9 of 10 cells have a record" in found(results, NOTE)


def test_what_killed_processes_left_is_dropped(results):
    base = base_of(results)
    half = base / ".base.json.12345678.tmp"
    half.write_text("half")
    lease = results / "leases" / "bases-0.json"
    lease.parent.mkdir(exist_ok=True)
    lease.write_text("{}")
    events = results / "engine" / "0123456789ab"
    events.mkdir(parents=True)
    redo = base.with_name(f"{base.name}.redo")
    redo.mkdir()
    notes = found(results, NOTE)
    assert "bases-0: the lease of a process that is gone" in notes
    assert "1 half-written files, 0.0 MB" in notes
    assert "left by a command that was killed: engine/0123456789ab" in notes
    assert f"left by a base that was trained anew: bases/{redo.name}" in notes
    apply(results, repair=True)
    assert not [path for path in (half, lease, events, redo) if path.exists()]


def test_the_only_copy_of_a_base_is_put_back_not_dropped(results):
    """Killed between two renames, a base that was trained anew lies under its old name alone."""
    base = base_of(results)
    base.rename(base.with_name(f"{base.name}.old"))
    apply(results, repair=True)
    assert (base / "base.json").exists()


def test_what_a_running_command_holds_is_not_touched(results):
    base, store = base_of(results), Store(results)
    (base / ".base.json.12345678.tmp").write_text("being written")
    rewrite_plan(results, keep_two)
    before = stored_ts(base / "trajectory")
    with store.leases.take(lease_name(results, base)):
        assert any(line.endswith("works there") for line in found(results, FINE))
        apply(results, repair=True, free=True)
        assert (base / ".base.json.12345678.tmp").exists()
        assert stored_ts(base / "trajectory") == before


@pytest.mark.parametrize(("repair", "code"), [(False, 1), (True, 0)])
def test_the_exit_code_says_whether_something_bad_is_left(results, repair, code):
    flip(cell_of(results) / "record.json")
    said = []
    assert doctor(results, repair, free=False, say=said.append) == code
    (line,) = [line for line in said if line.startswith("bad")]
    assert line.endswith("; set right" if repair else "; repair=true sets it right")


def test_no_folder_yet(tmp_path):
    assert found(tmp_path / "none", NOTE) == [f"no results in {tmp_path / 'none'} yet"]
