"""How tables print a line of `summary`: every column that `tables.columns` can choose, by its name.

What is measured is declared in `harness.results.columns` and printed as declared there; this module adds what the
report computes from it: differences to the controls with their tests and verdicts, and times to a target.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.config import ConfigError, nearest
from harness.report.stats.comparisons import EQUIVALENT, FEW, POLICY, PRIMARY
from harness.report.stats.means import BESIDE, CONTROLS, OWN, Spread, in_words
from harness.report.tables.printed import EQUAL
from harness.report.warnings import BUSY_MARK
from harness.results.columns import COLUMNS as MEASURED
from harness.results.columns import COSTS, KERNEL, METRICS, SECONDS

Line = Mapping[str, Any]


@dataclass(frozen=True)
class TableColumn:
    """How a column is headed, and the text of a line in it; `value` names what the line sorts by."""

    heading: str
    text: Callable[[Line], str]
    value: str
    meaning: str
    control: str = ""
    """The control that it compares with, if any."""
    unit: str = ""
    """The unit of its numbers where the heading does not say it; POINTS stands for that of differences."""

    @property
    def short(self) -> str:
        """The heading without the control, which the meaning does not name either."""
        return self.heading.replace(f" ({self.control})", "").replace(self.control, "").strip()

    def headed(self, metric: str) -> str:
        """The short heading with the unit of its numbers, where methods are compared by a metric."""
        unit = self.unit
        if unit == POINTS:
            unit = "points" if METRICS[metric].unit == "%" else METRICS[metric].title
        return f"{self.short} ({unit})" if unit else self.short


POINTS = "points"
"""The unit of differences of accuracies; those of losses have the loss's own."""


def number(value: float, digits: int, sign: str = "") -> str:
    """A number rounded to `digits`, with a dash for what is not known and `∞` for what is not reached."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return ("−" if value < 0 else "+" if sign else "") + "∞"
    return f"{value:{sign},.{digits}f}"


def probability(p: float) -> str:
    """A p value with three decimals, or `<0.001`."""
    if math.isnan(p):
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _metric(name: str) -> TableColumn:
    spec = METRICS[name]

    def text(line: Line) -> str:
        mean, std = line[f"{name}_mean"], line[f"{name}_std"]
        if math.isnan(mean):
            return f"– {line['status']}".rstrip() if line["status"] != "done" else "–"
        n = int(line[f"{name}_n"])
        shown = Spread(mean, std, 1 if math.isnan(std) else n).text(spec.digits)
        equal = line[f"verdict_to_{CONTROLS[0]}"] == EQUIVALENT and name == line["compared_by"]
        return shown + (f" (n={n})" if n != line["seeds"] else "") + (f" {EQUAL}" if equal else "")

    meaning = f"{in_words(name)}: mean ± sample standard deviation over seeds"
    return TableColumn(spec.heading, text, f"{name}_mean", meaning)


def interval(mean: float, low: float, high: float, digits: int) -> str:
    """A difference with its interval in print, `+1.20 [+0.40, +2.00]`; a dash where it is not known."""
    if math.isnan(mean):
        return "–"
    ends = "" if math.isnan(low) else f" [{number(low, digits, '+')}, {number(high, digits, '+')}]"
    return number(mean, digits, "+") + ends


def verdict(line: Line, control: str, digits: int) -> str:
    """The verdict of a comparison in print: with what could have been found where it is undecided, in parentheses where
    it is exploratory, and a dash where there is none."""
    found = line[f"verdict_to_{control}"]
    if not isinstance(found, str):
        return "–"
    if found in (FEW, POLICY):
        return found.removeprefix("no test: ")
    if line[f"family_to_{control}"] != PRIMARY:
        return f"({found})"
    least = line[f"findable_to_{control}"]
    return f"undecided (finds {number(least, digits)})" if found == "undecided" and not math.isnan(least) else found


def _difference(control: str) -> TableColumn:
    def text(line: Line) -> str:
        digits = METRICS[line["compared_by"]].digits
        mean, low, high = (line[f"{part}_to_{control}"] for part in ("mean", "low", "high"))
        shown = interval(mean, low, high, digits)
        equal = f" {EQUAL}" if line[f"verdict_to_{control}"] == EQUIVALENT else ""
        named = f" ({line['control']})" if control == OWN and shown != "–" else ""
        return shown + equal + named

    meaning = "difference to the method named, paired by seed, with its 95 % interval"
    if control == OWN:
        meaning = "difference to the control that the method's preset names, in parentheses, in the same way"
    return TableColumn(f"Δ {control}", text, f"mean_to_{control}", meaning, control, POINTS)


def _verdict(control: str) -> TableColumn:
    return TableColumn(
        f"verdict ({control})",
        lambda line: verdict(line, control, METRICS[line["compared_by"]].digits),
        f"verdict_to_{control}",
        "what the tests say",
        control,
    )


def _p(control: str) -> TableColumn:
    return TableColumn(
        f"p ({control})",
        lambda line: probability(line[f"p_holm_to_{control}"]),
        f"p_holm_to_{control}",
        "of the difference, Holm-adjusted over the suite's primary comparisons, of which alone there is one",
        control,
    )


def _effect(control: str) -> TableColumn:
    return TableColumn(
        f"g ({control})",
        lambda line: number(line[f"effect_to_{control}"], 2, "+"),
        f"effect_to_{control}",
        "Hedges' g of the paired differences",
        control,
    )


def _wins(control: str) -> TableColumn:
    def text(line: Line) -> str:
        n = line[f"n_to_{control}"]
        return "–" if math.isnan(n) or n == 0 else f"{line[f'wins_to_{control}']:.0f}/{n:.0f}"

    meaning = "seeds in which it is the better one"
    return TableColumn(f"wins ({control})", text, f"wins_to_{control}", meaning, control, "seeds")


def _plain(name: str, heading: str, digits: int, meaning: str, scale: float = 1.0, unit: str = "") -> TableColumn:
    return TableColumn(heading, lambda line: number(line[name] * scale, digits), name, meaning, unit=unit)


def _cost(name: str) -> TableColumn:
    spec = MEASURED[name]
    if name in SECONDS:
        return TableColumn(spec.heading, lambda line: seconds(line, name, spec.digits), name, spec.meaning)
    unit = "" if spec.heading.endswith(spec.unit) else spec.unit
    return _plain(name, spec.heading, spec.digits, spec.meaning, spec.scale, unit)


def seconds(line: Line, name: str, digits: int) -> str:
    """The mean and the median of seconds over seeds, marked where a seed ran on a machine that others used."""
    if math.isnan(line[name]):
        return "–"
    return f"{number(line[name], digits)} / {number(line[f'{name}_median'], digits)}{_mark(line)}"


def _mark(line: Line) -> str:
    return f" {BUSY_MARK}" if line["busy_cells"] > 0 else ""


def _seconds_to_target(line: Line) -> str:
    text = number(line["seconds_to_target"], 1)
    return text + _mark(line) if math.isfinite(line["seconds_to_target"]) else text


def _reached(line: Line) -> str:
    return "–" if math.isnan(line["reached"]) else f"{line['reached']:.0f}/{line['n']}"


class _Columns(dict[str, TableColumn]):
    """Columns by their names, among them those of metrics that a view's own evaluation has declared since."""

    def __missing__(self, name: str) -> TableColumn:
        if name not in METRICS:
            raise KeyError(name)
        return _metric(name)

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in METRICS


