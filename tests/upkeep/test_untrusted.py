"""What doctor, merge, run and the tuner do with a folder that has links in it, or that others work in."""

import os

import pytest
from fake_work import plan_of
from hostile import Hostile, contents

from harness.config import ConfigError
from harness.storage.leases import lease_name
from harness.storage.store import Store
from harness.tune.storage import open_storage
from harness.upkeep.doctor import BAD, Examination, doctor
from harness.upkeep.merge import merge


@pytest.fixture
def hostile(fake_results, tmp_path):
    return Hostile(tmp_path, fake_results)


LINKED = {
    "a trajectory": lambda folder: folder.base / "trajectory",
    "a base": lambda folder: folder.base,
    "a cell": lambda folder: folder.cells[0],
    "a record": lambda folder: folder.cells[0] / "record.json",
    "a suite": lambda folder: folder.plan.parent,
    "tables": lambda folder: folder.cells[0] / "tables",
}


@pytest.mark.parametrize("what", LINKED)
@pytest.mark.parametrize("change", ["repair", "free"])
def test_doctor_names_a_link_and_changes_nothing(hostile, what, change):
    path = LINKED[what](hostile)
    hostile.link(path, "record.json" if path.suffix else None)
    before = contents(hostile.results)
    found = [finding.text for finding in Examination(hostile.results).findings() if finding.level == BAD]
    assert f"{path} is a link, which is not followed" in found
    with pytest.raises(ConfigError, match=rf"results_dir must hold files and folders alone.*{path.name} is a link"):
        doctor(hostile.results, repair=change == "repair", free=change == "free", say=lambda line: None)
    assert contents(hostile.results) == before
    assert hostile.unharmed()


@pytest.mark.parametrize("what", ["a base", "a cell", "a trajectory", "a suite"])
def test_a_plan_is_refused_before_it_runs(hostile, what):
    plan = plan_of(hostile.results, "seeds=[0,1]")
    plan.check_folders()
    hostile.link(LINKED[what](hostile))
    with pytest.raises(ConfigError, match=r"is a link, which is not followed$"):
        plan.check_folders()
    assert hostile.unharmed()


def test_a_merge_into_links_is_refused_and_links_there_are_not_taken(hostile, fake_results, tmp_path):
    hostile.link(hostile.cells[0])
    name = hostile.base.name
    hostile.link(hostile.results / "bases" / name / "trajectory")
    with pytest.raises(ConfigError, match="is a link"):
        merge(hostile.results, fake_results, lambda line: None)
    said = []
    merge(tmp_path / "new", hostile.results, said.append)
    assert not list((tmp_path / "new" / "bases" / name).glob("trajectory"))
    assert sum("is a link, which is not followed" in line for line in said) == 2
    assert hostile.unharmed()


def test_a_merge_deletes_nothing_that_is_here(hostile, fake_results):
    """A base that another command trains is left alone; unfinished work and what was set aside are kept."""
    base = hostile.base
    (base / "base.json").rename(base / "base.json.corrupt-1")
    (base / "restart").mkdir(exist_ok=True)
    (base / "restart" / "latest.safetensors").write_text("half-trained")
    before = contents(base)
    said = []
    with Store(hostile.results).leases.take(lease_name(hostile.results, base)):
        assert merge(hostile.results, fake_results, said.append) == 1
    assert said[0] == "bases: 1 worked at here by another command, 1 here already"
    assert contents(base) == before
    assert merge(hostile.results, fake_results, said.append) == 0
    assert Store(hostile.results).base(base.name)["status"] == "done"
    (aside,) = (hostile.results / "bases").glob(f"{base.name}.aside-*")
    assert contents(aside) == before
    codes = [doctor(hostile.results, repair=False, free=False, say=said.append) for _ in range(2)]
    assert codes == [0, 0]
    assert any("1 folders that others were merged in the place of" in line for line in said)


def test_a_merge_copies_no_pipe(hostile, tmp_path):
    hostile.fifo(hostile.cells[0] / "pipe")
    assert merge(tmp_path / "new", hostile.results, lambda line: None) == 0
    assert not (tmp_path / "new" / "cells" / hostile.cells[0].name / "pipe").exists()


def test_a_linked_journal_is_not_written(tmp_path):
    """Nor one whose lines Optuna did not write, which is one line."""
    store = Store(tmp_path / "results", lambda line: None)
    folder = store.root / "tuning" / "smoke" / "ema" / "problem"
    folder.mkdir(parents=True)
    (tmp_path / "journal").write_bytes(b"a stranger's, without a line's end")
    (folder / "journal.log").symlink_to(tmp_path / "journal")
    with pytest.raises(ConfigError, match=r"journal\.log is a link"):
        open_storage(None, folder)
    assert (tmp_path / "journal").read_bytes() == b"a stranger's, without a line's end"
    os.unlink(folder / "journal.log")
    for line in (
        '{"op_code": 4}',
        '{"op_code": 99, "worker_id": "x"}',
        "[]",
        "[" * 5000,
        '{"op_code": 0, "worker_id": 1}',
    ):
        (folder / "journal.log").write_text(line + "\n")
        with pytest.raises(ConfigError, match=r"journal\.log must be a journal of Optuna's") as caught:
            open_storage(None, folder)
        assert "\n" not in str(caught.value)
