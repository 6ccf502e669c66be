"""Nothing below a results folder leads out of it: links are not followed, and only regular files are opened."""

import os

import pytest
from hostile import contents

from harness.config import ConfigError
from harness.storage import inside
from harness.storage.files import read_bytes, set_aside, write_bytes, write_json
from harness.storage.inside import NotFollowed
from harness.storage.store import Store


@pytest.fixture
def outside(tmp_path):
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "file").write_text("a stranger's")
    return folder


@pytest.fixture
def store(tmp_path):
    lines = []
    found = Store(tmp_path / "results", lines.append)
    found.lines = lines
    (found.root / "cells" / "c1").mkdir(parents=True)
    return found


def links(store, outside):
    """A link to a file, a file below a link to a folder, and a pipe."""
    folder = store.root / "cells" / "c1"
    (folder / "file").symlink_to(outside / "file")
    (folder / "folder").symlink_to(outside)
    os.mkfifo(folder / "pipe")
    return [folder / "file", folder / "folder" / "file", folder / "pipe"]


def test_a_reader_finds_nothing_there_and_hears_why_once(store, outside):
    for path in links(store, outside):
        for _ in range(2):
            with pytest.raises(NotFollowed):
                read_bytes(path)
            assert not inside.is_file(path)
    assert inside.entries(store.root / "cells" / "c1") == []
    assert [line.rpartition("/")[2] for line in store.lines] == [
        "file is a link, which is not followed",
        "folder is a link, which is not followed",
        "pipe is no regular file, and is not opened",
    ]


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_bytes(path, b"x"),
        lambda path: inside.open_append(path),
        lambda path: set_aside(path),
        lambda path: inside.rename(path, path.with_name("other")),
        lambda path: inside.remove_folder(path),
        lambda path: inside.lock(path),
    ],
)
def test_a_writer_is_refused_with_one_line_that_names_the_link(store, outside, write):
    before = contents(outside)
    for path in links(store, outside):
        with pytest.raises(
            ConfigError, match=r"^results_dir must hold files and folders alone.* is (a link|no regular)"
        ):
            write(path)
    assert contents(outside) == before


def test_a_file_below_a_link_is_not_removed(store, outside):
    _, path, _ = links(store, outside)
    with pytest.raises(ConfigError, match="is a link"):
        inside.remove(path)
    assert (outside / "file").exists()


def test_what_is_appended_to_a_file_does_not_reach_its_other_name(store, outside):
    path = store.root / "cells" / "c1" / "log.txt"
    os.link(outside / "file", path)
    with inside.open_append(path) as file:
        file.write(b" and ours")
    assert path.read_text() == "a stranger's and ours"
    assert (outside / "file").read_text() == "a stranger's"
    assert [one.name for one in path.parent.iterdir()] == ["log.txt"]


def test_the_folder_itself_and_whole_bases_and_cells_may_lie_elsewhere(tmp_path):
    real, disk = tmp_path / "real", tmp_path / "disk"
    real.mkdir()
    disk.mkdir()
    (tmp_path / "results").symlink_to(real)
    (real / "cells").symlink_to(disk)
    store = Store(tmp_path / "results", pytest.fail)
    store.write_record({"cell_key": "c1", "status": "done"}, [{"epoch": 1}])
    assert store.record("c1")["status"] == "done"
    assert (disk / "c1" / "record.json").is_file()
    assert list(inside.strangers(store.root)) == []


def test_names_lead_nowhere_else(store, outside):
    for name in ("../../outside/file", str(outside / "file"), "a/../../x", ""):
        with pytest.raises(ConfigError):
            inside.below(store.root / "cells", name)
    with pytest.raises(ConfigError, match="leads out"):
        write_json(store.root / "cells" / ".." / ".." / "outside" / "file", 1)
    with pytest.raises(ConfigError, match="name must be letters"):
        store.suite_folder("../../outside")


def test_a_linked_record_is_as_if_absent_and_stays(store, outside):
    store.write_record({"cell_key": "c2", "status": "done"}, [{"epoch": 1}])
    whole = store.cell_folder("c2") / "history.parquet"
    whole.rename(outside / "history.parquet")
    whole.symlink_to(outside / "history.parquet")
    before = contents(store.root), contents(outside)
    assert store.record("c2") is None
    assert store.problem(store.cell_folder("c2"), "record.json") is None
    assert (contents(store.root), contents(outside)) == before
