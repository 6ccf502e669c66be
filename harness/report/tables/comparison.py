"""A comparison with another results folder or with published numbers, as printed tables."""

from __future__ import annotations

import math

import pandas as pd

from harness.report.stats.means import Spread, in_words
from harness.report.stats.other_results import Comparison
from harness.report.stats.paired import SEEDS
from harness.report.tables.columns import Choice, number, probability
from harness.report.tables.printed import Printed
from harness.results.columns import METRICS, ROW


def comparison_tables(comparison: Comparison, choice: Choice) -> list[Printed]:
    """The comparison as tables of texts, one for each model, data set and optimizer."""
    text, notes = _caption(comparison), comparison.notes
    tables = []
    for row, own in comparison.table.groupby(ROW, sort=False):
        texts = _texts(own, comparison, choice)
        title, label = ", ".join(map(str, row)), "-".join(["compare", *map(str, row)])
        short = f"{in_words(comparison.metric)}, ours against {comparison.other}"
        tables.append(
            Printed(text, texts, title=title, notes=notes, label=label, short_caption=short, note=_caption(comparison))
        )
        text, notes = "As above.", []
    return tables


def _texts(table: pd.DataFrame, comparison: Comparison, choice: Choice) -> pd.DataFrame:
    digits = METRICS[comparison.metric].digits
    paired = "paired" in table.columns
    lines = []
    for line in table.to_dict("records"):
        if not choice.keeps(str(line["method"])):
            continue
        theirs_n = int(line["theirs_n"]) if paired else 2
        texts = {
            "method": str(line["method"]),
            "ours": Spread(line["ours_mean"], line["ours_std"], int(line["ours_n"])).text(digits),
            "theirs": Spread(line["theirs_mean"], line["theirs_std"], theirs_n).text(digits),
            "difference": number(line["difference"], digits, "+"),
        }
        if paired:
            pairs = 0 if math.isnan(line["pairs"]) else int(line["pairs"])
            interval = "" if math.isnan(line["low"]) else f" [{line['low']:+.{digits}f}, {line['high']:+.{digits}f}]"
            texts["paired"] = number(line["paired"], digits, "+") + interval
            texts["pairs (same cell)"] = f"{pairs} ({0 if pairs == 0 else int(line['same'])})"
            texts["p"] = probability(line["p_holm"])
        lines.append(texts)
    columns = ["method", "ours", "theirs", "difference", *(("paired", "pairs (same cell)", "p") if paired else ())]
    return pd.DataFrame(lines, columns=columns)


def _caption(comparison: Comparison) -> str:
    """What the numbers of a comparison are."""
    text = f"{in_words(comparison.metric)}, ours against {comparison.other}: mean ± standard deviation over seeds. "
    if "paired" not in comparison.table.columns:
        return text + "The other numbers' seeds are not known, so nothing is tested."
    known = comparison.table["images"] > 0
    some = ", and the test images where both sides say which they got right" if known.any() else " alone"
    return text + (
        "Paired: mean difference over equal seeds with its 95 % interval, which covers the seeds"
        f"{' and the test images' if known.all() else some}; p: of the paired difference, Holm over all lines, from "
        f"{SEEDS} pairs on. Pairs with the same cell key are the same experiment."
    )
