"""`traindyn list`: what there is to choose from, one line each, from files alone, so that nothing heavy is imported.

What a preset is for says the comment that its file begins with, or else the docstring of its class. A method's kind
follows from the classes that its own inherits from, as their source has them.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
import re
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from harness.packages import CONF, HOME
from harness.validation import ConfigError, shown
from harness.verbs.words import LISTED, TERMS

GROUPS = {
    "methods": "method",
    "models": "model",
    "data": "dataset",
    "optimizers": "optimizer",
    "federations": "federation",
    "suites": "suite",
    "engines": "engine",
    "trackers": "tracker",
}
"""what can be listed of the presets, and their group"""
ALSO = {"models": "any other of timm's models by its name, such as model=convnext_tiny"}
KINDS = {"Observer": "observer", "Reconstruction": "reconstruction", "Brancher": "branch", "Exchange": "exchange"}
"""classes of `harness.method`, and what a method is that inherits from one"""
OTHER_NAMES = {"dataset": "data", "datasets": "data", "branch": "terms"}


class Listed(NamedTuple):
    """One line."""

    name: str
    kind: str
    purpose: str


def listing(asked: Sequence[str], config_dirs: Sequence[Path], results_dir: Path) -> Iterator[str]:
    """The lines of what is asked for, of everything where nothing is; ConfigError for what cannot be listed."""
    chosen = [_name(word) for word in asked] or list(LISTED)
    for place, what in enumerate(chosen):
        if len(chosen) > 1:
            yield f"{what}:" if place == 0 else f"\n{what}:"
        rows = list(_rows(what, config_dirs, results_dir))
        yield from _aligned(rows)
        if what in ALSO:
            yield ALSO[what]
        if what == "views" and not rows:
            yield f"no views in {results_dir} yet: traindyn run makes one"


def _name(word: str) -> str:
    """What is meant by a word, one of `LISTED`."""
    known = {name: name for name in LISTED} | {name.removesuffix("s"): name for name in LISTED} | OTHER_NAMES
    if word not in known:
        close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
        near = f"; nearest: {known[close[0]]}" if close else ""
        raise ConfigError(f"list takes {', '.join(LISTED)}, got {shown(word)}{near}")
    return known[word]


def _aligned(rows: Sequence[Listed]) -> Iterator[str]:
    """Names and kinds in columns; on a terminal a purpose goes on below itself, elsewhere it is one line."""
    first, second = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    for name, kind, purpose in rows:
        lead = f"{name:<{first}}  " + (f"{kind:<{second}}  " if second else "")
        if width - len(lead) < 20:
            yield f"{lead}{purpose}".rstrip()
        else:
            yield textwrap.fill(purpose, width, initial_indent=lead, subsequent_indent=" " * len(lead)) or lead.rstrip()


def _rows(what: str, config_dirs: Sequence[Path], results_dir: Path) -> Iterator[Listed]:
    if what == "terms":
        yield from (Listed(term, "", text) for term, text in TERMS.items())
    elif what == "views":
        yield from _views(results_dir)
    else:
        group = GROUPS[what]
        found = {path.stem: path for folder in (CONF, *config_dirs) for path in (folder / group).glob("*.yaml")}
        yield from (_preset(group, found[name], config_dirs) for name in sorted(found))


def _preset(group: str, path: Path, config_dirs: Sequence[Path]) -> Listed:
    text = path.read_text(encoding="utf-8", errors="replace")
    purpose, kind = _comment(text), ""
    try:
        values = next(iter((yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}).values()))
        target = str(values.get("_target_", ""))
    except (yaml.YAMLError, AttributeError, StopIteration):
        target = ""
    if group == "method" and target:
        kind = _kind(target, tuple(config_dirs)) or "?"
        purpose = purpose or _docstring(target, tuple(config_dirs))
    elif group == "optimizer":
        kind = target.rpartition(".")[2]
    return Listed(path.stem, kind, purpose)


def _comment(text: str) -> str:
    """The first sentence of the comment that a file begins with."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.lstrip("# "))
    return re.split(r"(?<=\w)[.;] ", " ".join(lines), maxsplit=1)[0].rstrip(".")