COLUMNS = _Columns(
    {
        **{name: _metric(name) for name in METRICS},
        "n": TableColumn(
            "n",
            lambda line: str(line["n"]) if line["n"] == line["seeds"] else f"{line['n']}/{line['seeds']}",
            "n",
            "seeds that are done, of those planned where they differ",
            unit="seeds",
        ),
        **{f"difference_{control}": _difference(control) for control in (*CONTROLS, OWN, BESIDE)},
        **{f"verdict_{control}": _verdict(control) for control in (*CONTROLS, OWN, BESIDE)},
        **{f"p_{control}": _p(control) for control in (*CONTROLS, OWN, BESIDE)},
        **{f"effect_{control}": _effect(control) for control in (*CONTROLS, OWN, BESIDE)},
        **{f"wins_{control}": _wins(control) for control in (*CONTROLS, OWN, BESIDE)},
        "area": _plain("area", "area", 2, "mean height of the validation curve over the base's epochs", unit="%"),
        "target": _plain("target", "target %", 2, "validation accuracy to reach"),
        "reached": TableColumn("reached", _reached, "reached", "seeds that reach the target", unit="seeds"),
        "epochs_to_target": _plain("epochs_to_target", "epochs to target", 1, "median over seeds, prefix included"),
        "seconds_to_target": TableColumn(
            "s to target", _seconds_to_target, "seconds_to_target", "median over seeds, training and method"
        ),
        "gradients_to_target": _plain(
            "gradients_to_target", "gradients to target", 0, "median over seeds, in images", unit="images"
        ),
        **{name: _cost(name) for name in (*COSTS, *KERNEL)},
    }
)
STATISTICS = (
    "n",
    "test_accuracy",
    "difference_base_recalibrated",
    "verdict_base_recalibrated",
    "p_base_recalibrated",
    "effect_base_recalibrated",
    "wins_base_recalibrated",
    "difference_time_mean",
    "difference_control",
    "verdict_control",
    "difference_base",
)
PROGRESS = ("n", "area", "target", "reached", "epochs_to_target", "seconds_to_target", "gradients_to_target")


@dataclass(frozen=True)
class Choice:
    """What `tables.columns` chose: methods, and columns of the tables that have methods as rows; None for the usual."""

    methods: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None

    @classmethod
    def of(cls, text: str, frame: pd.DataFrame) -> Choice:
        """The choice in a text such as `[swa,cmd_online,test_accuracy]`: names of methods of the frame and of COLUMNS.

        ConfigError for a name that is neither.
        """
        names = [name.strip() for name in text.strip().removeprefix("[").removesuffix("]").split(",") if name.strip()]
        known = list(dict.fromkeys(frame["method"]))
        for name in names:
            if name not in known and name not in COLUMNS:
                listed = f"methods of the suite or columns, got {name!r}{nearest(name, [*known, *COLUMNS])}"
                raise ConfigError(f"tables.columns must be {listed}")
        methods = tuple(name for name in names if name in known)
        columns = tuple(name for name in names if name in COLUMNS)
        return cls(methods or None, columns or None)

    def keeps(self, method: str) -> bool:
        """Whether tables show this method."""
        return self.methods is None or method in self.methods
