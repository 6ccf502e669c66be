"""Two results folders become one: what is taken over, what stays, and what is named."""

import json
import os
import shutil

import pytest
from command import state

from harness.config import ConfigError
from harness.storage.leases import lease_name
from harness.storage.store import Store
from harness.upkeep.merge import merge


@pytest.fixture
def other(fake_results, tmp_path):
    return shutil.copytree(fake_results, tmp_path / "other")


def merged(results, other):
    """The exit code and what was said."""
    said = []
    return merge(results, other, said.append), said


def some_cell(folder):
    return min((folder / "cells").iterdir())


def rewrite(folder, key, **entries):
    """Another record of a cell, under its own seal."""
    store = Store(folder)
    record = store.record(key) | entries
    store.write_record(record, store.history(key).to_dict("records"))


def drop_base(folder):
    """A folder without one of its bases and what belongs to it, as another machine would have left it."""
    base = min((folder / "bases").iterdir())
    path = folder / "suites" / "smoke-fast" / "plan.json"
    plan = json.loads(path.read_text())
    for cell in plan["cells"]:
        if cell["base_key"] == base.name:
            shutil.rmtree(folder / "cells" / cell["cell_key"])
    for name in ("bases", "cells"):
        plan[name] = [entry for entry in plan[name] if entry["base_key"] != base.name]
    path.write_text(json.dumps(plan))
    shutil.rmtree(base)


def test_what_is_lacking_is_taken_over_and_the_other_only_read(results, other):
    drop_base(results)
    before = state(other)
    code, said = merged(results, other)
    assert code == 0
    assert {*said[0].removeprefix("bases: ").split(", ")} == {"1 here already", "1 taken over"}
    assert {*said[1].removeprefix("cells: ").split(", ")} == {"5 here already", "5 taken over"}
    assert said[2] == "suite smoke-fast: 5 cells beside the 5 here"
    assert state(other) == before
    plan = json.loads((results / "suites/smoke-fast/plan.json").read_text())
    assert all(Store(results).record(cell["cell_key"])["status"] == "done" for cell in plan["cells"])
    assert len(plan["cells"]) == 10


def test_into_nothing_it_is_a_copy(other, tmp_path):
    code, said = merged(tmp_path / "new", other)
    assert (code, said) == (0, ["bases: 2 taken over", "cells: 10 taken over", "suite smoke-fast: 10 cells"])


def test_a_conflict_is_named_and_this_folders_is_kept(results, other):
    key = some_cell(other).name
    rewrite(other, key, summary={"val_accuracy": 99.0})
    before = state(results)
    code, said = merged(results, other)
    assert code == 1
    assert f"cell {key} (test_resnet, digits, seed {Store(other).record(key)['seed']}) differs in summary" in said
    assert state(results) == before


@pytest.mark.parametrize(("here", "there"), [("failed", "done"), ("skipped", "done"), ("done", "failed")])
def test_what_is_done_in_either_folder_is_done_afterwards(results, other, here, there):
    key = some_cell(other).name
    rewrite(results, key, status=here)
    rewrite(other, key, status=there)
    code, _ = merged(results, other)
    assert code == 0
    assert Store(results).record(key)["status"] == "done"


def test_what_is_damaged_there_is_not_taken(results, other):
    cell = some_cell(other)
    record = cell / "record.json"
    record.write_text(record.read_text().replace("50.0", "51.0"))
    shutil.rmtree(results / "cells" / cell.name)
    code, said = merged(results, other)
    assert code == 1
    assert any(line.startswith(f"cell {cell.name}: ") for line in said)
    assert not (results / "cells" / cell.name).exists()


def test_links_and_hidden_files_are_not_copied(results, other, tmp_path):
    cell = some_cell(other)
    (tmp_path / "secret").write_text("not for others")
    os.symlink(tmp_path / "secret", cell / "link")
    (cell / ".half.tmp").write_text("half")
    shutil.rmtree(results / "cells" / cell.name)
    merged(results, other)
    copied = {path.name for path in (results / "cells" / cell.name).iterdir()}
    assert copied == {path.name for path in cell.iterdir()} - {"link", ".half.tmp"}


def test_searches_are_taken_where_there_are_none(results, other):
    for number, folder in ((1, other), (2, other), (2, results)):
        study = folder / "tuning" / "smoke" / "swa" / f"problem-{number}"
        study.mkdir(parents=True)
        (study / "journal.log").write_text(str(folder))
    code, said = merged(results, other)
    assert code == 1
    assert "tuning: smoke/swa/problem-2 is in both folders, this one's is kept" in said
    texts = [(results / f"tuning/smoke/swa/problem-{n}/journal.log").read_text() for n in (1, 2)]
    assert texts == [str(other), str(results)]


def test_what_is_no_results_folder_or_in_use_is_refused(results, other, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"^from must be a results folder, got "):
        merge(results, tmp_path / "empty", print)
    with pytest.raises(ConfigError, match=r"^from must be another folder than results_dir, got "):
        merge(results, results, print)
    base = min((other / "bases").iterdir())
    with (
        Store(other).leases.take(lease_name(other, base)),
        pytest.raises(ConfigError, match=r"^from must be a folder that nobody works in, got "),
    ):
        merge(results, other, print)