@functools.cache
def _source(module: str, config_dirs: tuple[Path, ...]) -> ast.Module | None:
    """The syntax tree of a module of this project, of a user's folders or of an installed package."""
    top, *inner = module.split(".")
    folders = [HOME, *config_dirs]
    if not any((folder / top).with_suffix(".py").exists() or (folder / top).is_dir() for folder in folders):
        spec = importlib.util.find_spec(top)
        folders = [Path(spec.origin).parent.parent] if spec is not None and spec.origin is not None else []
    for folder in folders:
        whole = folder.joinpath(top, *inner)
        for path in (whole.with_suffix(".py"), whole / "__init__.py"):
            if path.is_file():
                try:
                    return ast.parse(path.read_text(encoding="utf-8"))
                except (SyntaxError, ValueError):
                    return None
    return None


def _class(target: str, config_dirs: tuple[Path, ...]) -> tuple[ast.ClassDef, dict[str, str]] | None:
    """The definition of a class, and where the names of its module come from."""
    module, _, name = target.rpartition(".")
    tree = _source(module, config_dirs) if module else None
    if tree is None:
        return None
    names: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            names[node.name] = f"{module}.{node.name}"
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            names |= {alias.asname or alias.name: f"{origin}.{alias.name}" for alias in node.names}
    found = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)
    if found is None:
        return _class(names[name], config_dirs) if names.get(name, target) != target else None
    return found, names


def _kind(target: str, config_dirs: tuple[Path, ...]) -> str | None:
    """Which kind of method a class is, by what it inherits from; None where its source does not tell."""
    found = _class(target, config_dirs)
    for base in [] if found is None else found[0].bases:
        assert found is not None
        name = ast.unparse(base).partition("[")[0]
        kind = KINDS.get(name.rpartition(".")[2])
        origin = found[1].get(name)
        if kind is None and origin is not None and origin != target:
            kind = _kind(origin, config_dirs)
        if kind is not None:
            return kind
    return None


def _docstring(target: str, config_dirs: tuple[Path, ...]) -> str:
    found = _class(target, config_dirs)
    text = None if found is None else ast.get_docstring(found[0])
    return (text or "").partition("\n\n")[0].replace("\n", " ")


def _views(results_dir: Path) -> Iterator[Listed]:
    """Views in a results folder, the latest first: how far they are, when they were planned, and what they compare."""
    from harness.storage import inside
    from harness.storage.files import CorruptFile
    from harness.storage.paths import plan_files
    from harness.storage.schemas import read_plan_file

    inside.known(results_dir)
    plans = []
    for path in plan_files(results_dir):
        try:
            plan = read_plan_file(path)
            plans.append((str(plan["created"]), path.parent.name, plan["cells"]))
        except (OSError, CorruptFile):
            yield Listed(path.parent.name, "unreadable", f"{path} is damaged: traindyn run writes it anew")
    for created, name, cells in sorted(plans, reverse=True):
        statuses = Counter(_status(results_dir / "cells" / str(cell["cell_key"])) for cell in cells)
        done = f"{statuses['done']}/{len(cells)} done"
        others = "".join(f", {count} {status}" for status, count in statuses.items() if status != "done")
        yield Listed(name, f"{created[:16].replace('T', ' ')}  {done}{others}", _compares(cells))


def _status(folder: Path) -> str:
    from harness.storage.files import read_json
    from harness.validation import printable

    try:
        return printable(read_json(folder / "record.json")["status"])[:20]
    except FileNotFoundError:
        return "left"
    except (OSError, ValueError, KeyError, TypeError):
        return "damaged"


def _compares(cells: Iterable[dict[str, object]]) -> str:
    """What a view is of: models on data, methods and seeds."""
    found = {name: list(dict.fromkeys(str(cell[name]) for cell in cells)) for name in ("model", "dataset")}
    methods, seeds = (len({str(cell[name]) for cell in cells}) for name in ("method", "seed"))
    counted = ", ".join(f"{n} {word}{'' if n == 1 else 's'}" for n, word in ((methods, "method"), (seeds, "seed")))
    return f"{', '.join(found['model'])} on {', '.join(found['dataset'])}: {counted}"
