"""`traindyn doctor` names what is wrong and sets it right; `traindyn merge` makes one results folder of two."""

import json
import os
import shutil

import pytest
from command import assert_same, base_folder, cell_folder, curves, here, numbers, state

RUN = ("run", "suite=smoke", "save=final", "tracker=none")


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def said(done, level):
    return [line for line in done.stdout.splitlines() if line.startswith(level)]


def test_a_sound_folder(smoke):
    before = state(smoke.results)
    done = here("doctor", results=smoke.results)
    assert said(done, "bad") == []
    assert "ok   cells with a record: 18" in done.stdout
    assert "ok   suite smoke: 18 of 18 cells have a record" in done.stdout
    assert state(smoke.results) == before


def test_no_folder_yet(tmp_path):
    assert "no results in" in here("doctor", results=tmp_path / "none").stdout


def test_damage_is_named_set_aside_and_made_anew(smoke, smoke_copy):
    """A record, a history, a snapshot, a base and a plan's leftovers; then one run makes all whole again."""
    record = cell_folder(smoke_copy, "smoke", "swa") / "record.json"
    history = cell_folder(smoke_copy, "smoke", "ema") / "history.parquet"
    snapshot = base_folder(smoke_copy, "smoke", seed=1) / "trajectory" / "00003.safetensors"
    for path in (record, history, snapshot):
        flip(path)
    half = snapshot.with_name(".00004.safetensors.12345678.tmp")
    half.write_bytes(b"half")
    lease = smoke_copy / "leases" / "bases-0.json"
    lease.parent.mkdir(exist_ok=True)
    lease.write_text("{}")
    before = state(smoke_copy)
    done = here("doctor", results=smoke_copy, code=1)
    assert len(said(done, "bad")) == 3
    for path in (record, history, snapshot):
        assert any(str(path) in line and line.endswith("repair=true sets it right") for line in said(done, "bad"))
    assert any("1 half-written files" in line for line in said(done, "note"))
    assert state(smoke_copy) == before
    repaired = here("doctor", "repair=true", results=smoke_copy)
    assert len([line for line in said(repaired, "bad") if line.endswith("; set right")]) == 3
    assert not half.exists()
    assert not lease.exists()
    assert said(here("doctor", results=smoke_copy), "bad") == []
    here(*RUN, results=smoke_copy)
    assert_same(numbers(smoke.results, "smoke"), numbers(smoke_copy, "smoke"))
    assert_same(curves(smoke.results, "smoke"), curves(smoke_copy, "smoke"))


def test_free_drops_what_no_plan_keeps(smoke_copy):
    """With trajectory.keep=warmup only the first snapshots are asked for; nothing else is touched."""
    path = smoke_copy / "suites" / "smoke" / "plan.json"
    plan = json.loads(path.read_text())
    for base in plan["bases"]:
        base["keeps"] = [0, 1]
    path.write_text(json.dumps(plan))
    kept = state(smoke_copy, "cells/**/*", "bases/*/base.json", "bases/*/trajectory/0000[01].safetensors")
    done = here("doctor", "free=true", results=smoke_copy)
    assert any("no plan keeps" in line and line.endswith("; dropped") for line in said(done, "note"))
    assert {p.name for p in smoke_copy.glob("bases/*/trajectory/*")} == {"00000.safetensors", "00001.safetensors"}
    assert state(smoke_copy, "cells/**/*", "bases/*/base.json", "bases/*/trajectory/*") == kept


@pytest.fixture
def halves(smoke, tmp_path):
    """A finished folder in two, of one base each, as two machines would have made them."""
    parts = [tmp_path / "a", tmp_path / "b"]
    for seed, part in enumerate(parts):
        shutil.copytree(smoke.results, part, ignore=shutil.ignore_patterns("wandb"))
        other = base_folder(part, "smoke", seed=1 - seed)
        path = part / "suites" / "smoke" / "plan.json"
        plan = json.loads(path.read_text())
        for cell in plan["cells"]:
            if cell["base_key"] == other.name:
                shutil.rmtree(part / "cells" / cell["cell_key"])
        plan["cells"] = [cell for cell in plan["cells"] if cell["base_key"] != other.name]
        plan["bases"] = [base for base in plan["bases"] if base["base_key"] != other.name]
        path.write_text(json.dumps(plan))
        shutil.rmtree(other)
    return parts


