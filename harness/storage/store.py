"""Where results live. A cell's `record.json` and the `history.parquet` beside it are the truth; all else can be
rebuilt from them. Every file is written whole or not at all; records, histories, snapshots and restart states carry
checksums and are checked when they are read.

    bases/<base key>/   base.json, history.parquet, trajectory/, restart/, log.txt
    cells/<cell key>/   record.json, history.parquet, tables/, restart/, weights.safetensors, log.txt
    suites/<view>/      plan.json, and what is shown of exactly its cells
    leases/             who works where at this moment
    engine/<command>/   what the jobs of commands that run at this moment say
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.storage import inside
from harness.storage.checked import KEY, STATUSES, read_as
from harness.storage.files import CorruptFile, read_bytes, read_json, set_aside, write_bytes, write_json
from harness.storage.leases import Leases
from harness.storage.masking import masked
from harness.storage.parquet import MOST_HISTORY_BYTES, read_parquet
from harness.validation import ConfigError, as_name, reason, shown

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
Record = dict[str, Any]
KINDS = {"record.json": "CellRecord", "base.json": "BaseRecord"}
"""what sealed files hold, by their names"""


def _inside(what: str, name: str) -> str:
    """`name`, which must be that of one file or folder."""
    if not isinstance(name, str) or not re.fullmatch(KEY, name):
        raise ConfigError(f"{what} must be letters, digits, '.', '_' and '-', got {shown(name)}")
    return name


def _seal(record: Record) -> str:
    body = {k: v for k, v in record.items() if k != "sha256"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def has_other_weights(base: Record | None, cell: Record) -> bool:
    """Whether a base was trained anew to other weights than those that a cell's numbers are of; not where either does
    not say which it has."""
    now, then = [] if base is None else base["digests"][-1:], cell["base_digest"]
    return bool(now and then and now != then)


def history_bytes(rows: list[dict[str, Any]]) -> bytes:
    """Rows (`epoch` and metrics) as Parquet: epoch int64, all else float64."""
    import pandas as pd  # slow to import, and not needed to see what is done

    frame = pd.DataFrame(rows)
    if "epoch" not in frame:
        frame = pd.DataFrame({"epoch": []})
    kinds = {name: "int64" if name == "epoch" else "float64" for name in frame.columns}
    buffer = io.BytesIO()
    frame.astype(kinds).to_parquet(buffer, index=False)
    return buffer.getvalue()


def _kept(folder: Path, digest: str) -> Path:
    """Where the history of a record waits while another replaces them."""
    return folder / f"history-{digest[:16]}.parquet"


@dataclass(frozen=True)
class _Problem:
    """What is wrong with a stored record; `history`: with its history alone."""

    text: str
    history: bool = False


class Store:
    """One results folder. Keys and names that come from files of others cannot lead out of it: ConfigError."""

    def __init__(self, root: Path, say: Callable[[str], None] = print) -> None:
        self.root = root
        inside.known(root, say)
        self.leases = Leases(root)
        self.say = say

    def base_folder(self, key: str) -> Path:
        return self.root / "bases" / _inside("base_key", key)

    def cell_folder(self, key: str) -> Path:
        return self.root / "cells" / _inside("cell_key", key)

    def suite_folder(self, view: str) -> Path:
        return self.root / "suites" / _inside("name", view)

    @property
    def store_id(self) -> str:
        """Made once per results folder, so that two people's cells never fall into one W&B run."""
        path = self.root / "store.json"
        if not path.exists():
            self.root.mkdir(parents=True, exist_ok=True)
            with inside.lock(self.root / ".store.lock"):
                if not path.exists():
                    write_json(path, {"schema": SCHEMA, "id": uuid.uuid4().hex[:6]})
        try:
            identity: str = read_as("StoreRecord", read_json(path))["id"]
        except CorruptFile as error:
            raise ConfigError(f"{path} must hold the id of its folder ({error}); without it another is made") from error
        return identity

    def _read(self, folder: Path, name: str) -> tuple[Record, bytes] | None:
        """A sealed JSON file and its history's bytes, or None; what is corrupt is set aside with one line."""
        path = folder / name
        found = self._verified(folder, name)
        if not isinstance(found, _Problem):
            return found
        if found.history:
            set_aside(folder / "history.parquet")
        self.say(f"corrupt, set aside, to be redone: {found.text} ({set_aside(path).name})")
        return None

    @staticmethod
    def _verified(folder: Path, name: str) -> tuple[Record, bytes] | _Problem | None:
        """A sealed JSON file and its history's bytes, None where there is none, or what is wrong with them."""
        path, history = folder / name, folder / "history.parquet"
        try:
            found = read_json(path)
            if not isinstance(found, dict) or found.get("sha256") != _seal(found):
                return _Problem(f"{path}: checksum differs")
            record = read_as(KINDS[name], found)
            if name == "record.json" and record["cell_key"] != folder.name:
                return _Problem(f"{path}: is of cell {record['cell_key']}")
            for source in (_kept(folder, record["history_sha256"]), history):
                if source == history or inside.is_file(source):
                    content = read_bytes(source, MOST_HISTORY_BYTES)
                    if hashlib.sha256(content).hexdigest() == record["history_sha256"]:
                        return record, content
            return _Problem(f"{history}: checksum differs", history=True)
        except inside.NotFollowed:  # as if there were nothing
            return None
        except (FileNotFoundError, NotADirectoryError) as error:
            return None if error.filename == str(path) else _Problem(f"{error.filename}: missing")
        except (CorruptFile, IsADirectoryError) as error:
            text = reason(error)
            return _Problem(text if str(path) in text else f"{path}: {text}")

    def problem(self, folder: Path, name: str) -> str | None:
        """What is wrong with a cell's `record.json` or a base's `base.json`; None where it is whole or absent."""
        found = self._verified(folder, name)
        return found.text if isinstance(found, _Problem) else None

    def _write(self, folder: Path, name: str, record: Record, rows: list[dict[str, Any]]) -> None:
        """History first, then the record that vouches for it; until then an earlier record keeps its own history."""
        earlier = self._verified(folder, name)
        if isinstance(earlier, tuple):
            write_bytes(_kept(folder, earlier[0]["history_sha256"]), earlier[1])
        history = history_bytes(rows)
        record = {"schema": SCHEMA, **masked(record), "history_sha256": hashlib.sha256(history).hexdigest()}
        record["sha256"] = _seal(record)
        write_bytes(folder / "history.parquet", history)
        write_json(folder / name, record)
        for kept in inside.entries(folder, _kept(folder, "*").name):
            inside.remove(kept)

    def record(self, cell_key: str) -> Record | None:
        """A cell's record, verified, or None."""
        found = self.cell(cell_key)
        return None if found is None else found[0]

    def cell(self, cell_key: str) -> tuple[Record, bytes] | None:
        """A cell's record and the bytes of its history (Parquet), both verified, or None."""
        return self._read(self.cell_folder(cell_key), "record.json")

    def write_record(self, record: Record, rows: list[dict[str, Any]]) -> None:
        assert record["status"] in STATUSES
        self._write(self.cell_folder(record["cell_key"]), "record.json", record, rows)

    def history(self, cell_key: str) -> pd.DataFrame | None:
        """A cell's history, verified, or None; CorruptFile where it is no table."""
        found = self.cell(cell_key)
        return None if found is None else read_parquet(found[1])

    def base(self, base_key: str) -> Record | None:
        """What is known of a base that ended: its status, digests per epoch, cost."""
        found = self._read(self.base_folder(base_key), "base.json")
        return None if found is None else found[0]

    def write_base(self, record: Record, rows: list[dict[str, Any]], folder: Path) -> None:
        self._write(folder, "base.json", record, rows)

    def base_history(self, base_key: str) -> list[dict[str, Any]]:
        """Training rows of a base that ended."""
        frame = read_parquet(self.base_folder(base_key) / "history.parquet")
        return [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]

    def write_tables(self, cell_key: str, tables: dict[str, pd.DataFrame]) -> None:
        """A method's own tables, as `tables/<name>.parquet` in its cell's folder."""
        for name, table in tables.items():
            as_name(name)
            buffer = io.BytesIO()
            table.to_parquet(buffer, index=False)
            write_bytes(self.cell_folder(cell_key) / "tables" / f"{name}.parquet", buffer.getvalue())

    def write_plan(self, plan: Record) -> None:
        """Make a plan that of its view as it is; `storage.views.write_joined` keeps what is there."""
        write_json(self.suite_folder(plan["suite"]) / "plan.json", masked(plan))
