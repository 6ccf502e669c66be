"""Tables of published results, made from their CSV files when the site is built."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pandas as pd
from prose import table

from harness.report.method_styles import style_of
from harness.report.stats.paired import interval as interval_of

PUBLISHED = Path(__file__).parents[2] / "results" / "published"
ROW = ["model", "dataset", "optimizer"]


@cache
def summary(suite: str) -> pd.DataFrame:
    """One line per method and row of a published suite."""
    return pd.read_csv(PUBLISHED / suite / "summary.csv")


@cache
def comparisons(suite: str) -> pd.DataFrame:
    """Every paired comparison of a published suite, of test accuracy."""
    found = pd.read_csv(PUBLISHED / suite / "comparisons.csv")
    return found[found["metric"] == "test_accuracy"]


def rows_of(suite: str) -> list[tuple[str, str, str]]:
    """Model, data set and optimizer of every row, in order; not of those that join several."""
    found = dict.fromkeys(comparisons(suite)[ROW].itertuples(index=False, name=None))
    return [row for row in found if "all" not in row]


def accuracy(suite: str, row: tuple[str, str, str], method: str) -> str:
    """`85.08 ± 0.15`, empty where the method did not run there."""
    from_rows = means(suite)
    found = from_rows.get((row, method))
    return "" if found is None else f"{found[0]:.2f} ± {found[1]:.2f}"


@cache
def means(suite: str) -> dict[tuple[tuple[str, str, str], str], tuple[float, float]]:
    """Mean and sample standard deviation of test accuracy by row and method."""
    found = summary(suite)
    return {
        ((line["model"], line["dataset"], line["optimizer"]), line["method"]): (
            line["test_accuracy_mean"],
            line["test_accuracy_std"],
        )
        for line in found.to_dict("records")
        if line["test_accuracy_mean"] == line["test_accuracy_mean"]
    }


def difference(
    suite: str, row: tuple[str, str, str], method: str, control: str = "base_recalibrated"
) -> pd.Series | None:
    """The comparison of a method with a control in a row; None where there is none."""
    found = comparisons(suite)
    chosen = found[(found[ROW] == list(row)).all(axis=1) & (found["method"] == method) & (found["control"] == control)]
    return None if chosen.empty else chosen.iloc[0]


def signed(value: float) -> str:
    """`+1.37`, `-0.28`, never `-0.00`."""
    return f"{round(value, 2) + 0.0:+.2f}"


def interval(line: pd.Series) -> str:
    """`+0.69 to +2.06`"""
    return f"{signed(line['low'])} to {signed(line['high'])}"


def main_table(suite: str) -> str:
    """Test accuracy of every method in every row, and in brackets the difference to the recalibrated base."""
    rows = rows_of(suite)
    methods = list(dict.fromkeys(summary(suite)["method"]))
    heads = ["method", *(f"{model}, {optimizer}" for model, _, optimizer in rows)]
    return table(
        heads, [[f"`{method}`", *(_entry(suite, row, method) for row in rows)] for method in methods], right=True
    )


IN_README = (
    "base", "base_recalibrated", "cooldown", "ema", "swa", "time_mean", "pca2", "cmd_mean_kernel", "cmd_posthoc",
    "cmd_online",
)  # fmt: skip
"""the methods of the table in README.md"""
HEADS = {"sgd_momentum": "SGD, constant", "adam": "Adam, constant"}


def readme_table() -> str:
    """The table of README.md: ten methods of `all`."""
    rows = rows_of("all")
    heads = ["method", *(f"{model}, {HEADS.get(optimizer, 'cosine')}" for model, _, optimizer in rows)]
    lines = [[f"`{method}`", *(_entry("all", row, method) for row in rows)] for method in IN_README]
    return table(heads, lines, right=True)


def means_table(suite: str) -> str:
    """Test accuracy of every method in every row, of a suite whose comparisons are not those of today."""
    rows = list(dict.fromkeys(row for row, _ in means(suite)))
    heads = ["method", *(f"{model}, {optimizer}" for model, _, optimizer in rows)]
    methods = dict.fromkeys(method for _, method in means(suite))
    return table(
        heads, [[f"`{method}`", *(accuracy(suite, row, method) for row in rows)] for method in methods], right=True
    )


def _entry(suite: str, row: tuple[str, str, str], method: str) -> str:
    value, line = accuracy(suite, row, method), difference(suite, row, method)
    return f"{value} ({signed(line['mean'])})" if line is not None and value else value


def decided_table(suite: str) -> str:
    """Those comparisons that a suite was run to decide and did."""
    return primary_table(suite, decided=True)


def primary_table(suite: str, decided: bool = False) -> str:
    """The comparisons that a suite was run to decide, with their intervals and verdicts, or the decided ones alone."""
    found = comparisons(suite)
    primary = found[(found["family"] == "primary") & ~(decided & (found["verdict"] == "undecided"))]
    lines = [
        [
            f"`{line['method']}`" if not decided else f"`{line['method']}` to `{line['control']}`",
            f"{line['model']}, {line['optimizer']}",
            signed(line["mean"]),
            interval(line),
            f"{line['p_holm']:.3f}",
            f"**{line['verdict']}**" if line["verdict"] != "undecided" else f"undecided (finds {line['findable']:.2f})",
        ]
        for _, line in primary.iterrows()
    ]
    heads = ["method", "where", "difference", "95 % interval", "p, Holm", "verdict"]
    return table(heads, lines)


def errors_table(suite: str) -> str:
    """What models of the weights' motion leave unexplained."""
    found = pd.read_csv(PUBLISHED / suite / "errors.csv")
    found = found[found["dimension"] == found["dimension"].max()]
    fits = list(dict.fromkeys(found["fit"]))
    lines = []
    for (model, _, optimizer), own in found.groupby(ROW, sort=False):
        shares = own.set_index("fit")["share"]
        lines.append([f"{model}, {optimizer}", *(f"{100 * shares[fit]:.1f} %" for fit in fits)])
    return table(["base", *fits], lines, right=True)


