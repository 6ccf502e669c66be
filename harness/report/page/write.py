"""The report page of a suite: suites/<suite>/report/, a folder that opens from disk and needs nothing else.

`index.html` holds the tables, so it can be read without scripts; `report.js` sorts, filters and draws the curves with
plotly, which lies beside it. A page per cell has its configuration and history. The folder is written beside the old
one and takes its place when it is whole.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from harness.report.page.cells import write_cell_pages
from harness.report.page.curves import curve_data
from harness.report.page.facts import facts, failures, machines, subject, versions
from harness.report.page.figures import PageFigure, gather_figures
from harness.report.page.lines import best_first, body, finding_bodies, finding_heads, head, links_of, told
from harness.report.stats.comparisons import EXPLORATORY_WORDS
from harness.report.stats.curves import COSTS as SPENT
from harness.report.stats.curves import METRICS
from harness.report.stats.headline import conclusions, counted, findings
from harness.report.stats.means import ALL, CONTROL, caption
from harness.report.stats.summary import Results
from harness.report.tables.columns import Choice
from harness.report.tables.communication import communication
from harness.report.tables.printed import Printed
from harness.report.tables.suite import calibration, comparable, images, rivals, summary_lines, tested, usual
from harness.report.warnings import marks
from harness.results.columns import COSTS, KERNEL, ROW
from harness.results.frame import STATUSES
from harness.storage import inside
from harness.storage.store import Store

RESULTS = (
    *("test_accuracy", "val_accuracy", "difference_base_recalibrated", "verdict_base_recalibrated"),
    *("p_base_recalibrated", "effect_base_recalibrated", "wins_base_recalibrated", "difference_time_mean"),
    *("difference_control", "verdict_control", "difference_base", *KERNEL),
)
COST_AND_SPEED = (*COSTS, "area", "reached", "epochs_to_target", "seconds_to_target")
TITLES = {
    "rivals": "Annealed rivals",
    "compare": "Comparison",
    "calibration": "Loss and calibration",
    "communication": "Communication",
    "kernels": "Kernels",
    "images": "Test images",
}
"""The sections that show tables as they are printed, with their titles."""
ASSETS = ("report.css", "report.js")


def environment() -> jinja2.Environment:
    """The templates of this package, with everything escaped.

    The filter `runs` gives the groups of consecutive heads with their sizes.
    """
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.report.page", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    templates.filters["runs"] = lambda heads: [
        (group, len(list(own))) for group, own in groupby(heads, key=attrgetter("group"))
    ]
    return templates


def write_page(
    store: Store,
    plan: dict[str, Any],
    found: Results,
    summary: pd.DataFrame,
    warnings: list[str],
    compared: Sequence[Printed] = (),
    kernels: Sequence[Printed] = (),
) -> Path:
    """Write the page of a suite, with a comparison and kernels where there are some, and return its index.html."""
    suite_folder = store.suite_folder(plan["suite"])
    folder = suite_folder / "report"
    fresh = suite_folder / f".report-{uuid.uuid4().hex[:8]}.tmp"
    inside.check_writable(fresh)
    fresh.mkdir(parents=True)
    try:
        templates = environment()
        for name in ASSETS:
            (fresh / name).write_bytes((files("harness.report.page") / "templates" / name).read_bytes())
        shutil.copyfile(str(files("plotly") / "package_data" / "plotly.min.js"), fresh / "plotly.min.js")
        figures = gather_figures(suite_folder / "figures", fresh / "figures")
        data = json.dumps(curve_data(found.over_seeds), separators=(",", ":"))
        (fresh / "curves.js").write_text(f"window.CURVES = {data};\n", encoding="utf-8")
        printed: dict[str, Sequence[Printed]] = {"rivals": rivals(found, summary, Choice()), "compare": compared}
        printed["calibration"] = calibration(found, summary, Choice())
        printed["communication"] = communication(found, summary, Choice())
        printed["kernels"] = kernels
        printed["images"] = images(found, summary, Choice())
        context = _context(store, plan, found, summary, warnings, figures)
        context["printed"] = [(name, TITLES[name], parts) for name, parts in printed.items() if parts]
        (fresh / "index.html").write_text(templates.get_template("index.html").render(context), encoding="utf-8")
        write_cell_pages(store, plan, found.history, templates, fresh / "cells")
        _replace(fresh, folder)
    finally:
        inside.remove_folder(fresh, ignore_errors=True)
    return folder / "index.html"


def _replace(fresh: Path, folder: Path) -> None:
    """Put a whole folder in the place of another; a page that is open loses nothing but for an instant."""
    aside = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}.old")
    if inside.is_folder(folder):
        inside.rename(folder, aside)
    inside.rename(fresh, folder)
    inside.remove_folder(aside, ignore_errors=True)


def _context(
    store: Store,
    plan: dict[str, Any],
    found: Results,
    summary: pd.DataFrame,
    warnings: list[str],
    figures: list[PageFigure],
) -> dict[str, Any]:
    """What the template of the page is filled with."""
    frame = found.frame
    counts, explored = Counter(frame["status"]), findings(found)
    lines = [line for _, line in summary_lines(summary, found)]
    links = links_of(frame)
    choices = {name: list(dict.fromkeys(map(str, frame[name]))) for name in ROW}
    of_rows = best_first([line for line in lines if line["model"] != ALL], found.metric, f"{found.metric}_mean")
    over_all = best_first([line for line in lines if line["model"] == ALL], found.metric, f"mean_to_{CONTROL}")
    results, overall = told(usual(found, RESULTS), of_rows), told(usual(found, RESULTS)[2:], over_all)
    spent = told(COST_AND_SPEED, of_rows)
    return {
        "suite": plan["suite"],
        "marks": ", ".join(marks(frame)),
        "command": " && ".join(plan.get("commands") or [plan["command"]]),
        "planned": plan["created"],
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "counts": [(status, counts[status]) for status in STATUSES],
        "cells": len(frame),
        "left": counts["left"],
        "subject": subject(frame),
        "headline": [*conclusions(found), *([counted(explored)] if len(explored) else [])],
        "caption": caption(found.metric),
        "tested": tested(found),
        "comparable": comparable(summary),
        "facts": [*facts(frame), ("machine", "; ".join(machines(store, frame)) or "not recorded")],
        "versions": list(versions(frame)),
        "choices": choices,
        # What all lines have in common is said once, below.
        "names": [name for name in ROW if name == "model" or len(choices[name]) > 1],
        "heads": [head(name, found.metric) for name in results],
        "lines": [body(line, results, links) for line in of_rows],
        "finding_heads": finding_heads(found.metric),
        "findings": list(finding_bodies(explored, found.metric)),
        "explained": EXPLORATORY_WORDS,
        "overall_heads": [head(name, found.metric) for name in overall],
        "overall_rows": len({line["optimizer"] for line in over_all}) > 1,
        "overall": [body(line, overall, {}) for line in over_all],
        "cost_heads": [head(name, found.metric) for name in spent],
        "cost_lines": [body(line, spent, {}) for line in of_rows],
        "target": found.target_in_words,
        "metrics": {name: title for name, title in METRICS.items() if found.over_seeds[f"{name}_mean"].notna().any()},
        "costs": SPENT,
        "figures": figures,
        "warnings": warnings,
        "failures": list(failures(store, frame)),
    }
