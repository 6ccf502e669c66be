"""The printed tables of a suite: results, the paper's two shapes, statistics, rivals, images, progress, costs.

`main` has methods as rows and stays readable with many of them. `models` and `optimizers` have the shape of the tables
of the CMD paper, methods as columns, with published numbers beside ours where there are some.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from harness.report.method_styles import style_of
from harness.report.stats.comparisons import EQUIVALENT, EXPLORATORY_WORDS, PRIMARY_WORDS
from harness.report.stats.headline import unit_of_difference
from harness.report.stats.means import ALL, CONTROL, OWN, Row, Spread, caption, entries, in_words, marks
from harness.report.stats.paired import EXACT
from harness.report.stats.published import published_spread
from harness.report.stats.summary import Results
from harness.report.tables.columns import COLUMNS, PROGRESS, STATISTICS, Choice, interval, probability, verdict
from harness.report.tables.printed import EQUAL, Printed
from harness.report.warnings import BUSY_MARK, unfinished
from harness.results.columns import BUSY, COSTS, FRAME_COLUMNS, METRICS, ROW, ROW_METHOD

PAPER = ("base", "base_recalibrated", "ema", "swa", "time_mean", "cmd_online", "p_bfgs_equal", "p_bfgs_long")
"""The methods that are columns in the paper's shapes, with the controls."""
SIDE_BY_SIDE = 4
"""How many rows of a suite stand beside each other in one table."""


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
        short = in_words(found.metric)
        printed.append(
            Printed(text, texts, marked, notes=notes, label=label, short_caption=short, note=note_on_means(found))
        )
    return printed


def seeds_in_words(found: Results) -> str:
    """How many seeds the rows of a suite have, such as `5 seeds` or `3 to 5 seeds`."""
    counts = sorted(set(found.frame.groupby(ROW, sort=False)["seed"].nunique()))
    many = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    return f"{many} {'seed' if counts == [1] else 'seeds'}"


def note_on_means(found: Results) -> str:
    """What a mean is and over how many seeds, and what the mark of equivalence says, for the note below a table."""
    text = f"Mean ± sample standard deviation over {seeds_in_words(found)} (n where fewer), last epoch."
    marked = found.compared["verdict"].eq(EQUIVALENT) & (found.compared["control"] == found.plain)
    within = f" within {found.margin:g} {unit_of_difference(found.metric)}"
    return text + (f" {EQUAL}: equivalent to {style_of(found.plain).label}{within}." if marked.any() else "")


def note_on_verdicts(found: Results) -> str:
    """What the verdicts of a table say, for the note below it."""
    within = f"within {found.margin:g} {unit_of_difference(found.metric)}"
    primary = (
        f"Verdicts of primary comparisons ({named(found)}; Holm over all of them, 5 %): better, worse, equivalent "
        f"{within}, undecided (finds: what would have been found in 4 of 5 cases); these and p are adjusted, intervals "
        "are not. "
    )
    return (primary if found.primary else "") + (
        "Verdicts in parentheses are exploratory, from intervals that are not adjusted: ahead, behind: all of the 95 % "
        f"interval on one side of 0; close: the 90 % interval {within}; open: neither. {intervals(found)}"
    )


def tested(found: Results) -> str:
    """What verdicts and their marks mean, and whether the suite named what is tested."""
    none = "The suite named no primary comparisons, so all of them are exploratory."
    marked = found.compared["verdict"].eq(EQUIVALENT).any()
    equal = f"{EQUAL}: equivalent. " if marked else ""
    primary = f"Verdicts of primary comparisons ({named(found)}): {PRIMARY_WORDS}" if found.primary else none
    return f"{primary} {EXPLORATORY_WORDS} {_margin(found)}{equal}{intervals(found)}"


def named(found: Results) -> str:
    """By whom and since when the primary comparisons are what they are."""
    said = found.frame.attrs.get("named")
    if said is None:
        return "since when they are named is not known"
    who = "named in statistics.primary" if said["stated"] else f"every chosen method against {found.plain}, by default"
    if not said["done"]:
        return f"{who}, before any cell was done"
    return f"{who}, as they are since {said['done']} of the cells were done"


def _margin(found: Results) -> str:
    accuracy = METRICS[found.metric].unit == "%"
    return f"The margin is {found.margin:g} {unit_of_difference(found.metric)}. " if accuracy else ""


def intervals(found: Results) -> str:
    """What intervals cover."""
    known = found.compared["images"] > 0
    kind = f"Intervals are Student's t (from {EXACT} seeds on a bootstrap's), 95 %, paired by seed"
    if not known.any():
        return f"{kind}; they cover seeds alone and not the choice of test images, which all seeds share."
    part = "" if known.all() else " where it is known which images a cell got right, and seeds alone elsewhere"
    return f"{kind}; they cover seeds and test images{part}."


def summary_lines(summary: pd.DataFrame, found: Results) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """The lines of a summary by model, dataset, optimizer and method, with the metric that they are compared by."""
    for line in summary.to_dict("records"):
        key = tuple(str(line[name]) for name in ROW_METHOD)
        yield key, {**{str(k): v for k, v in line.items()}, "compared_by": found.metric}