@cache
def communication(suite: str) -> pd.DataFrame:
    """Share of federated averaging's bytes that every method saved, in percent, by row and method: means over seeds."""
    found = pd.read_csv(PUBLISHED / suite / "communication.csv")
    return found.groupby([*ROW, "method"], sort=False)["saved"].mean()


def communication_table(suite: str, optimizer: str) -> str:
    """Test accuracy of every exchange, its difference to federated averaging, and what it saves of its bytes."""
    rows = [row for row in rows_of(suite) if row[2] == optimizer]
    saved = communication(suite)
    methods = list(dict.fromkeys(method for row, method in means(suite) if row in rows))
    heads = ["method", *(f"{dataset.partition('-')[2]}: {what}" for _, dataset, _ in rows for what in WHAT)]
    lines = []
    for method in (method for method in methods if method not in ("base_recalibrated", "ema")):
        lines.append([f"`{method}`"])
        for row in rows:
            line = difference(suite, row, method, "base")
            beside = "" if line is None else f"{signed(line['mean'])} ({interval(line)})"
            lines[-1] += [accuracy(suite, row, method), beside, f"{saved[(*row, method)]:.0f}"]
    return table(heads, lines, right=True)


KINDS = {"constant": "constant", "partly annealed": "falls to half", "annealed": "falls to 0"}
"""rows of a suite of schedules that are taken together, and what stands above them"""


def over_rows(suite: str, method: str, kind: str, control: str = "base_recalibrated") -> pd.Series | None:
    """The comparison of a method with a control over all rows of a kind of schedule; None where there is none."""
    return difference(suite, ("all", "all", kind), method, control)


def kinds_table(suite: str) -> str:
    """What every method gains over plain training at each kind of schedule, over all its rows."""
    methods = [
        method for method in dict.fromkeys(summary(suite)["method"]) if method not in ("base", "base_recalibrated")
    ]
    lines = []
    for method in methods:
        found = [over_rows(suite, method, kind) for kind in KINDS]
        beside = ["" if line is None else f"{signed(line['mean'])} ({interval(line)})" for line in found]
        lines.append([f"`{method}`", *beside])
    return table(["method", *KINDS.values()], lines, right=True)


def plain_table(suite: str) -> str:
    """Test accuracy of plain training in every row."""
    rows = [[f"{row[0]}, {row[2]}", accuracy(suite, row, "base_recalibrated")] for row in rows_of(suite)]
    return table(["base", "plain training, test %"], rows, right=True)


@cache
def tuned(suite: str) -> pd.DataFrame:
    """Test accuracy of every row and method at its defaults and tuned, by the same seeds: means, the paired difference
    with its interval, and ranks within the row, 1 the best."""
    cells = pd.read_csv(PUBLISHED / suite / "accuracy.csv").assign(gain=lambda cell: cell["tuned"] - cell["default"])
    groups = cells.groupby([*ROW, "method"], sort=False)
    found = groups[["default", "tuned", "gain"]].mean()
    found["low"], found["high"] = zip(*(interval_of(own["gain"].to_numpy()) for _, own in groups), strict=True)
    for name in ("default", "tuned"):
        ranks = found.groupby(level=[0, 1, 2], sort=False)[name].rank(ascending=False, method="min")
        found[f"{name}_rank"] = ranks.astype(int)
    return found


def tuned_table(suite: str) -> str:
    """What tuning changes: means, the paired difference, and ranks among the methods of a row."""
    found = tuned(suite)
    rows = list(dict.fromkeys(key[:3] for key in found.index))
    heads = ["method", *(f"{model}, {optimizer}" for model, _, optimizer in rows)]
    lines = []
    for method in dict.fromkeys(key[3] for key in found.index):
        lines.append([f"`{method}`"])
        for row in rows:
            if (*row, method) not in found.index:
                lines[-1].append("")
                continue
            line = found.loc[(*row, method)]
            lines[-1].append(
                f"{line['default']:.2f} → {line['tuned']:.2f} ({signed(line['gain'])}), "
                f"{line['default_rank']:.0f} → {line['tuned_rank']:.0f}"
            )
    return table(heads, lines, right=True)


WHAT = ("test %", "to `base`, 95 % interval", "saved %")


def of_method(method: str, suite: str = "all") -> str:
    """A method's line in a suite; empty where it is not part of it."""
    lines = []
    for row in rows_of(suite):
        value, line = accuracy(suite, row, method), difference(suite, row, method)
        if not value:
            continue
        beside = (
            ["", "", ""]
            if line is None
            else [signed(line["mean"]), interval(line) if line["low"] == line["low"] else "", line["verdict"]]
        )
        lines.append([f"{row[0]}, {row[2]}", value, *beside])
    if not lines:
        return ""
    text = table(["base", "test accuracy, %", "to `base_recalibrated`", "95 % interval", "verdict"], lines)
    return (
        f"Suite `{suite}` ({style_of(method).label} on Fashion-MNIST, see [Results](../results.md)), with the settings "
        f"that `conf/suite/{suite}.yaml` gives it; verdicts of comparisons that were not named beforehand are "
        f"exploratory.\n\n{text}"
    )


TABLES: dict[str, Callable[..., str]] = {
    "main": main_table,
    "means": means_table,
    "primary": primary_table,
    "decided": decided_table,
    "errors": errors_table,
    "communication": communication_table,
    "kinds": kinds_table,
    "plain": plain_table,
    "tuned": tuned_table,
}
"""What a page may name in `<!-- table: NAME SUITE -->`."""
