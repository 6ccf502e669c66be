"""What files of a results folder may hold, and how large what they ask for may be."""

import io
import json
import struct

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from harness.config import ConfigError
from harness.storage import tensors
from harness.storage.files import CorruptFile, csv_text, read_json
from harness.storage.leases import Leases
from harness.storage.parquet import MOST_BYTES, read_parquet
from harness.storage.schemas import CellRecord, PlanRecord, read_as
from harness.storage.store import Store
from harness.storage.tensors import read_header, read_tensors, write_tensors
from harness.validation import as_name

SEAL = {"status": "done", "history_sha256": ""}
CELL = {
    "cell_key": "c", "base_key": "b", "model": "net", "dataset": "digits", "optimizer": "sgd", "seed": 0,
    "method": "base", "batchnorm": "as_is", "parameters": {},
}  # fmt: skip
PLAN = {"schema": 1, "suite": "quick", "command": "run", "created": "monday", "config": {}, "bases": []}


@pytest.mark.parametrize(
    "name", ["resnet18.a1_in1k", "vit (mine)", "modèle", "модель", "网络", "-x", "a.b-c_d", "x" * 100, "net v2.1"]
)
def test_names_that_people_have(name):
    assert as_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", ".hidden", "a\nb", "a\0b", "a\x1b[31m", "a\u202eb",
     "a\u200bb", "a\u2066b", "\ufeffa", "a\u3164", "x" * 101],
)  # fmt: skip
def test_names_that_are_none(name):
    with pytest.raises(ValueError, match=r"a name of 1 to 100 characters"):
        as_name(name)
    for kind, value in (
        (CellRecord, SEAL | {"model": name}),
        (PlanRecord, PLAN | {"cells": [CELL | {"method": name}]}),
    ):
        with pytest.raises(CorruptFile, match=r"(model|cells\[0\]\.method) must be a name") as caught:
            read_as(kind, value)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"status": "fine"}, "status must be one of done, failed, diverged, skipped, got 'fine'"),
        ({"summary": []}, "summary must be a mapping, got []"),
        ({"summary": {"val_accuracy": "1"}}, "summary.val_accuracy must be a number, got '1'"),
        ({"cost": {"epochs": 10**400}}, "cost.epochs must be"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"seed": True}, "seed must be a whole number, got True"),
        ({"holds": {"epochs": 3}}, "holds"),
        ({"run_id": "../x"}, "run_id must be letters, digits, '.', '_' and '-', got '../x'"),
        ({"base_key": "/tmp"}, "base_key must be letters"),
        ({"versions": {"torch": "2\x1b]0;x\x07"}}, "versions.torch must be text of characters that can be seen"),
        ({"config": {"base": [1]}}, "config.base must be a mapping, got [1]"),
    ],
)
def test_a_record_of_other_types_is_one_line(changes, line):
    with pytest.raises(CorruptFile) as caught:
        read_as(CellRecord, SEAL | changes)
    assert str(caught.value).startswith(line)
    assert str(caught.value).isprintable()


def test_what_an_earlier_version_did_not_write_has_its_place():
    found = read_as(CellRecord, SEAL | {"other": 1})
    assert (found["summary"], found["holds"]["epochs"], found["generation"], found["other"]) == ({}, [], 0, 1)
    found["summary"]["x"] = 1
    assert read_as(CellRecord, SEAL)["summary"] == {}


