"""What a file or a folder is, by its content: whose checkpoint, which tensors, and what it says of itself.

Tried in this order: a folder with Hugging Face's index or weights, an adapter, torch's distributed checkpoint,
DeepSpeed's; a file of safetensors, of torch.save, or of torch.save before 1.6.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.checkpoints.distributed import read_deepspeed, read_distributed
from harness.checkpoints.entries import Facts, facts_of, optimized, take
from harness.checkpoints.errors import NoWeights, Unreadable
from harness.checkpoints.places import FLOATING, Place
from harness.checkpoints.safetensors_files import metadata_of, places_of
from harness.checkpoints.torch_files import read_torch
from harness.storage.files import CorruptFile, parsed_json
from harness.validation import reason, shown

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
WHOLE = ("model.safetensors", "adapter_model.safetensors", "pytorch_model.bin", "adapter_model.bin")
STATE = "trainer_state.json"
OPTIMIZER_FILES = ("optimizer.pt", "optimizer.bin")
RECORDED = "traindyn"
"""the entry of a safetensors file's metadata that `harness.live` writes"""
MOST_JSON_BYTES = 1 << 28


@dataclass
class Checkpoint:
    """One recognised checkpoint. `tensors` are in the order of its file, with every name that a tensor has."""

    path: Path
    kind: str
    taken: str
    tensors: dict[str, Place]
    facts: Facts
    parameters: tuple[str, ...] | None = None
    """the weights in the model's order, where the checkpoint says which they are"""
    buffers: tuple[str, ...] = ()
    """names that a recorder says are buffers"""
    files: tuple[Path, ...] = field(default=())


def is_checkpoint_folder(folder: Path) -> bool:
    """Whether a folder is one checkpoint, rather than one that has several."""
    names = (*INDEXES, *WHOLE, ".metadata")
    if any((folder / name).is_file() for name in names) or next(folder.glob("pytorch_model-*-of-*.bin"), None):
        return True
    return _deepspeed(folder) is not None


def _deepspeed(folder: Path) -> Path | None:
    """The folder of DeepSpeed's files that `latest` names, or the folder itself."""
    if next(folder.glob("*mp_rank_*_model_states.pt"), None):
        return folder
    try:
        named = (folder / "latest").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    below = folder / named
    return below if os.sep not in named and next(below.glob("*mp_rank_*_model_states.pt"), None) else None