def test_two_folders_become_one(smoke, halves):
    a, b = halves
    before = state(b)
    done = here("merge", f"from={b}", results=a)
    assert "bases: 1 taken over" in done.stdout
    assert "cells: 9 taken over" in done.stdout
    assert state(b) == before
    here("report", "suite=smoke", "figures=none", results=a)
    assert_same(numbers(smoke.results, "smoke"), numbers(a, "smoke"))
    assert_same(curves(smoke.results, "smoke"), curves(a, "smoke"))
    again = here("merge", f"from={b}", results=a)
    assert "cells: 9 here already" in again.stdout


def test_conflicts_are_named_and_nothing_is_replaced(smoke, smoke_copy, tmp_path):
    """The other folder's record holds another accuracy, under its own seal; another of its records is damaged."""
    from harness.storage.store import Store

    other = tmp_path / "other"
    shutil.copytree(smoke.results, other, ignore=shutil.ignore_patterns("wandb"))
    changed, damaged = (cell_folder(other, "smoke", method) for method in ("swa", "ema"))
    store = Store(other)
    record = store.record(changed.name)
    record["summary"]["test_accuracy"] += 1
    store.write_record(record, store.history(changed.name).to_dict("records"))
    flip(damaged / "record.json")
    shutil.rmtree(smoke_copy / "cells" / damaged.name)
    before = state(smoke_copy)
    done = here("merge", f"from={other}", results=smoke_copy, code=1)
    assert f"cell {changed.name} (test_resnet, digits, seed 0) differs in summary" in done.stdout
    assert f"cell {damaged.name}: " in done.stdout
    assert "1 conflicts" in done.stdout
    assert "1 damaged there" in done.stdout
    assert state(smoke_copy) == before


def test_links_are_not_followed(smoke, smoke_copy, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(smoke.results, other, ignore=shutil.ignore_patterns("wandb"))
    secret = tmp_path / "secret.txt"
    secret.write_text("not for others")
    folder = cell_folder(other, "smoke", "swa")
    os.symlink(secret, folder / "stolen.txt")
    shutil.rmtree(smoke_copy / "cells" / folder.name)
    here("merge", f"from={other}", results=smoke_copy)
    assert (smoke_copy / "cells" / folder.name / "record.json").exists()
    assert not (smoke_copy / "cells" / folder.name / "stolen.txt").exists()


def test_a_plan_of_others_cannot_lead_out_of_the_folder(smoke_copy):
    path = smoke_copy / "suites" / "smoke" / "plan.json"
    plan = json.loads(path.read_text())
    plan["cells"][0]["cell_key"] = "../../outside"
    path.write_text(json.dumps(plan))
    done = here("report", "suite=smoke", results=smoke_copy, code=2)
    assert "cell_key must be" in done.stderr
    assert "'../../outside'" in done.stderr
    done = here("report", "suite=../smoke", results=smoke_copy, code=2)
    assert "name must be" in done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("doctor", "repair=maybe"), "repair must be true or false, got 'maybe'"),
        (("doctor", "suite=smoke"), "doctor takes results_dir=, repair=, free= only, got 'suite=smoke'"),
        (("merge",), "from must be given"),
        (("merge", "from=/nonexistent"), "from must be a results folder, got /nonexistent"),
    ],
)
def test_bad_input(smoke, words, expected):
    done = here(*words, results=smoke.results, code=2)
    assert done.stderr.splitlines() == [f"error: {expected}"]


def test_merging_a_folder_into_itself(smoke):
    done = here("merge", f"from={smoke.results}", results=smoke.results, code=2)
    assert "another folder than results_dir" in done.stderr
