"""What the statistics say, as sentences: what was tested and found, what is equivalent, and what is undecided.

Plain training is the control `base_recalibrated`. A training run counts once, however many methods watched it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from harness.report.method_styles import CMD, KNOWN, style_of
from harness.report.stats.comparisons import EQUIVALENT, EXPLORATORY, PRIMARY, family
from harness.report.stats.means import ALL, BESIDE, CONTROL, CONTROLS, Row, of_row, over_rows
from harness.report.stats.paired import SEEDS
from harness.report.stats.summary import Results, own_controls
from harness.results.columns import METRICS, ROW, ROW_METHOD

MANY = 6
"""The most comparisons of one verdict that are said with their intervals."""
ROWS = 4
"""The most rows that have sentences of their own; of more, the lines over all of them speak."""

MOST_NAMED = 24
"""The most methods that one sentence names."""


def joined(names: Sequence[str]) -> str:
    """Names as a sentence lists them: `a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def shortened(names: Sequence[str]) -> list[str]:
    """The first MOST_NAMED of many names, and how many more there are; each of few."""
    more = len(names) - MOST_NAMED
    return [*names[:MOST_NAMED], f"{more} more"] if more > 1 else [*names]


def unit_of_difference(metric: str) -> str:
    """What differences of a metric are counted in, such as `points` or `of test loss`."""
    spec = METRICS[metric]
    return "points" if spec.unit == "%" else f"of {spec.title}"


def headline(found: Results) -> list[str]:
    """Sentences on a suite: the primary comparisons, what is seen beside them, and the plain annealed runs.

    Says instead why nothing is tested where there are too few seeds or no control.
    """
    compared = _alike(found)
    if not _can_test(compared, found.plain):
        return conclusions(found)
    seen = [*_seen(found, compared), *_rivals(found), *_own(found, compared)]
    return [*conclusions(found), *map(_as_sentence, seen)]


def conclusions(found: Results) -> list[str]:
    """The sentences of `headline` on what was tested, or on why nothing is."""
    compared = _alike(found)
    against = compared[(compared["control"] == found.plain) & (compared["model"] != ALL)]
    if against.empty:
        return [
            "Nothing can be compared yet: no method is finished on a base whose recalibrated weights are evaluated."
        ]
    return [*map(_as_sentence, _primary(found))] if _can_test(compared, found.plain) else [_untested(found, against)]


FINDINGS = [*ROW_METHOD, "control", "mean", "low", "high", "finished", "verdict"]
"""The columns of `findings`."""


def findings(found: Results) -> pd.DataFrame:
    """What is exploratory, a line per comparison: every method of a row against plain training, against the control
    that its preset names (CMD's against the time mean where none is named), and against the plain run of the same
    length with an annealed rate, whose control is `base_recalibrated, <its optimizer>`.

    Columns: FINDINGS, of which mean, low and high are in the metric's unit. Rows are in the plan's order, in each the
    verdicts from ahead to behind. Empty where there are too few seeds.
    """
    compared, named = _alike(found), own_controls(found.frame)
    if not _can_test(compared, found.plain):
        return pd.DataFrame(columns=FINDINGS)
    lines = compared[(compared["family"] == EXPLORATORY) & (compared["finished"] >= SEEDS) & (compared["model"] != ALL)]
    keys = zip(*(lines[name].tolist() for name in ROW_METHOD), strict=True)
    own = [control_of(named, dict(zip(ROW_METHOD, key, strict=True))) for key in keys]
    asked = (lines["control"] == found.plain) | (lines["control"] == pd.Series(own, index=lines.index, dtype="str"))
    beside = found.rivals[found.rivals["alike"].astype("bool") & (found.rivals["finished"] >= SEEDS)]
    beside = beside[beside["method"] != CONTROL]
    beside = beside.assign(control=f"{CONTROL}, " + beside["twin"].astype("str"))
    table = pd.concat([lines[asked & (lines["method"] != BESIDE)][FINDINGS], beside[FINDINGS]], ignore_index=True)
    rows = pd.Series(map(tuple, table[ROW].astype("str").to_numpy().tolist()), dtype="object").map(
        {row: place for place, row in enumerate(found.rows)}
    )
    sign = -1 if METRICS[found.metric].higher_is_better else 1
    order = table.assign(row=rows, place=table["verdict"].map(VERDICTS.index), gain=sign * table["mean"])
    return table.loc[order.sort_values(["row", "place", "gain"], kind="stable").index].reset_index(drop=True)


VERDICTS = ("ahead", "close", "open", "behind")
"""Where an exploratory interval may lie."""


def counted(table: pd.DataFrame) -> str:
    """How many of `findings` lie where, in a sentence."""
    ahead, close, open_, behind = (int((table["verdict"] == verdict).sum()) for verdict in VERDICTS)
    return (
        f"In {len(table)} exploratory comparisons, whose intervals are not adjusted, the method lies ahead in {ahead}, "
        f"close in {close} and behind in {behind}; {_are(open_)} open."
    )


def _alike(found: Results) -> pd.DataFrame:
    """The comparisons under one BatchNorm policy."""
    return found.compared[found.compared["alike"].astype("bool")]


def _can_test(compared: pd.DataFrame, control: str) -> bool:
    """Whether a method is compared with plain training over enough seeds."""
    plain = (compared["control"] == control) & (compared["model"] != ALL)
    return bool(plain.any()) and bool(compared["finished"].max() >= SEEDS)


def _as_sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def control_of(named: pd.Series[str], line: Mapping[str, Any]) -> str:
    """The control beside plain training that a line's method is measured by: of `named` its own, for CMD's methods
    without one the time mean, and otherwise none, which is empty."""
    control = named.get(tuple(line[name] for name in ROW_METHOD))
    if not isinstance(control, str):
        control = CONTROLS[1] if style_of(str(line["method"])).family == CMD else ""
    return "" if control in (CONTROL, BESIDE) else control


def _name(method: object) -> str:
    """A method's label within a sentence."""
    if method == CONTROL:
        return "plain training"
    label = style_of(str(method)).label
    return label[0].lower() + label[1:] if label[1:2].islower() and str(method) in KNOWN else label


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _size(found: Results, line: pd.Series) -> str:
    """A difference with its interval: `+1.40 points, 95 % interval +1.10 to +1.70`."""
    digits = METRICS[found.metric].digits
    low, high = (_signed(line[end], digits) for end in ("low", "high"))
    ends = "the same in every run" if math.isnan(line["low"]) else f"95 % interval {low} to {high}"
    return f"{_signed(line['mean'], digits)} {unit_of_difference(found.metric)}, {ends}"


def _where(found: Results, row: Row) -> str:
    """A row by what sets it apart from the others of the suite; nothing where it is the only one."""
    if not found.several:
        return ""
    if row[0] == ALL:
        return "" if row[-1] == ALL else f" at {row[-1]} rate"
    kept = [part for place, part in enumerate(row) if place == 0 or len({other[place] for other in found.rows}) > 1]
    return f" on {' '.join(kept)}"


def _row_of(line: pd.Series) -> Row:
    return tuple(str(line[name]) for name in ROW)


def _runs(lines: pd.DataFrame) -> str:
    """The training runs that lines are of, each counted once."""
    own = lines if (lines["model"] == ALL).all() else lines[lines["model"] != ALL]
    count = int(own.groupby(ROW, sort=False)["runs"].max().sum())
    return f"{count} training {'run' if count == 1 else 'runs'}"


def _primary(found: Results) -> Iterator[str]:
    """How many primary comparisons were decided, over how many training runs, and each by its verdict."""
    if not found.primary:
        yield (
            "This suite names no primary comparisons: what follows is exploratory, from intervals that "
            "are not adjusted, and nothing is tested."
        )
        return
    _, tests = family(found.frame)
    lines = found.compared[found.compared["family"] == PRIMARY]
    groups = {str(verdict): own for verdict, own in lines.groupby("verdict", sort=False)}
    counts = {verdict: len(groups.get(verdict, ())) for verdict in ("better", "worse", EQUIVALENT, "undecided")}
    left = tests - sum(counts.values())
    within = f" within {found.margin:g} points" if METRICS[found.metric].unit == "%" else ""
    yield (
        f"of {tests} primary {'comparison' if tests == 1 else 'comparisons'} over {_runs(lines)}, {counts['better']} "
        f"found the method better, {counts['worse']} worse and {counts[EQUIVALENT]} equivalent{within}; "
        f"{_are(counts['undecided'])} undecided" + (f" and {_are(left)} not made." if left else ".")
    )
    for verdict, count in counts.items():
        if count:
            say = _compared if count <= MANY else _briefly
            yield f"{verdict}: {'; '.join(say(found, line) for _, line in groups[verdict].iterrows())}."


def _are(count: int) -> str:
    return f"{count} {'is' if count == 1 else 'are'}"


def _pair(found: Results, line: pd.Series) -> str:
    return f"{_name(line['method'])} against {_name(line['control'])}{_where(found, _row_of(line))}"


def _briefly(found: Results, line: pd.Series) -> str:
    """A comparison with its difference and interval alone, where there are many."""
    digits = METRICS[found.metric].digits
    low, high = (_signed(line[end], digits) for end in ("low", "high"))
    ends = "" if math.isnan(line["low"]) else f", {low} to {high}"
    return f"{_pair(found, line)} ({_signed(line['mean'], digits)}{ends})"


def _compared(found: Results, line: pd.Series) -> str:
    """A comparison with its difference, and with what would have been found where it is undecided."""
    size = _size(found, line)
    if line["verdict"] == "undecided" and not math.isnan(line["findable"]):
        size += f"; would have found {line['findable']:.{METRICS[found.metric].digits}f}"
    return f"{_pair(found, line)} ({size})"


def _shown_rows(found: Results) -> list[Row]:
    """The rows that sentences are about: each, or where they are many all together."""
    return found.rows if len(found.rows) <= ROWS else list(over_rows(found.frame))


def _seen(found: Results, compared: pd.DataFrame) -> Iterator[str]:
    """Where the unadjusted intervals of the differences to plain training lie, a sentence per row."""
    lines = compared[(compared["control"] == found.plain) & (compared["family"] == EXPLORATORY)]
    for row in _shown_rows(found):
        own = of_row(lines, row)
        own = own[(own["finished"] >= SEEDS) & (own["method"] != BESIDE)]
        if len(own):
            yield f"exploratory, {_runs(own)}{_where(found, row)}: against plain training {_by_place(found, own)}."


def _by_place(found: Results, lines: pd.DataFrame) -> str:
    """Methods by where their intervals lie, the largest difference to the better side first."""
    digits, sign = METRICS[found.metric].digits, METRICS[found.metric].higher_is_better
    ordered = lines.sort_values("mean", ascending=not sign, kind="stable")
    words = {
        "ahead": "the interval lies on the better side of 0 for",
        "behind": "on the worse side for",
        "close": f"within {found.margin:g} points of 0 for",
        "open": "and nothing can be said of",
    }
    parts = []
    for verdict, word in words.items():
        own = ordered[ordered["verdict"] == verdict]
        if len(own):
            names = [f"{_name(line['method'])} ({_signed(line['mean'], digits)})" for _, line in own.iterrows()]
            parts.append(f"{word} {joined(shortened(names))}")
    text = ", ".join(parts)
    if text.startswith("the interval"):
        return text
    return text.removeprefix("and ") if text.startswith("and ") else f"the interval lies {text}"


def _rivals(found: Results) -> Iterator[str]:
    """Whether a method on a base of constant rate beats the plain annealed run of the same length."""
    lines = found.rivals[found.rivals["alike"].astype("bool") & (found.rivals["finished"] >= SEEDS)]
    lines = lines[lines["method"] != CONTROL]
    beside = "exploratory, beside the plain run of the same length with an annealed rate"
    bases = lines.groupby([*ROW, "twin"], sort=False)
    if len(bases) > ROWS:
        counts = lines["verdict"].value_counts()
        words = joined([f"{counts.get(verdict, 0)} {verdict}" for verdict in ("ahead", "behind", "close", "open")])
        yield f"{beside}: of {len(lines)} methods on {len(bases)} bases of constant rate {words}."
        return
    for names, own in bases:
        *row, twin = map(str, names)
        methods = own.sort_values("mean", ascending=not METRICS[found.metric].higher_is_better, kind="stable")
        ahead, best = methods[methods["verdict"] == "ahead"], methods.iloc[0]
        count = f"{len(methods)} {'method' if len(methods) == 1 else 'methods'}"
        text = (
            f"{beside} ({' '.join([*row[:2], twin])}): of {count} on {row[2]}, {int(best['runs'])} training runs each,"
        )
        if len(ahead):
            better = [f"{_name(line['method'])} ({_size(found, line)})" for _, line in ahead.iterrows()]
            shown = joined(shortened(better))
            yield f"{text} ahead {'is' if len(ahead) == 1 else 'are'} {shown}."
        else:
            yield f"{text} none is ahead; the best mean is that of {_name(best['method'])} ({_size(found, best)})."


def _own(found: Results, compared: pd.DataFrame) -> Iterator[str]:
    """What methods gain over the controls that their presets name, and CMD over the time mean where none is named."""
    named = own_controls(found.frame)
    exploratory = compared[(compared["family"] == EXPLORATORY) & (compared["finished"] >= SEEDS)]
    for row in _shown_rows(found):
        parts = []
        for _, line in of_row(exploratory, row).iterrows():
            control = control_of(named, dict(line))
            if line["control"] == control:
                parts.append(f"{_name(line['method'])} to {_name(control)} ({_size(found, line)}: {line['verdict']})")
        if parts:
            yield f"exploratory, beside their own controls{_where(found, row)}: {joined(parts)}."


def _untested(found: Results, against: pd.DataFrame) -> str:
    """Fewer seeds than a test needs: the best mean, and whose it is, and a warning."""
    ordered = against.sort_values("mean", ascending=not METRICS[found.metric].higher_is_better, kind="stable")
    best = ordered.iloc[0]
    ties = ordered[(ordered["mean"] == best["mean"]) & (ordered[ROW] == best[ROW]).all(axis=1)]
    runs = f"{int(best['runs'])} training {'run' if best['runs'] == 1 else 'runs'}"
    if best["mean"] == 0:
        return (
            f"No test is possible with fewer than {SEEDS} seeds. No method has a better mean than plain training "
            f"({found.plain}) in {runs}{_where(found, _row_of(best))}."
        )
    return (
        f"No test is possible with fewer than {SEEDS} seeds. The best mean is that of "
        f"{joined([_name(method) for method in ties['method']])}"
        f"{_where(found, _row_of(best))}: {_signed(best['mean'], METRICS[found.metric].digits)} "
        f"{unit_of_difference(found.metric)} to plain training ({found.plain}) in {runs}, which may be chance."
    )