def looks_like_checkpoint(path: Path) -> bool:
    """Whether a file begins as one of safetensors or of torch.save does."""
    try:
        with open(path, "rb") as file:
            start, size = file.read(512), os.fstat(file.fileno()).st_size
    except OSError:
        return False
    if start.startswith(b"PK\x03\x04"):
        return b"/data.pkl" in start
    if start[8:9] == b"{":
        return int.from_bytes(start[:8], "little") < size
    return start.startswith((b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", b"\x80\x02\x8a\x0a"))


def recognise(path: Path, entry: str = "auto") -> Checkpoint:
    """The checkpoint in a file or folder; Unreadable, one line that begins with its path, where it is none."""
    try:
        found = _of_folder(path, entry) if path.is_dir() else _of_file(path, entry)
    except (OSError, CorruptFile) as error:
        text = f"{error.strerror}: {error.filename or path}" if isinstance(error, OSError) else reason(error)
        raise Unreadable(text if text.startswith(str(path)) else f"{path}: {text}") from error
    found.files = tuple(sorted({file for place in found.tensors.values() for file in place.files}))
    _check_types(found)
    return found


def _check_types(found: Checkpoint) -> None:
    """Unreadable where weights are quantised: integers, or floats of 8 bits, under a weight's name."""
    for name, place in found.tensors.items():
        last = name.rpartition(".")[2]
        eight = str(place.dtype).startswith("torch.float8")
        whole = not place.dtype.is_floating_point and last in ("weight", "qweight", "weight_packed")
        if eight or whole or place.dtype.is_complex:
            kind = "complex" if place.dtype.is_complex else "quantised"
            kinds = ", ".join(str(dtype).removeprefix("torch.") for dtype in FLOATING)
            raise Unreadable(f"{found.path}: {kind} weights: tensor {name} must be of {kinds}, got {place.dtype}")


def _of_file(path: Path, entry: str) -> Checkpoint:
    with open(path, "rb") as file:
        start = file.read(9)
    if start[8:9] == b"{" and not start.startswith(b"PK"):
        return _safetensors(path, entry)
    return _pickled(path, entry)


def _pickled(path: Path, entry: str) -> Checkpoint:
    read = read_torch(path)
    taken = take(read.value, entry, str(path))
    tensors = {name: read.place(tensor) for name, tensor in taken.tensors.items()}
    return Checkpoint(path, "torch.save", taken.name, tensors, facts_of(read.value), taken.parameters)


def _check_entry(entry: str, path: Path) -> None:
    if entry not in ("auto", "raw"):
        raise Unreadable(f"{path}: entry must be auto or raw where a checkpoint has no entries, got {shown(entry)}")


def _safetensors(path: Path, entry: str) -> Checkpoint:
    _check_entry(entry, path)
    tensors = places_of(path)
    found = Checkpoint(path, "safetensors", "all of it", tensors, Facts())
    text = metadata_of(path).get(RECORDED)
    if text is not None:
        _add_recorded(found, _mapping(path, text.encode()))
    elif not tensors:
        raise NoWeights(f"{path}: holds no tensor")
    return found


def _add_recorded(found: Checkpoint, said: dict[str, Any]) -> None:
    """What a recorder of this project said of its snapshot."""

    def names(key: str) -> tuple[str, ...]:
        value = said.get(key) or ()
        return tuple(name for name in value if isinstance(name, str)) if isinstance(value, list | dict | tuple) else ()

    trainable = said.get("trainable")
    order, kept = names("order"), set(names("trainable"))
    found.parameters = tuple(
        name for name in order if name in found.tensors and (trainable is None or trainable is True or name in kept)
    )
    found.buffers = tuple(name for name in names("buffers") if name in found.tensors)
    facts = found.facts
    facts.step, facts.epoch, facts.seed = _count(said.get("step")), _number(said.get("epoch")), _count(said.get("seed"))
    metrics = {name: number for name, v in (said.get("metrics") or {}).items() if (number := _number(v)) is not None}
    if metrics:
        facts.rows = [{**({} if facts.step is None else {"step": facts.step}), **metrics}]


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _number(value: Any) -> float | None:
    plain = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if plain else None


def _mapping(path: Path, text: bytes) -> dict[str, Any]:
    value = parsed_json(text)
    if not isinstance(value, dict):
        raise Unreadable(f"{path}: must hold a mapping, got {shown(value)}")
    return value


def _json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MOST_JSON_BYTES:
        raise Unreadable(f"{path}: more than {MOST_JSON_BYTES} bytes")
    try:
        return _mapping(path, path.read_bytes())
    except CorruptFile as error:
        raise Unreadable(f"{path}: {reason(error)}") from error


def _of_folder(folder: Path, entry: str) -> Checkpoint:
    for name in INDEXES:
        if (folder / name).is_file():
            return _with_state(folder, _sharded(folder / name, entry))
    for name in WHOLE:
        if (folder / name).is_file():
            found = _of_file(folder / name, entry)
            kind = "PEFT adapter" if name.startswith("adapter") else found.kind
            return _with_state(folder, Checkpoint(folder, kind, name, found.tensors, found.facts, found.parameters))
    shards = sorted(folder.glob("pytorch_model-*-of-*.bin"))
    if shards:
        return _with_state(folder, _joined(folder, entry, [shard.name for shard in shards], "shards"))
    if (folder / ".metadata").is_file():
        return _with_state(
            folder, Checkpoint(folder, "torch's distributed checkpoint", *read_distributed(folder, entry))
        )
    own = _deepspeed(folder)
    if own is None:
        raise NoWeights(f"{folder}: a folder without weights")
    return _with_state(folder, Checkpoint(folder, "DeepSpeed", *read_deepspeed(own, entry)))


def _sharded(index: Path, entry: str) -> Checkpoint:
    mapping = _json(index).get("weight_map")
    if not isinstance(mapping, dict) or not mapping or not all(isinstance(name, str) for name in mapping.values()):
        raise Unreadable(f"{index}: weight_map must say in which file each tensor lies")
    found = _joined(index.parent, entry, list(dict.fromkeys(mapping.values())), f"shards of {index.name}")
    lacking = next((name for name in mapping if name not in found.tensors), None)
    if lacking is not None:
        raise Unreadable(
            f"{index.parent / mapping[lacking]}: lacks the tensor {lacking}, which {index.name} places there"
        )
    return found


def _joined(folder: Path, entry: str, names: list[str], taken: str) -> Checkpoint:
    """Several files as one checkpoint; Unreadable, naming it, where one is not there."""
    tensors: dict[str, Place] = {}
    for name in names:
        if os.sep in name or not (folder / name).is_file():
            raise Unreadable(f"{folder / name}: a shard that is not there")
        tensors |= _of_file(folder / name, entry).tensors
    return Checkpoint(folder, "shards", taken, tensors, Facts())


def _with_state(folder: Path, found: Checkpoint) -> Checkpoint:
    """The checkpoint with what files beside its weights say: the trainer's state, and how many tensors were trained."""
    facts = found.facts
    if (folder / STATE).is_file():
        state = _json(folder / STATE)
        facts.step = _count(state.get("global_step"))
        facts.epoch = _number(state.get("epoch"))
        facts.rows = list(_logged(state.get("log_history")))
    for name in OPTIMIZER_FILES:
        if facts.optimized is None and (folder / name).is_file():
            try:
                facts.optimized = optimized(read_torch(folder / name).value)
            except Unreadable:
                facts.optimized = None
    return found


def _logged(history: Any) -> Iterator[dict[str, float]]:
    for row in history if isinstance(history, list) else ():
        numbers = (
            {str(name): n for name, v in row.items() if (n := _number(v)) is not None} if isinstance(row, dict) else {}
        )
        if "step" in numbers:
            yield numbers