def by_row(
    found: Results, summary: pd.DataFrame, names: Sequence[str], choice: Choice, text: str, short: str, note: str
) -> list[Printed]:
    """One table per model, dataset and optimizer, and one over all where the columns have something to say of it.

    `text` says what the numbers are, `short` and `note` do so in the places of a caption and of a note.
    """
    sections: dict[Row, list[dict[str, Any]]] = {}
    for key, line in summary_lines(summary, found):
        if choice.keeps(key[-1]):
            sections.setdefault(key[:-1], []).append(line)
    printed = []
    for row, lines in sections.items():
        over_all = row[0] == ALL
        shown = [name for name in names if not over_all or not lines or COLUMNS[name].value in _OVER_ALL]
        if over_all and not set(shown) - {"n"}:
            continue
        texts = pd.DataFrame({"method": [line["method"] for line in lines]})
        for name in shown:
            texts[COLUMNS[name].heading] = [COLUMNS[name].text(line) for line in lines]
        title = together(row) if over_all else ", ".join(row)
        label = "-".join([*short.lower().split()[:1], *row])
        columns = [COLUMNS[name] for name in shown]
        groups = {column.heading: (against(column.control), column.headed(found.metric)) for column in columns}
        printed.append(Printed(text, texts, title=title, label=label, short_caption=short, note=note, groups=groups))
        text = "As above."
    return printed


def against(control: str) -> str:
    """What stands above the columns that compare with a control; nothing above the others."""
    if not control:
        return ""
    return "against its own control" if control == OWN else f"against {style_of(control).label}"


def together(row: Row) -> str:
    """What several rows that are taken together are called."""
    return "all rows together" if row[-1] == ALL else f"all rows of {row[-1]} rate together"


_OVER_ALL = {column.value for name, column in COLUMNS.items() if "_to_" in column.value and "target" not in name} | {
    "n"
}
"""The values that pairs over several rows can say something of."""


def statistics(found: Results, summary: pd.DataFrame, choice: Choice) -> list[Printed]:
    """Differences to the controls with intervals, verdicts, tests and effects."""
    names = choice.columns or usual(found, STATISTICS)
    own = [name for name in names if name not in ("n", *METRICS)]
    note = f"{note_on_means(found)} {_meanings(own)} {note_on_verdicts(found)}"
    short = "Differences to the controls"
    return by_row(found, summary, names, choice, f"{_meanings(names)} {tested(found)}", short, note)


def calibration(found: Results, summary: pd.DataFrame, choice: Choice) -> list[Printed]:
    """Loss, calibration error and Brier's score beside accuracy; nothing where no cell has them."""
    names = ("test_accuracy", "test_loss", "test_ece", "test_brier")
    if not found.frame["test_ece"].notna().any():
        return []
    text = (
        "Means ± sample standard deviations over seeds at the last epoch. Loss: mean negative log-likelihood. ECE: "
        "expected calibration error in points, over 15 equal bins of the largest probability. Brier: mean squared "
        "distance of the probabilities from the label's, from 0 to 2. Lower is better in all but accuracy."
    )
    return by_row(found, summary, names, choice, text, "Loss and calibration", f"{note_on_means(found)} {text}")


def usual(found: Results, names: Sequence[str]) -> tuple[str, ...]:
    """The columns shown where none are chosen: the metric compared in the place of test accuracy, and those of methods'
    own controls where a method has one."""
    own = found.frame["control"].notna().any()
    kept = [name for name in names if own or not name.endswith("_control")]
    if found.plain != CONTROL:
        kept = [name.replace(CONTROL, found.plain) for name in kept if name != f"difference_{found.plain}"]
    if found.metric not in FRAME_COLUMNS or found.metric.startswith("val_"):
        kept = [name for name in kept if name != "val_accuracy"]
    return tuple(found.metric if name == "test_accuracy" else name for name in kept)


