"""Where plans, snapshots, restart states and logs lie: file names, which a plan needs without reading one."""

from __future__ import annotations

from pathlib import Path

from harness.storage.inside import entries, folders, is_file


def snapshot_path(folder: Path, t: int) -> Path:
    """The snapshot of epoch t in the folder `trajectory` of a base."""
    return folder / f"{t:05d}.safetensors"


def stored_ts(folder: Path) -> tuple[int, ...]:
    """The epochs whose snapshots lie in the folder `trajectory` of a base, in order."""
    return tuple(sorted(int(path.stem) for path in entries(folder, "*.safetensors") if path.stem.isdecimal()))


def restart_path(folder: Path, t: int) -> Path:
    """The restart state of epoch t of the base in `folder`."""
    return folder / "restart" / f"{t:05d}.safetensors"


def plan_files(root: Path) -> list[Path]:
    """The `plan.json` of every suite of a results folder, in order."""
    return [path for suite in folders(root / "suites") if is_file(path := suite / "plan.json")]


def base_log(key: str) -> str:
    """A base's log, below the results folder."""
    return f"bases/{key}/log.txt"


def cell_log(key: str) -> str:
    """A cell's log, below the results folder."""
    return f"cells/{key}/log.txt"
