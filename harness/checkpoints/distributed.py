"""Checkpoints of several processes: torch's distributed checkpoints (DCP) and DeepSpeed's."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import torch

from harness.checkpoints.entries import Facts, facts_of, take
from harness.checkpoints.errors import Unreadable
from harness.checkpoints.inert import Inert, StorageOf, TensorOf, read_pickle
from harness.checkpoints.places import Place
from harness.checkpoints.torch_files import read_torch

MOST_SCALARS = 64
"""values beside tensors at the top of a checkpoint that are read"""
Found = tuple[str, dict[str, Place], Facts]
"""the entry that was taken, its tensors, and what the checkpoint says of itself"""


def read_distributed(folder: Path, entry: str) -> Found:
    """A checkpoint of `torch.distributed.checkpoint`: every tensor from the files of all ranks.

    Its `.metadata` is a pickle, which is not run. Unreadable where a part is not there.
    """
    path = folder / ".metadata"
    with open(path, "rb") as file:
        said = read_pickle(file, str(path))
    state = said.state if isinstance(said, Inert) else {}
    described, stored = state.get("state_dict_metadata"), state.get("storage_data")
    if not isinstance(described, dict) or not isinstance(stored, dict):
        raise Unreadable(f"{path}: not the metadata of a distributed checkpoint")
    parts: dict[str, list[tuple[tuple[int, ...], Inert]]] = {}
    for index, info in stored.items():
        if isinstance(index, Inert) and isinstance(info, Inert):
            start = index.state.get("offset")
            start = tuple(map(int, start)) if isinstance(start, tuple) else ()
            parts.setdefault(str(index.state.get("fqn")), []).append((start, info))
    flat = {name: names for name, names in (state.get("planner_data") or {}).items() if isinstance(names, tuple)}
    tree: dict[str, Any] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, own in described.items():
        size = own.state.get("size") if isinstance(own, Inert) else None
        if isinstance(size, tuple):
            shapes[name] = tuple(map(int, size))
            value: Any = TensorOf(StorageOf(name, torch.float32, 0), 0, shapes[name], (), torch.float32)
        elif len(flat.get(name, (name,))) == 1 and len(tree) < MOST_SCALARS:
            value = _scalar(folder, parts.get(name, []))
        else:
            continue
        _put(tree, [str(part) for part in flat.get(name, (name,))], value)
    taken = take(tree, entry, str(folder))
    tensors = {}
    for name, tensor in taken.tensors.items():
        key = tensor.storage.key
        tensors[name] = _whole(folder, key, shapes[key], parts.get(key, []))
    return taken.name, tensors, facts_of(tree)


def _put(tree: dict[str, Any], names: list[str], value: Any) -> None:
    for name in names[:-1]:
        inner = tree.setdefault(name, {})
        if not isinstance(inner, dict):
            return
        tree = inner
    tree[names[-1]] = value


def _at(folder: Path, info: Inert) -> tuple[Path, int, int]:
    """File, first byte and length of one stored part; Unreadable, naming it, where its file is not there."""
    name, first, length = (info.state.get(key) for key in ("relative_path", "offset", "length"))
    if not isinstance(name, str) or "/" in name or not isinstance(first, int) or not isinstance(length, int):
        raise Unreadable(f"{folder / '.metadata'}: says of a part no file and place")
    if not (folder / name).is_file():
        raise Unreadable(f"{folder / name}: a shard that is not there")
    return folder / name, first, length


def _scalar(folder: Path, parts: list[tuple[tuple[int, ...], Inert]]) -> Any:
    """A value beside the tensors, such as a step."""
    return read_torch(*_at(folder, parts[0][1])).value if len(parts) == 1 else None


def _whole(folder: Path, name: str, shape: tuple[int, ...], parts: list[tuple[tuple[int, ...], Inert]]) -> Place:
    """A tensor of one part or of several."""
    chunks = []
    for start, info in parts:
        read = read_torch(*_at(folder, info))
        if not isinstance(read.value, TensorOf):
            raise Unreadable(f"{folder}: a part of {name} that is no tensor")
        chunks.append((start or (0,) * len(shape), read.place(read.value)))
    if sum(chunk.numel for _, chunk in chunks) != prod(shape):
        raise Unreadable(f"{folder}: parts of {name} with other sizes than its {shape}")
    if len(chunks) == 1:
        return chunks[0][1]
    first = chunks[0][1]
    return Place(first.path, first.offset, first.dtype, shape, None, tuple(chunks))


def read_deepspeed(folder: Path, entry: str) -> Found:
    """A checkpoint of DeepSpeed whose weights are whole: of stage 0 to 2 and without parallel tensors."""
    files = sorted(folder.glob("*mp_rank_*_model_states.pt"))
    if not (folder / "mp_rank_00_model_states.pt").is_file():
        raise Unreadable(
            f"{folder}: shards of ZeRO stage 3 hold no whole weights; DeepSpeed's own zero_to_fp32.py, beside them, "
            "joins these into a file that can be adopted"
        )
    if len(files) > 1:
        raise Unreadable(
            f"{folder}: must have one mp_rank_00_model_states.pt with whole weights, got {len(files)} parts"
        )
    read = read_torch(files[0])
    taken = take(read.value, "module" if entry in ("auto", "raw") else entry, str(files[0]))
    tensors = {name: read.place(tensor) for name, tensor in taken.tensors.items()}
    if not any(place.numel for place in tensors.values()):
        raise Unreadable(f"{files[0]}: a shard of ZeRO stage 3, without weights; zero_to_fp32.py beside it joins them")
    return taken.name, tensors, facts_of(read.value)
