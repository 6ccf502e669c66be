"""The printed tables of a suite, all from its summary: results, the paper's two shapes, statistics, progress, costs.

`main` has methods as rows and stays readable with many of them. `models` and `optimizers` have the shape of the tables
of the CMD paper, methods as columns, with published numbers beside ours where there are some.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from harness.report.stats.means import ALL, Row, caption, entries, marks
from harness.report.stats.paired import SEEDS
from harness.report.stats.published import published_spread
from harness.report.stats.summary import Results
from harness.report.tables.columns import COLUMNS, PROGRESS, STATISTICS, Choice
from harness.report.tables.printed import TIE, Printed
from harness.report.warnings import unfinished
from harness.results.columns import COSTS, ROW, ROW_METHOD

PAPER = ("base", "base_recalibrated", "ema", "swa", "time_mean", "cmd_online", "p_bfgs_equal", "p_bfgs_long")
"""The methods that are columns in the paper's shapes, with the controls."""
SIDE_BY_SIDE = 4
"""How many rows of a suite stand beside each other in one table."""

TIES = f"{TIE} cannot be told apart from the best (paired t tests, Holm over all pairs, 5 %)."
NO_TIES = f"No test is possible with fewer than {SEEDS} seeds: differences may be chance."


def heading(row: Row, rows: Sequence[Row]) -> str:
    """A row's name by what sets it apart from the others; its model at least."""
    differing = [place for place in range(len(ROW)) if place == 0 or len({other[place] for other in rows}) > 1]
    return ", ".join(row[place] for place in differing)


def main(found: Results, summary: pd.DataFrame, choice: Choice) -> list[Printed]:
    """Methods as rows, a column for each model, dataset and optimizer."""
    table = entries(found.frame, found.metric)
    methods = [m for m in dict.fromkeys(m for row in table.values() for m in row) if choice.keeps(m)]
    lines = {(*map(str, key[:3]), key[3]): line for key, line in summary_lines(summary, found)}
    rows, printed = list(table), []
    for start in range(0, len(rows), SIDE_BY_SIDE):
        part = rows[start : start + SIDE_BY_SIDE]
        texts, marked = pd.DataFrame({"method": methods}), pd.DataFrame({"method": [""] * len(methods)})
        for row in part:
            name, mark = heading(row, rows), marks({m: table[row][m] for m in methods if m in table[row]}, found.metric)
            shown = [lines.get((*row, method)) for method in methods]
            texts[name] = ["" if line is None else COLUMNS[found.metric].text(line) for line in shown]
            marked[name] = [mark.get(method, "") for method in methods]
        last = start + SIDE_BY_SIDE >= len(rows)
        text = f"{caption(found.metric)} {tested(found)}"
        notes = unfinished(found.frame) if last else ()
        label = "main" if start == 0 else f"main-{start // SIDE_BY_SIDE + 1}"
        printed.append(Printed(text, texts, marked, notes=notes, label=label))
    return printed


def tested(found: Results) -> str:
    """What can be said of ties: what the mark means, or why there is no test."""
    return TIES if any(ranking.ranks for ranking in found.ranked.values()) else NO_TIES


def summary_lines(summary: pd.DataFrame, found: Results) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """The lines of a summary by model, dataset, optimizer and method, with the metric that they are ranked by."""
    for line in summary.to_dict("records"):
        key = tuple(str(line[name]) for name in ROW_METHOD)
        yield key, {**{str(k): v for k, v in line.items()}, "ranked_by": found.metric}


def by_row(found: Results, summary: pd.DataFrame, names: Sequence[str], choice: Choice, text: str) -> list[Printed]:
    """One table per model, dataset and optimizer, and one over all where the columns have something to say of it."""
    sections: dict[Row, list[dict[str, Any]]] = {}
    for key, line in summary_lines(summary, found):
        if choice.keeps(key[-1]):
            sections.setdefault(key[:-1], []).append(line)
    printed = []
    for row, lines in sections.items():
        over_all = row[0] == ALL
        shown = [name for name in names if not over_all or not lines or COLUMNS[name].value in _OVER_ALL]
        if over_all and not set(shown) - {"n", "rank"}:
            continue
        texts = pd.DataFrame({"method": [line["method"] for line in lines]})
        for name in shown:
            texts[COLUMNS[name].heading] = [COLUMNS[name].text(line) for line in lines]
        title = "all rows together" if over_all else ", ".join(row)
        printed.append(Printed(text, texts, title=title, label="-".join(row)))
        text = "As above."
    return printed


_OVER_ALL = {column.value for name, column in COLUMNS.items() if "_to_" in column.value and "target" not in name} | {
    "n",
    "rank",
}
"""The values that pairs over several rows can say something of."""


def statistics(found: Results, summary: pd.DataFrame, choice: Choice) -> list[Printed]:
    """Differences to the controls with intervals, tests and effects."""
    names = choice.columns or tuple(name if name != "test_accuracy" else found.metric for name in STATISTICS)
    return by_row(found, summary, names, choice, f"{_meanings(names)} {tested(found)}")


def progress(found: Results, summary: pd.DataFrame, choice: Choice) -> list[Printed]:
    """Time to the target, and the area under the validation curve; reconstructions have none."""
    causal = Choice(
        tuple(m for m in summary["method"].unique() if m not in found.reconstructions and choice.keeps(m)), None
    )
    text = (
        f"{_meanings(PROGRESS)} The target is "
        + (
            "what base_recalibrated ends with, as the mean over seeds."
            if found.target is None
            else f"{found.target:g} %."
        )
        + " ∞: most seeds do not reach it. Methods that see the whole run are left out."
    )
    return by_row(found, summary, PROGRESS, causal, text)