@pytest.mark.parametrize(
    "text", ["{", "[" * 200_000, '{"a":' * 150 + "1" + "}" * 150, '{"a": ' + "9" * 5000 + "}", "\xff", ""]
)
def test_json_that_is_none_or_too_deep_is_one_line(tmp_path, text):
    path = tmp_path / "plan.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(CorruptFile, match=r"plan\.json: ") as caught:
        read_json(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_store_and_a_lease_of_other_types(tmp_path):
    store = Store(tmp_path)
    for content in ('{"id": "../../x"}', "[]", "{"):
        (tmp_path / "store.json").write_text(content)
        with pytest.raises(ConfigError, match=r"store\.json must hold the id"):
            _ = store.store_id
    leases = Leases(tmp_path)
    leases.folder.mkdir()
    owner = {"token": "t", "host": "h", "pid": 1, "space": "s", "started": "1"}
    for wrong in ({"pid": "../../etc"}, {"pid": -1}, {"host": "h\x1b[2J"}, {"token": [1]}):
        leases.path("bases-b").write_text(json.dumps(owner | wrong))
        assert leases.holder("bases-b") is None


def safetensors(header, data=b""):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(first, last, shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 1 << 40) + b"{}",
        struct.pack("<Q", 2),
        safetensors([]),
        safetensors({"__metadata__": {"t": 1}}),
        safetensors({"w": 1}),
        safetensors({"w": entry(0, 8, [3])}, bytes(8)),
        safetensors({"w": entry(0, 8, [-2])}, bytes(8)),
        safetensors({"w": entry(0, 8, [2], "F77")}, bytes(8)),
        safetensors({"w": entry(0, 400, [100])}, bytes(8)),
        safetensors({"v": entry(0, 8, [2]), "w": entry(4, 12, [2])}, bytes(12)),
        safetensors({"v": entry(0, 8, [2]), "w": entry(12, 20, [2])}, bytes(20)),
        safetensors({"w": entry(0, 8, [2])}, bytes(12)),
        safetensors({"w": entry(0.0, 8, [2])}, bytes(8)),
        safetensors({"w": entry(0, 1 << 61, [1 << 59])}, bytes(8)),
    ],
)
def test_tensors_that_do_not_fit_their_file_are_refused_by_its_header(tmp_path, content):
    path = tmp_path / "00001.safetensors"
    path.write_bytes(content)
    for read in (read_header, read_tensors):
        with pytest.raises(CorruptFile, match=r"00001\.safetensors: "):
            read(path)


def test_tensors_of_all_shapes_come_back(tmp_path):
    given = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(2), "c": torch.empty(0, 3), "d": torch.ones(3) > 0}
    write_tensors(tmp_path / "x.safetensors", given, {"t": "1"})
    found, metadata = read_tensors(tmp_path / "x.safetensors")
    assert metadata["t"] == "1"
    assert all(torch.equal(found[name], tensor) for name, tensor in given.items())


def test_a_sparse_giant_is_refused_before_memory_is_taken(tmp_path, monkeypatch):
    size = 100 << 30
    path = tmp_path / "00001.safetensors"
    path.write_bytes(safetensors({"w": entry(0, size, [size // 4])}))
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size + size)
    monkeypatch.setattr(tensors.np, "fromfile", lambda *a, **k: pytest.fail("read"))
    with pytest.raises(CorruptFile, match=r"of which .* were ever written"):
        read_tensors(path)


def as_parquet(table, **options):
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, **options)
    return buffer.getvalue()


def test_a_table_that_expands_is_refused_before_memory_is_taken():
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, np.int32)), ["x" * 10_000])
    content = as_parquet(pa.table({"text": long}), compression="zstd", store_schema=False)
    assert len(content) * 1000 < 100_000 * 10_000 > MOST_BYTES
    with pytest.raises(CorruptFile, match="its texts have more than"):
        read_parquet(content)
    many = as_parquet(pa.table({"epoch": pa.nulls(60_000_000)}))
    with pytest.raises(CorruptFile, match="60000000 rows of 1 columns"):
        read_parquet(many)


@pytest.mark.parametrize(
    "content",
    [
        b"PAR1",
        b"",
        as_parquet(pa.table({"a\x1b[2J": [1]})),
        as_parquet(pa.table({"a\u202e": [1]})),
        as_parquet(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])),
        as_parquet(pa.table({"a": [[1, 2]]})),
        as_parquet(pa.table({"a": [1]}).replace_schema_metadata({"pandas": '{"index_columns": ["none"]}'})),
    ],
)
def test_a_table_that_is_none_is_one_line(content):
    with pytest.raises(CorruptFile) as caught:
        read_parquet(content)
    assert "\n" not in str(caught.value)


def test_tables_come_back_as_pandas_wrote_them():
    table = pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": [0.5, float("nan")], "d": [b"1", b"2"]})
    table.attrs["plan"] = "of today"
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    found = read_parquet(buffer.getvalue())
    pd.testing.assert_frame_equal(found, pd.read_parquet(buffer))
    assert found.attrs == table.attrs


def test_a_spreadsheet_computes_nothing_of_a_csv():
    """And numbers stay numbers, also those in a column of texts."""
    table = pd.DataFrame({"=name": ["=1+1", "+x", "-x", "@x", "\tx", "plain", "-1.5", None], "n": [-1.5] * 8})
    lines = csv_text(table).splitlines()
    assert lines[0] == "'=name,n"
    first = [line.rpartition(",")[0].strip('"') for line in lines[1:]]
    assert first == ["'=1+1", "'+x", "'-x", "'@x", "'\tx", "plain", "-1.5", ""]
    assert {line.rpartition(",")[2] for line in lines[1:]} == {"-1.5"}