def rivals(found: Results, summary: pd.DataFrame, choice: Choice) -> list[Printed]:
    """Methods on bases of a constant rate beside the plain annealed run of the same length, model and data."""
    digits, printed = METRICS[found.metric].digits, []
    unit = " %" if METRICS[found.metric].unit == "%" else ""
    difference = f"difference ({unit_of_difference(found.metric).removeprefix('of ')})"
    text = (
        f"{in_words(found.metric)} of methods on a base of constant rate, beside the plain run of the same length with "
        "an annealed rate (base_recalibrated of the optimizer named): does a method beat what one would do anyway? "
        "Means ± sample standard deviations over the seeds that both have; difference paired by seed with its 95 % "
        f"interval. {EXPLORATORY_WORDS} {_margin(found)}{intervals(found)}"
    )
    note = (
        f"Mean ± sample standard deviation over {seeds_in_words(found)}; annealed: plain training of the same length "
        f"at an annealed rate. Differences are paired by seed, with 95 % intervals. {note_on_verdicts(found)}"
    )
    for (*row, twin), lines in found.rivals.groupby([*ROW, "twin"], sort=False):
        shown = [line for line in lines.to_dict("records") if choice.keeps(str(line["method"]))]
        texts = [
            {
                "method": str(line["method"]),
                "n": f"{line['n']}" if line["n"] == line["seeds"] else f"{line['n']}/{line['seeds']}",
                f"method's{unit}": Spread(line["method_mean"], line["method_std"], line["n"]).text(digits),
                f"annealed{unit}": Spread(line["rival_mean"], line["rival_std"], line["n"]).text(digits),
                difference: interval(line["mean"], line["low"], line["high"], digits),
                "verdict": verdict({f"{name}_to_rival": line[name] for name in _JUDGED}, "rival", digits),
                "wins": f"{line['wins']}/{line['n']}",
            }
            for line in shown
        ]
        if texts:
            title, label = f"{', '.join(map(str, row))} beside {twin}", "-".join(["rivals", *map(str, row)])
            short = f"{in_words(found.metric)} beside plain annealed training"
            printed.append(Printed(text, pd.DataFrame(texts), title=title, label=label, short_caption=short, note=note))
            text = "As above."
    return printed


_JUDGED = ("verdict", "family", "findable")


def images(found: Results, summary: pd.DataFrame, choice: Choice) -> list[Printed]:
    """How many test images a method and its control alone get right, with McNemar's exact test in every seed."""
    text = (
        "Test images that a method or its control alone gets right, as means per seed, and McNemar's exact test in "
        "every seed, not adjusted. It says whether two trained models differ on such images, not whether two methods "
        "do: two runs of one method differ too."
    )
    note, printed = text, []
    for row, of_row in found.images.groupby(ROW, sort=False):
        lines: list[dict[str, str]] = []
        for names, own in of_row.groupby(["method", "control"], sort=False):
            method, control = map(str, names)
            if not choice.keeps(method):
                continue
            ps = own["p"].tolist()
            line = {"method": method, "control": control, "images": f"{own['images'].iloc[0]}", "seeds": f"{len(own)}"}
            line |= {
                "only the method (images)": f"{own['only_method'].mean():.1f}",
                "only the control (images)": f"{own['only_control'].mean():.1f}",
                "p by seed": ", ".join(map(probability, ps))
                if len(ps) <= _PS
                else f"{probability(min(ps))} to {probability(max(ps))}",
            }
            lines.append(line)
        if lines:
            title, label = ", ".join(map(str, row)), "-".join(["images", *map(str, row)])
            short = "Test images that one of two alone gets right"
            table = pd.DataFrame(lines)
            printed.append(Printed(text, table, names=2, title=title, label=label, short_caption=short, note=note))
            text = "As above."
    return printed


_PS = 6
"""The most seeds whose p values are printed one by one."""


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
        + f" ∞: most seeds do not reach it. Methods that see the whole run are left out. {comparable(summary)}"
    )
    return by_row(found, summary, PROGRESS, causal, text, "Progress", f"{seeds_in_words(found).capitalize()}. {text}")


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
    short, count = "Motion left unexplained, in percent", len(ROW_METHOD)
    return [Printed(text, pd.DataFrame(lines), names=count, label="errors", short_caption=short)] if lines else []


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
        f"that only watch it. {_meanings(COSTS)} {comparable(summary)}"
    )
    return by_row(found, summary, ("n", *COSTS), choice, text, "Cost", f"{seeds_in_words(found).capitalize()}. {text}")


def comparable(summary: pd.DataFrame) -> str:
    """Whether seconds can be compared: which were measured beside other work, and which do not say."""
    own = summary[summary["model"] != ALL]
    busy, unknown, n = (int(own[name].sum()) for name in ("busy_cells", "unknown_cells", "n"))
    parts = []
    if busy:
        parts.append(
            f"{BUSY_MARK}: {busy} of {n} cells ran while other processes, jobs of the same run among them, had more "
            f"than {100 * BUSY:.0f} % of the cores, so that their seconds are longer than those of the others."
        )
    if unknown:
        parts.append(f"Of {unknown} of {n} cells it is not known what else ran.")
    idle = f"Other processes never had more than {100 * BUSY:.0f} % of the cores."
    return " ".join([*parts, "Compare gradients in place of seconds."]) if parts else idle


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
    theirs_are = (
        " Published: Brokman et al., ICLR 2024, mean ± standard deviation of their runs." if any_published else ""
    )
    text = f"{caption(found.metric)} {tested(found)}{theirs_are}"
    groups: dict[str, tuple[str, str]] = {}
    for name in (name for name in texts.columns if f"{name}, published" in texts.columns):
        groups |= {name: (style_of(name).label, "ours"), f"{name}, published": (style_of(name).label, "published")}
    return Printed(
        text,
        texts,
        marked,
        names=len(names),
        title=title,
        label=label,
        short_caption=in_words(found.metric),
        note=note_on_means(found) + theirs_are,
        groups=groups,
    )