def errors(shares: pd.DataFrame) -> list[Printed]:
    """Motion of the weights that a method's model and others leave unexplained, in percent, at the model's dimension.

    `shares` has the columns of ROW_METHOD, seed, fit, dimension and share: the tables `errors` of methods. The
    dimension is that of the fit that has one only, otherwise the largest that all fits reach; where a fit stops below
    it, its largest is shown and named.
    """
    fits = list(dict.fromkeys(shares["fit"]))
    lines = []
    for (*names, seed), own in shares.groupby([*ROW_METHOD, "seed"], sort=False):
        dimension = _own_dimension(own)
        line = dict(zip(ROW_METHOD, map(str, names), strict=True))
        line |= {"seed": str(seed), "dimension": str(dimension)}
        lines.append(line | {fit: _share(own[own["fit"] == fit], dimension) for fit in fits})
    text = (
        "Reconstruction error in-sample: squared motion of all weights that a model of this dimension leaves "
        "unexplained, in percent of their motion about the time mean. Principal components bound all linear models "
        "from below."
    )
    return [Printed(text, pd.DataFrame(lines), names=len(ROW_METHOD), label="errors")] if lines else []


def _own_dimension(shares: pd.DataFrame) -> int:
    """The dimension at which the fits of one method are compared."""
    spans = shares.groupby("fit", sort=False)["dimension"].agg(["size", "max"])
    spans = spans[spans["max"] > 0]
    single = spans.loc[spans["size"] == 1, "max"]
    return int(single.iloc[0] if len(single) else spans["max"].min() if len(spans) else 0)


def _share(of_fit: pd.DataFrame, dimension: int) -> str:
    """The share of a fit at its largest dimension up to the given one, in percent."""
    within = of_fit[of_fit["dimension"] <= dimension]
    if within.empty:
        return "–"
    last = within.sort_values("dimension", kind="stable").iloc[-1]
    rank = "" if last["dimension"] in (0, dimension) else f" (of {last['dimension']})"
    return f"{100 * last['share']:.2f}{rank}"


def _meanings(names: Sequence[str]) -> str:
    """What the columns mean, those of several controls once."""
    meanings = dict.fromkeys((COLUMNS[name].short, COLUMNS[name].meaning) for name in names)
    return "; ".join(f"{short}: {meaning}" for short, meaning in meanings) + "."


def costs(found: Results, summary: pd.DataFrame, choice: Choice) -> list[Printed]:
    """What methods cost, as means per seed."""
    text = (
        f"Means per seed; training seconds and gradients include the shared prefix, which is the whole run for methods "
        f"that only watch it. {_meanings(COSTS)}"
    )
    return by_row(found, summary, ("n", *COSTS), choice, text)


def models(found: Results, summary: pd.DataFrame, choice: Choice) -> list[Printed]:
    """Per dataset: models (with their optimizer) as rows, methods as columns."""
    rows = list(entries(found.frame, found.metric))
    datasets = list(dict.fromkeys(row[1] for row in rows))
    return [
        _paper(found, summary, choice, [row for row in rows if row[1] == dataset], (0, 2), f"models-{dataset}", dataset)
        for dataset in datasets
    ]


def optimizers(found: Results, summary: pd.DataFrame, choice: Choice) -> list[Printed]:
    """Per model that was trained with several optimizers: optimizers as rows, methods as columns."""
    rows = list(entries(found.frame, found.metric))
    printed = []
    for model, dataset in dict.fromkeys(row[:2] for row in rows):
        own = [row for row in rows if row[:2] == (model, dataset)]
        if len(own) > 1:
            title = f"{model}, {dataset}"
            printed.append(_paper(found, summary, choice, own, (2,), f"optimizers-{model}-{dataset}", title))
    return printed


def _paper(
    found: Results,
    summary: pd.DataFrame,
    choice: Choice,
    rows: list[Row],
    names: tuple[int, ...],
    label: str,
    title: str,
) -> Printed:
    """Rows of a suite against methods, ours and where there are some the published numbers beside them."""
    table = entries(found.frame, found.metric)
    lines = dict(summary_lines(summary, found))
    present = list(dict.fromkeys(method for row in rows for method in table[row]))
    methods = [m for m in (choice.methods or PAPER) if m in present] or present
    texts = pd.DataFrame({ROW[place]: [row[place] for row in rows] for place in names})
    marked = pd.DataFrame("", index=texts.index, columns=texts.columns)
    any_published = False
    for method in methods:
        shown = [lines.get((*row, method)) for row in rows]
        texts[method] = ["" if line is None else COLUMNS[found.metric].text(line) for line in shown]
        best = [marks({m: table[row][m] for m in methods if m in table[row]}, found.metric) for row in rows]
        marked[method] = [mark.get(method, "") for mark in best]
        theirs = [published_spread(row, method) for row in rows] if found.metric == "test_accuracy" else []
        if any(spread is not None for spread in theirs):
            any_published = True
            texts[f"{method}, published"] = ["" if spread is None else spread.text(2) for spread in theirs]
            marked[f"{method}, published"] = ""
    note = " Published: Brokman et al., ICLR 2024, mean ± standard deviation of their runs." if any_published else ""
    text = f"{caption(found.metric)} {tested(found)}{note}"
    return Printed(text, texts, marked, names=len(names), title=title, label=label)
