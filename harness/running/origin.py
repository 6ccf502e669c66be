"""Where a command's jobs come from: the command itself, and the commits of the folder it was given in and of this code.

Logs, records and W&B's configuration say it; no key and no number depends on it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.packages import HOME

GIT_SECONDS = 5
"""that git may take for one answer"""
_SET_BY_HOOKS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")
"""variables by which git would speak of another repository than the asked folder's"""


@dataclass(frozen=True)
class Commit:
    """What git says of a folder."""

    commit: str | None = None
    """40 hex digits; None where there is none"""
    clean: bool | None = None
    """whether the working tree is as the commit has it, new files included; None where that is not known"""
    note: str | None = None
    """why there is no commit"""

    def __str__(self) -> str:
        if self.commit is None:
            return self.note or "unknown"
        tree = {True: "tree clean", False: "tree not clean", None: "tree not known"}[self.clean]
        return f"{self.commit[:12]}, {tree}"


@dataclass(frozen=True)
class Origin:
    """A command, and what git said when it was given. `folder` is that of the command, `harness` this code's checkout;
    None where git was not asked."""

    command: str = ""
    folder: Commit | None = None
    harness: Commit | None = None

    def as_record(self) -> dict[str, Any]:
        """The entry `environment` of records."""
        return {"git": {name: commit and asdict(commit) for name, commit in self._commits()}}

    def lines(self) -> list[tuple[str, str]]:
        """What a log says of it, as names and values."""
        said = [("command", self.command), ("folder", str(Path.cwd()))]
        return said + [(f"git of {name}", str(commit)) for name, commit in self._commits() if commit is not None]

    def _commits(self) -> list[tuple[str, Commit | None]]:
        return [("folder", self.folder), ("harness", self.harness)]


class _NoAnswer(Exception):
    """Git says nothing of a folder, and why."""


def ask_origin(command: str, results_dir: Path) -> Origin:
    """The origin of a command that is given in the present folder and keeps its results in `results_dir`.

    Git is asked once for a command. Whatever it does, such as not being there or taking long, is a note.
    """
    return Origin(command, _commit(Path.cwd(), results_dir), _commit(HOME, results_dir, tracked="harness/__init__.py"))


def _commit(folder: Path, results_dir: Path, tracked: str | None = None) -> Commit:
    """What git says of a folder, the results within it aside; where `tracked` is given only of a folder whose file of
    that name is tracked, since a package may be installed within another project's repository."""
    try:
        top = Path(_git(folder, "rev-parse", "--show-toplevel").rstrip("\n"))
        if tracked is not None and not _git(folder, "ls-files", "--", tracked):
            return Commit(note="no git checkout")
        results, asked = results_dir.resolve(), [":/", ":(top,exclude,glob)**/__pycache__/**"]
        if results != top and results.is_relative_to(top):
            asked.append(f":(top,exclude,literal){results.relative_to(top)}")
        lines = _git(folder, "status", "--porcelain=v2", "--branch", "--", *asked).splitlines()
    except _NoAnswer as error:
        return Commit(note=str(error))
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), "(initial)")
    clean = all(line.startswith("# ") for line in lines)
    return Commit(note="no commit yet") if commit == "(initial)" else Commit(commit, clean)


def _git(folder: Path, *words: str) -> str:
    """What git prints, or _NoAnswer; it writes nothing and runs no hook."""
    environment = {name: value for name, value in os.environ.items() if name not in _SET_BY_HOOKS}
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", *words]
    try:
        done = subprocess.run(
            command, cwd=folder, env={**environment, "LC_ALL": "C"}, stdin=subprocess.DEVNULL, capture_output=True,
            encoding="utf-8", errors="replace", timeout=GIT_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise _NoAnswer(f"git did not answer within {GIT_SECONDS} s") from None
    except OSError as error:
        raise _NoAnswer("git is not installed" if shutil.which("git") is None else f"git: {error.strerror}") from None
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
        raise _NoAnswer("no git repository" if "not a git repository" in said else f"git: {said}")
    return done.stdout
