"""Adopted runs in a results folder.

    bases/<base key>/       base.json (`kind` is adopted), history.parquet, tensors.parquet, sources.json
    adopted/<name>.json     the bases of a name, one for every seed, and what it is evaluated with
    adopted/<base key>/     snapshots that were copied or linked, where that was asked for

All else lies where it was adopted, and nothing here writes there.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from harness.checkpoints.runs import AdoptedRun, Source, SourceFile, Tensor, check_same
from harness.config import ConfigError, nearest
from harness.storage import inside
from harness.storage.files import CorruptFile, read_json, write_bytes, write_json
from harness.storage.parquet import read_parquet
from harness.storage.store import SCHEMA, Record, Store
from harness.validation import reason, shown

ADOPTED = "adopted"


@dataclass(frozen=True)
class Named:
    """What a name stands for: the base of every seed, and the timm model and data set that it is, where these were
    given."""

    name: str
    keys: dict[int, str]
    model: str | None = None
    dataset: str | None = None


def names_in(root: Path) -> list[str]:
    """The names of adopted runs in a results folder."""
    return [path.stem for path in inside.files_in(root / ADOPTED, "*.json")]


def read_name(root: Path, name: str) -> Named:
    """The runs of a name; ConfigError where there is no such name, or its file is damaged."""
    path = root / ADOPTED / f"{name}.json"
    if name not in (known := names_in(root)):
        near = nearest(name, known) if known else "; none is adopted there yet: traindyn adopt NAME from=..."
        raise ConfigError(f"adopted must be a name of {root}, got {shown(name)}{near}")
    try:
        value = read_json(path)
        keys = {int(seed): str(key) for seed, key in value["bases"].items()}
        return Named(name, keys, value.get("model"), value.get("dataset"))
    except (CorruptFile, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path}: damaged: {reason(error)}; adopting {name} again makes it anew") from error


def write_name(root: Path, named: Named) -> None:
    bases = {str(seed): key for seed, key in named.keys.items()}
    value = {"schema": SCHEMA, "bases": bases, "model": named.model, "dataset": named.dataset}
    write_json(root / ADOPTED / f"{named.name}.json", value)


def merge_names(here: Store, there: Path, say: Callable[[str], None]) -> bool:
    """Give a results folder, which has the bases already, the names that another has, and the seeds of those that both
    have.

    False where one name stands for other runs in the two, of which this folder's stay, or for a base that is not here.
    """
    whole = True
    for name in names_in(there):
        try:
            whole = _merge_name(here, read_name(there, name), say) and whole
        except ConfigError as error:
            say(str(error))
            whole = False
    return whole


def _merge_name(here: Store, others: Named, say: Callable[[str], None]) -> bool:
    name, own = others.name, Named(others.name, {}, others.model, others.dataset)
    if name in names_in(here.root):
        own = read_name(here.root, name)
    both = others.keys | own.keys
    same = both == own.keys | others.keys and (own.model, own.dataset) == (others.model, others.dataset)
    if not same or check_same([read_run(here, key) for key in both.values()]) is not None:
        say(f"adopted {name} is another run in each of the folders, this one's is kept")
        return False
    if more := len(both) - len(own.keys):
        write_name(here.root, replace(own, keys=dict(sorted(both.items()))))
        say(f"adopted {name}: {more} seeds beside the {len(own.keys)} here")
    return True


def kept_folder(store: Store, key: str) -> Path:
    """Where snapshots of a base lie that were copied or linked."""
    return store.root / ADOPTED / key


def write_run(store: Store, run: AdoptedRun, record: Record, rows: list[dict[str, Any]]) -> None:
    """The files of a base; base.json, which makes it one, comes last."""
    folder = store.base_folder(run.key)
    table = pd.DataFrame(
        {
            "name": [own.name for own in run.tensors],
            "role": [own.role for own in run.tensors],
            "of": [own.of for own in run.tensors],
            "dtype": [own.dtype for own in run.tensors],
            "shape": [json.dumps(own.shape) for own in run.tensors],
            "digests": [" ".join(own.digests) for own in run.tensors],
        }
    ).astype("str")
    table["of"] = [own.of or "" for own in run.tensors]
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    write_bytes(folder / "tensors.parquet", buffer.getvalue())
    write_json(folder / "sources.json", _as_plain(run, kept_folder(store, run.key)))
    store.write_base(record, rows, folder)


def read_run(store: Store, key: str) -> AdoptedRun:
    """The run of a base; ConfigError where its files are damaged, or are those of another base."""
    folder = store.base_folder(key)
    try:
        table, said = read_parquet(folder / "tensors.parquet"), read_json(folder / "sources.json")
        tensors = tuple(
            Tensor(
                name=str(line["name"]),
                role=str(line["role"]),
                of=str(line["of"]) or None,
                dtype=str(line["dtype"]),
                shape=tuple(map(int, json.loads(line["shape"]))),
                digests=tuple(str(line["digests"]).split()),
            )
            for line in table.to_dict("records")
        )
        kept = kept_folder(store, key)
        sources = tuple(_source(one, kept) for one in said["sources"])
        run = AdoptedRun(int(said["seed"]), str(said["unit"]), sources, tensors)
        if run.key != key:
            raise CorruptFile(f"of another base, {run.key}")
    except (OSError, CorruptFile, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ConfigError(f"{folder}: damaged: {reason(error)}; adopting it again makes it anew") from error
    return run


def _as_plain(run: AdoptedRun, kept: Path) -> dict[str, Any]:
    """What `sources.json` holds of a run: paths in the folder of what was kept begin there, so that it may move."""

    def path(text: str) -> str:
        return str(Path(text).relative_to(kept)) if Path(text).is_relative_to(kept) else text

    def plain(source: Source) -> dict[str, Any]:
        files = [{**vars(file), "path": path(file.path)} for file in source.files]
        return {**vars(source), "path": path(source.path), "files": files}

    return {"seed": run.seed, "unit": run.unit, "sources": [plain(source) for source in run.sources]}


def _source(said: dict[str, Any], kept: Path) -> Source:
    def path(text: str) -> str:
        return text if Path(text).is_absolute() else str(inside.below(kept, text))

    files = tuple(SourceFile(**{**file, "path": path(file["path"])}) for file in said["files"])
    return Source(**{**said, "path": path(said["path"]), "files": files})
