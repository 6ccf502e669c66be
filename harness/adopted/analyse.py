"""`traindyn analyse`: figures, tables and a page of how the weights of an adopted run moved, without its code."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from harness.adopted import dynamics, figures
from harness.adopted.following import Following, fitted
from harness.arguments import AnalyseArguments
from harness.checkpoints.registry import read_name, read_run
from harness.checkpoints.runs import AdoptedRun
from harness.config import ConfigError
from harness.planning.methods import FittedMethod
from harness.report.figures.files import ENDINGS, Drawing, draw_all
from harness.report.figures.registry import FIGURES, MethodFigure
from harness.report.figures.style import Labels
from harness.report.page.figures import PageFigure, is_wide
from harness.report.page.write import environment
from harness.report.tables.write import write_csv
from harness.storage import inside
from harness.storage.store import Store
from harness.validation import reason

Say = Callable[[str], None]
ANALYSES = "analyses"
WHOLE, AHEAD = "fitted to the whole run", "forecasts from the first half"
MODELS = {"cmd_posthoc": "post-hoc CMD", "dmd_reconstruction": "DMD reconstruction", "pca2": "PCA (rank 2)"}
"""presets that model a whole run, with what they are called"""
FORECASTS = {"dmd": "DMD", "persistence": "Persistence"}
OWN = {
    "distances": ("Distances and turns", "Distances between all snapshots, and cosines of successive steps."),
    "path": (
        "Path over principal components",
        "The run over its two largest principal components, and the share of its motion in each, beside a random walk.",
    ),
    "motion": ("Motion of every layer", "Relative steps between snapshots, and the share of weights that move at all."),
    "errors_over_time": (
        "Errors over time",
        "Distance of models of the run from it after every snapshot: fitted to all of it, or forecasts from its start.",
    ),
}
"""the figures that only an analysis has, with title and description"""
DRAWN: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "distances": (figures.draw_distances, ("distances", "cosines")),
    "path": (figures.draw_path, ("path", "components")),
    "motion": (figures.draw_motion, ("motion",)),
    "errors_over_time": (figures.draw_errors_over_time, ("errors_over_time",)),
}


@dataclass
class Analysis:
    """What was found of the runs of a name."""

    name: str
    runs: list[AdoptedRun]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    fits: dict[str, dict[str, pd.DataFrame]] = field(default_factory=dict)
    """tables of fitted methods of the first seed, by method"""
    notes: list[str] = field(default_factory=list)


def analyse(name: str, given: AnalyseArguments, say: Say) -> Path:
    """Write the analysis of a name and return its page; ConfigError where the name is none or a source changed."""
    store = Store(Path(given.results_dir), say)
    named = read_name(store.root, name)
    runs = [read_run(store, key) for _, key in sorted(named.keys.items())]
    found = Analysis(name, runs)
    device = torch.device("cpu")
    for run in runs:
        _measure(found, run, given, device)
    found.tables = {key: pd.concat(parts, ignore_index=True) for key, parts in _parts(found).items()}
    say(_in_words(found))
    for note in found.notes:
        say(note)
    return _write(store, found, given)


def _parts(found: Analysis) -> dict[str, list[pd.DataFrame]]:
    parts: dict[str, list[pd.DataFrame]] = {}
    for key, table in found.tables.items():
        parts.setdefault(key.partition("|")[0], []).append(table)
    return parts


def _measure(found: Analysis, run: AdoptedRun, given: AnalyseArguments, device: torch.device) -> None:
    """Add the tables of one seed, under their names and the seed."""
    motion = dynamics.motion(run, device)
    seed, ats, gram = run.seed, motion.ats, motion.gram_TT
    walked = dynamics.walk(gram)

    def add(key: str, table: pd.DataFrame) -> None:
        table.insert(0, "seed", seed)
        found.tables[f"{key}|{seed}"] = table

    apart, T = dynamics.distances(gram), len(ats)
    add("distances", pd.DataFrame({"at": np.repeat(ats, T), "other": np.tile(ats, T), "distance": apart.ravel()}))
    add("cosines", pd.DataFrame({"at": ats[1:-1], "cosine": dynamics.cosines(gram)}))
    paths = {dynamics.RUN: dynamics.path(gram), dynamics.WALK: dynamics.path(walked)}
    points = [
        pd.DataFrame({"kind": kind, "at": ats, "first": own.points_T2[:, 0], "second": own.points_T2[:, 1]})
        for kind, own in paths.items()
    ]
    shares = [
        pd.DataFrame({"kind": kind, "component": np.arange(1, len(own.shares_K) + 1), "share": own.shares_K})
        for kind, own in paths.items()
    ]
    add("path", pd.concat(points, ignore_index=True))
    add("components", pd.concat(shares, ignore_index=True))
    add("motion", motion.tensors)
    parts = [dynamics.mean_errors(run, gram).assign(kind=WHOLE, model="Time mean")]
    own_t = [t for t in run.ts if t >= 1]
    half = max(2, round(run.epochs / 2))
    for method, kind, model, values, ts in [
        *((name, WHOLE, model, _values(name, given), own_t) for name, model in MODELS.items()),
        *((name, AHEAD, model, {"warmup": half}, own_t[half + 1 :]) for name, model in FORECASTS.items()),
    ]:
        try:
            fit = fitted(method, run, values)
            parts.append(dynamics.errors(run, fit, device, ts).assign(kind=kind, model=model))
        except (ConfigError, ValueError) as error:
            if not isinstance(error, ConfigError) or "changed since" in str(error):
                raise
            found.notes.append(f"not fitted: {reason(error)}")
            continue
        if run is found.runs[0] and kind == WHOLE:
            found.fits[method] = _tables(fit, run, device)
    add("errors_over_time", pd.concat(parts, ignore_index=True)[["kind", "model", "t", "at", "error"]])
    found.notes = list(dict.fromkeys(found.notes))


def _values(method: str, given: AnalyseArguments) -> dict[str, Any]:
    return {"modes": given.modes, "samples": max(given.samples, given.modes)} if method == "cmd_posthoc" else {}


def _tables(method: FittedMethod, run: AdoptedRun, device: torch.device) -> dict[str, pd.DataFrame]:
    """What a method says of its fit, those of all cells together with the columns that say whose they are."""
    following = Following(method, run, device)
    for _ in following.proposals([run.epochs]):
        pass
    own: dict[str, Any] = {"method": method.name, "seed": run.seed, "cell_key": run.key}
    together = {kind.name for kind in FIGURES if isinstance(kind, MethodFigure) and kind.together}
    return {
        name: table.assign(**own) if name in together else table for name, table in following.method.tables().items()
    }


def _in_words(found: Analysis) -> str:
    """What was found, in two sentences."""
    run, motion = found.runs[0], found.tables["motion"]
    shares = found.tables["components"].groupby(["kind", "component"])["share"].mean()
    two, walk = (100 * shares[kind].iloc[:2].sum() for kind in (dynamics.RUN, dynamics.WALK))
    moved = 100 * (motion["moved"] * motion["weights"]).sum() / motion["weights"].sum()
    cosine = found.tables["cosines"]["cosine"].mean()
    seeds = f"{len(found.runs)} seeds, " if len(found.runs) > 1 else ""
    text = (
        f"{found.name}: {seeds}{run.epochs} snapshots of {run.N:,} weights. Two principal components have {two:.1f} % "
        f"of the motion (of a random walk of the same step lengths {walk:.1f} %), successive steps a mean cosine of "
        f"{cosine:+.2f}; {moved:.1f} % of the weights ever moved"
    )
    below = motion.dropna(subset="below_spacing")
    if len(below):
        share = 100 * (below["below_spacing"] * below["weights"]).sum() / below["weights"].sum()
        text += f", {share:.1f} % by less than one spacing of their type per snapshot"
    return text + "."


def _write(store: Store, found: Analysis, given: AnalyseArguments) -> Path:
    """The folder of an analysis, which takes the place of an earlier one when it is whole."""
    folder = store.root / ANALYSES / found.name
    fresh = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}.tmp")
    inside.check_writable(fresh)
    inside.check_writable(folder)
    fresh.mkdir(parents=True)
    try:
        for name, table in found.tables.items():
            write_csv(table, fresh / "tables" / f"{name}.csv")
        for method, tables in found.fits.items():
            for name, table in tables.items():
                write_csv(table, fresh / "tables" / f"{method}-{name}.csv")
        shown = list(_draw(found, fresh / "figures")) if given.figures == "all" else []
        (fresh / "report.css").write_bytes((files("harness.report.page") / "templates" / "report.css").read_bytes())
        text = environment().get_template("analysis.html").render(_context(found, shown))
        (fresh / "index.html").write_text(text, encoding="utf-8")
        aside = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}.old.tmp")
        if inside.is_folder(folder):
            inside.rename(folder, aside)
        inside.rename(fresh, folder)
        inside.remove_folder(aside, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder / "index.html"


def _draw(found: Analysis, folder: Path) -> Iterator[PageFigure]:
    """Draw all figures, and give what the page says of each."""
    run = found.runs[0]
    seeds = f"{len(found.runs)} seeds" if len(found.runs) > 1 else f"seed {run.seed}"
    labels = figures.OfTime(f"{found.name}, {seeds}", unit=run.unit)
    drawings, told = [], []
    for name, (draw, needed) in DRAWN.items():
        tables = {key: found.tables[key] for key in needed}
        drawings.append(Drawing(folder / name, draw, tables, labels, f"adopted run {run.key}", checks=True))
        told.append((name, *OWN[name], needed[0]))
    for method, tables in found.fits.items():
        for kind in FIGURES:
            if not isinstance(kind, MethodFigure) or not all(len(tables.get(key, ())) for key in kind.tables):
                continue
            name = f"{method}-{kind.name}"
            own = {key: tables[key] for key in kind.tables}
            of = Labels(f"{found.name}, {method}, seed {run.seed}")
            drawings.append(Drawing(folder / name, kind.draw, own, of, f"adopted run {run.key}", checks=True))
            told.append((name, f"{kind.title}, {method}", kind.description, f"{method}-{kind.name}"))
    for (name, title, description, table), wrong in zip(told, draw_all(drawings), strict=True):
        if wrong is not None:
            found.notes.append(f"{title} not drawn, {wrong}")
            continue
        links = [(ending.upper(), f"figures/{name}.{ending}") for ending in ENDINGS if ending != "csv"]
        links.append(("CSV", f"tables/{table}.csv"))
        yield PageFigure(name, title, "", description, f"figures/{name}.png", is_wide(folder / f"{name}.png"), links)


def _context(found: Analysis, shown: list[PageFigure]) -> dict[str, Any]:
    rows = []
    for run in found.runs:
        places = [source.at for source in run.sources]
        rows.append(
            {
                "seed": run.seed,
                "snapshots": len(run.sources),
                "span": f"{run.unit} {places[0]:g} to {places[-1]:g}",
                "weights": f"{run.N:,}",
                "key": run.key,
                "from": Path(run.sources[0].original).parent,
            }
        )
    first = found.runs[0]
    return {
        "name": found.name,
        "sentence": _in_words(found),
        "notes": found.notes,
        "runs": rows,
        "figures": shown,
        "tables": sorted(found.tables),
        "adapter": any(source.kind == "PEFT adapter" for source in first.sources),
        "unit": first.unit,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }
