"""Lists that only grow: what is written is what is new, and a mark says how much of the file is a state's own."""

import json
import math

import numpy as np
import pytest

from harness.storage.files import CorruptFile
from harness.storage.growing import GrowingLists


@pytest.fixture
def lists(tmp_path):
    return GrowingLists(tmp_path / "restart" / "latest.jsonl")


def test_what_was_appended_is_read_as_it_was(lists):
    rows = [{"epoch": 1, "loss": 0.1 + 0.2, "big": 2**60, "none": None, "nan": math.nan, "inf": -math.inf}]
    lists.append({"rows": rows, "digests": ["a", "b"], "later": []})
    rows.append({"epoch": 2, "loss": np.float32(0.1), "count": np.int64(3)})
    mark = lists.append({"rows": rows, "digests": ["a", "b"], "later": [1]})
    found = GrowingLists(lists.path).read(mark)
    assert repr(found["rows"]) == repr([rows[0], {"epoch": 2, "loss": float(np.float32(0.1)), "count": 3}])
    assert (found["digests"], found["later"]) == (["a", "b"], [1])


def test_only_what_is_new_is_written(lists):
    """A thousand calls with a row more each time write lines of the same length."""
    rows, ends = [], [0]
    for epoch in range(1000, 2000):
        rows.append({"epoch": epoch, "loss": 0.5})
        ends.append(lists.append({"rows": rows})["bytes"])
    assert len(set(np.diff(ends))) == 1
    assert lists.path.stat().st_size == ends[-1]


def test_what_lies_behind_the_mark_is_cut_off_and_written_again(lists):
    """A process was killed between the rows and the state that names them."""
    kept = lists.append({"rows": [1, 2]})
    lists.append({"rows": [1, 2, 3]})
    again = GrowingLists(lists.path)
    assert again.read(kept) == {"rows": [1, 2]}
    mark = again.append({"rows": [1, 2, "three"]})
    assert GrowingLists(lists.path).read(mark) == {"rows": [1, 2, "three"]}
    assert [json.loads(line) for line in lists.path.read_text().splitlines()] == [{"rows": [1, 2]}, {"rows": ["three"]}]


def test_one_that_begins_anew_replaces_the_file(lists):
    lists.append({"rows": [1, 2, 3]})
    mark = GrowingLists(lists.path).append({"rows": [4]})
    assert GrowingLists(lists.path).read(mark) == {"rows": [4]}


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_another_file_is_corrupt(lists, damage):
    mark = lists.append({"rows": [1, 2, 3]})
    data = lists.path.read_bytes()
    if damage == "gone":
        lists.remove()
    else:
        lists.path.write_bytes(data[:-2] if damage == "cut" else data.replace(b"2", b"7"))
    with pytest.raises(CorruptFile, match="is gone" if damage == "gone" else "checksum differs"):
        GrowingLists(lists.path).read(mark)


def test_what_is_no_number_or_text_is_refused_and_nothing_is_written(lists):
    with pytest.raises(TypeError, match="numbers and texts"):
        lists.append({"rows": [object()]})
    assert not lists.path.exists()
