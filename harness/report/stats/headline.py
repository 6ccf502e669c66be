"""What the statistics say, as sentences: who is better than plain training, by how much, how often, and who ties.

Plain training is the control `base_recalibrated`.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from harness.report.method_styles import CMD, KNOWN, style_of
from harness.report.stats.means import CONTROL, CONTROLS, of_row
from harness.report.stats.paired import ALPHA, SEEDS
from harness.report.stats.ranks import Ranking
from harness.report.stats.summary import Results
from harness.results.columns import METRICS

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def joined(names: Sequence[str]) -> str:
    """Names as a sentence lists them: `a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def unit_of_difference(metric: str) -> str:
    """What differences of a metric are counted in, such as `points` or `of test loss`."""
    spec = METRICS[metric]
    return "points" if spec.unit == "%" else f"of {spec.title}"


def headline(found: Results) -> list[str]:
    """Sentences over all pairs of a suite, from the tests against the controls and between the methods.

    Says instead why there is no test where there are too few seeds or no control.
    """
    own = of_row(found.compared, found.overall)
    against = own[(own["control"] == CONTROL) & own["alike"]].set_index("method")
    if against.empty:
        return [
            "Nothing can be compared yet: no method is finished on a base whose recalibrated weights are evaluated."
        ]
    if against["finished"].max() < SEEDS:
        return [_untested(found, against)]
    tested = against[against["p_holm"].notna()]
    better = _ordered(found, tested[tested["verdict"] == "better"])
    worse = _ordered(found, tested[tested["verdict"] == "worse"])
    level = tested[tested["verdict"] == "tie"]
    sentences = [_better(found, better, found.ranked[found.overall])] if len(better) else [_none(tested)]
    if len(worse):
        sentences.append(f"Worse than plain training: {_each(found, worse)}.")
    ahead, behind = level["wins"] == level["n"], level["losses"] == level["n"]
    for word, lines in (("Ahead of", level[ahead]), ("Behind", level[behind])):
        if len(lines):
            sentences.append(
                f"{word} plain training in every pair, but not significantly after Holm's correction: "
                f"{_sizes(found, lines)}."
            )
    rest = level[~ahead & ~behind]
    if len(rest) and len(better):
        names = joined([_name(method) for method in rest.index])
        sentences.append(f"Not to be told apart from plain training: {names}.")
    sentences += _against_time_mean(found, own)
    return [sentence[0].upper() + sentence[1:] for sentence in sentences]


def _name(method: object) -> str:
    """A method's label within a sentence."""
    label = style_of(str(method)).label
    return label[0].lower() + label[1:] if label[1:2].islower() and str(method) in KNOWN else label


def _ordered(found: Results, lines: pd.DataFrame) -> pd.DataFrame:
    return lines.sort_values("mean", ascending=not METRICS[found.metric].higher_is_better, kind="stable")


def _digits(found: Results) -> int:
    return METRICS[found.metric].digits - (1 if found.metric.endswith("accuracy") else 0)


def _by(found: Results, lines: pd.DataFrame) -> str:
    """By how much and how often: `1.4 points (95 % interval 1.1 to 1.7) in 6 of 6 pairs`, of several methods a span."""
    digits, sizes = _digits(found), lines["mean"].abs()
    pairs = f"in {lines['wins'].sum():.0f} of {lines['n'].sum():.0f} pairs"
    if len(lines) > 1:
        least, most = f"{sizes.min():.{digits}f}", f"{sizes.max():.{digits}f}"
        span = least if least == most else f"{least} to {most}"
        return f"{span} {unit_of_difference(found.metric)} {pairs}"
    line = lines.iloc[0]
    low, high = sorted((abs(line["low"]), abs(line["high"]))) if line["low"] * line["high"] > 0 else ("", "")
    shown = (f"{low:.{digits}f} to {high:.{digits}f}",) if low != "" else (_signed_interval(line, digits),)
    return f"{sizes.iloc[0]:.{digits}f} {unit_of_difference(found.metric)} (95 % interval {shown[0]}) {pairs}"


def _signed_interval(line: pd.Series, digits: int) -> str:
    return f"{line['low']:+.{digits}f} to {line['high']:+.{digits}f}"


def _better(found: Results, better: pd.DataFrame, ranking: Ranking) -> str:
    """Who beats the base; those of them that share the best rank among them tie."""
    ranks = {method: ranking.ranks[method] for method in better.index if method in ranking.ranks}
    first = [m for m in better.index if m in ranks and ranks[m] == min(ranks.values())] or list(better.index)
    rest = better.drop(index=first)
    names = joined([_name(method) for method in first])
    if len(first) == 1:
        text = f"{names} beats plain training by {_by(found, better.loc[first])}"
    else:
        all_of = "both" if len(first) == 2 else f"all {NUMBERS[len(first)] if len(first) < 10 else len(first)}"
        text = f"{names} tie; {all_of} beat plain training by {_by(found, better.loc[first])}"
    if len(rest):
        others = joined([_name(method) for method in rest.index])
        text += f"; {others} {'beats' if len(rest) == 1 else 'beat'} it by {_by(found, rest)}"
    return f"{text}."


def _each(found: Results, lines: pd.DataFrame) -> str:
    digits = _digits(found)
    return joined(
        [
            f"{_name(m)} (by {abs(line['mean']):.{digits}f} {unit_of_difference(found.metric)} in "
            f"{line['losses']} of {line['n']} pairs)"
            for m, line in lines.iterrows()
        ]
    )


def _sizes(found: Results, lines: pd.DataFrame) -> str:
    """Every method with its difference, the largest first: `SWA by 1.9 points (p = 0.16) and ...`."""
    digits, largest = _digits(found), lines["mean"].abs().sort_values(ascending=False, kind="stable").index
    return joined(
        [
            f"{_name(m)} by {abs(lines.loc[m, 'mean']):.{digits}f} {unit_of_difference(found.metric)} "
            f"(p = {lines.loc[m, 'p_holm']:.2g})"
            for m in largest
        ]
    )


def _none(tested: pd.DataFrame) -> str:
    p = tested["p_holm"].min()
    count = len(tested)
    methods = "The one method compared cannot" if count == 1 else f"None of the {count} methods compared can"
    return (
        f"{methods} be told apart from plain training as better: the smallest Holm-adjusted p is {p:.2g} "
        f"(paired t tests over {tested['n'].max():.0f} pairs, {ALPHA:.0%})."
    )


def _untested(found: Results, against: pd.DataFrame) -> str:
    """Fewer seeds than a test needs: the highest mean, and a warning."""
    best = _ordered(found, against).iloc[[0]]
    sign = "+" if best["mean"].iloc[0] >= 0 else "−"
    digits = _digits(found)
    return (
        f"No test is possible with fewer than {SEEDS} seeds. The best mean is that of {_name(best.index[0])}: "
        f"{sign}{abs(best['mean'].iloc[0]):.{digits}f} {unit_of_difference(found.metric)} to plain training "
        f"in {int(best['n'].iloc[0])} {'pair' if best['n'].iloc[0] == 1 else 'pairs'}, which may be chance."
    )


def _against_time_mean(found: Results, own: pd.DataFrame) -> list[str]:
    """Whether the CMD methods gain anything over the plain average of what they have seen."""
    lines = own[(own["control"] == CONTROLS[1]) & own["alike"] & own["p_holm"].notna()].set_index("method")
    lines = lines[[style_of(method).family == CMD for method in lines.index]]
    sentences = []
    for method in lines.index:
        verdict = lines.loc[method, "verdict"]
        if verdict == "tie":
            text = "cannot be told apart from"
            sentences.append(f"{_name(method)} {text} the time mean, the plain average of the same snapshots.")
            continue
        word = "beats" if verdict == "better" else "falls short of"
        sentences.append(f"{_name(method)} {word} its control, the time mean, by {_by(found, lines.loc[[method]])}.")
    return sentences
