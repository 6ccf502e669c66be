"""Where a base keeps its snapshots and restart states, by epoch, which a plan needs without reading one; and logs."""

from __future__ import annotations

from pathlib import Path


def snapshot_path(folder: Path, t: int) -> Path:
    """The snapshot of epoch t in the folder `trajectory` of a base."""
    return folder / f"{t:05d}.safetensors"


def stored_ts(folder: Path) -> tuple[int, ...]:
    """The epochs whose snapshots lie in the folder `trajectory` of a base, in order."""
    return tuple(sorted(int(path.stem) for path in folder.glob("[0-9]*.safetensors")))


def restart_path(folder: Path, t: int) -> Path:
    """The restart state of epoch t of the base in `folder`."""
    return folder / "restart" / f"{t:05d}.safetensors"


def base_log(key: str) -> str:
    """A base's log, below the results folder."""
    return f"bases/{key}/log.txt"


def cell_log(key: str) -> str:
    """A cell's log, below the results folder."""
    return f"cells/{key}/log.txt"
