"""Whole or absent, and checked when read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.storage import files
from harness.storage.tensors import digest_tensor, pack, read_state, read_tensors, write_state, write_tensors


def test_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "value.json"
    files.write_json(path, {"a": 1})

    def killed_while_writing():
        with files.replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        killed_while_writing()
    assert path.read_text() == '{\n "a": 1\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]


@pytest.fixture
def state():
    return {
        "theta": torch.randn(7),
        "step": 3,
        "nothing": None,
        "nested": {0: {"momentum": torch.arange(4)}, "list": [1.5, (True, "x")], "scalar": torch.tensor(2.0)},
        "bits": torch.tensor([float("nan"), float("inf"), -0.0]),
        "half": torch.randn(3).bfloat16(),
        "array": np.arange(3),
        "empty": torch.empty(0),
    }


def test_state_comes_back_as_it_was(tmp_path, state):
    write_state(tmp_path / "s", state)
    back = read_state(tmp_path / "s")
    assert back.keys() == state.keys()
    assert back["nested"]["list"] == [1.5, (True, "x")]
    assert back["nothing"] is None
    assert back["nested"][0]["momentum"].dtype == torch.int64
    assert back["nested"]["scalar"].shape == ()
    assert np.array_equal(back["array"], state["array"])
    for name in ("theta", "bits", "half", "empty"):
        assert back[name].dtype == state[name].dtype
        assert digest_tensor(back[name]) == digest_tensor(state[name])


def test_state_refuses_what_it_cannot_hold():
    with pytest.raises(TypeError, match="a state may hold"):
        pack({"bad": object()})


def test_every_flipped_byte_is_found(tmp_path):
    path = tmp_path / "t.safetensors"
    write_tensors(path, {"theta_N": torch.randn(5), "n": torch.arange(3)}, {"t": "4"})
    original = path.read_bytes()
    unnoticed = []
    for position in range(len(original)):
        broken = bytearray(original)
        broken[position] ^= 0x04
        path.write_bytes(broken)
        try:
            tensors, metadata = read_tensors(path)
        except files.CorruptFile:
            continue
        # only white space of the header may differ without a difference in what is read
        same = metadata["t"] == "4" and torch.equal(tensors["n"], torch.arange(3))
        if not same:
            unnoticed.append(position)
    assert unnoticed == []


@pytest.mark.parametrize("length", [0, 4, 9, 60, -1])
def test_truncated_file_is_found(tmp_path, length):
    path = tmp_path / "t.safetensors"
    write_tensors(path, {"theta_N": torch.randn(50)}, {})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(files.CorruptFile, match=r"t\.safetensors"):
        read_tensors(path)


def test_non_contiguous_tensors_are_stored_in_logical_order(tmp_path):
    matrix = torch.arange(6.0).view(2, 3).T
    write_tensors(tmp_path / "t", {"m": matrix}, {})
    assert torch.equal(read_tensors(tmp_path / "t")[0]["m"], matrix)
    assert digest_tensor(matrix) == digest_tensor(matrix.contiguous())


def test_set_aside_loses_nothing(tmp_path):
    (tmp_path / "record.json").write_text("broken")
    aside = files.set_aside(tmp_path / "record.json")
    assert not (tmp_path / "record.json").exists()
    assert aside.read_text() == "broken"
