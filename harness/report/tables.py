"""The comparison table of a suite: means over seeds as Markdown, CSV and LaTeX, and one for the terminal.

Every number is that of a cell's last epoch, taken from a frame of `harness.report.frame`: this module reads no
file and selects nothing. Rows are model x dataset x optimizer, columns methods, both in the order of the plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from harness.config import check_choice
from harness.files import replacing, write_bytes

ROW = ["model", "dataset", "optimizer"]
CONTROL = "base_recalibrated"
UNFINISHED = ("failed", "diverged", "skipped", "left")
"""statuses without numbers, the gravest first"""

Row = tuple[str, ...]


@dataclass(frozen=True)
class Metric:
    """How a column of the frame is named, rounded and ranked in a table."""

    title: str
    digits: int
    higher_is_better: bool


METRICS = {
    "test_accuracy": Metric("Test accuracy in percent", 2, True),
    "test_loss": Metric("Test loss", 4, False),
    "val_accuracy": Metric("Validation accuracy in percent", 2, True),
    "val_loss": Metric("Validation loss", 4, False),
}


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (NaN with one seed) over n seeds."""

    mean: float
    std: float
    n: int

    @classmethod
    def of(cls, values: pd.Series[float]) -> Spread:
        """Over the finite values alone."""
        finite = values[np.isfinite(values)]
        return cls(float(finite.mean()), float(finite.std(ddof=1)), len(finite))

    def text(self, digits: int, plus_minus: str = " ± ", sign: str = "") -> str:
        """`88.90 ± 0.41`, with `sign="+"` `+88.90 ± 0.41`; the mean alone where it is over one seed."""
        mean = f"{self.mean:{sign}.{digits}f}"
        return f"{mean}{plus_minus}{self.std:.{digits}f}" if self.n > 1 else mean


@dataclass(frozen=True)
class Entry:
    """One method in one row: the spread over its finished cells, the row's planned seeds, the gravest status."""

    spread: Spread
    seeds: int
    status: str
    batchnorm: str

    def text(self, digits: int) -> str:
        """Mean and std, with n where it is not the row's; a dash and the status where nothing is done."""
        if self.spread.n == 0:
            return f"– {self.status}"
        return self.spread.text(digits) + (f" (n={self.spread.n})" if self.spread.n != self.seeds else "")


def entries(frame: pd.DataFrame, metric: str = "test_accuracy") -> dict[Row, dict[str, Entry]]:
    """Every (model, dataset, optimizer) with its methods; ConfigError where `metric` is not one of METRICS."""
    check_choice("metric", metric, METRICS)
    table: dict[Row, dict[str, Entry]] = {}
    for key, row in frame.groupby(ROW, sort=False):
        for method, cells in row.groupby("method", sort=False):
            present = set(cells["status"])
            table.setdefault(tuple(map(str, key)), {})[str(method)] = Entry(
                spread=Spread.of(cells.loc[cells["status"] == "done", metric]),
                seeds=row["seed"].nunique(),
                status=next((status for status in UNFINISHED if status in present), "done"),
                batchnorm="/".join(dict.fromkeys(cells["batchnorm"])),
            )
    return table


def statistics(frame: pd.DataFrame, metric: str = "test_accuracy") -> pd.DataFrame:
    """Long table in full precision, one line per model x dataset x optimizer x method.

    Columns: these four, batchnorm, metric, mean, std (ddof=1 over seeds, NaN with one), n (seeds that the two are
    over), seeds (planned for the row) and status (the gravest among the cells).
    """
    lines = [
        (*row, method, e.batchnorm, metric, e.spread.mean, e.spread.std, e.spread.n, e.seeds, e.status)
        for row, methods in entries(frame, metric).items()
        for method, e in methods.items()
    ]
    names = [*ROW, "method", "batchnorm", "metric", "mean", "std", "n", "seeds", "status"]
    return pd.DataFrame(lines, columns=names)


def main_table(frame: pd.DataFrame, metric: str = "test_accuracy") -> pd.DataFrame:
    """Rows model x dataset x optimizer; columns (seeds, ""), then (method, mean | std | n | status) per method.

    A method that is not planned for a row has NaN there.
    """
    table = entries(frame, metric)
    methods = dict.fromkeys(method for row in table.values() for method in row)
    lines = []
    for row in table.values():
        line: dict[tuple[str, str], object] = {("seeds", ""): max(e.seeds for e in row.values())}
        for method in methods:
            e = row.get(method)
            values = (None,) * 4 if e is None else (e.spread.mean, e.spread.std, e.spread.n, e.status)
            line.update(zip(((method, name) for name in ("mean", "std", "n", "status")), values, strict=True))
        lines.append(line)
    return pd.DataFrame(lines, index=pd.MultiIndex.from_tuples(list(table), names=ROW))


def differences(frame: pd.DataFrame, metric: str = "test_accuracy", control: str = CONTROL) -> dict[Row, Spread]:
    """Spread of method minus control, paired by seed, per (model, dataset, optimizer, method).

    A pair shares its base, hence model, data, optimizer and seed. A seed where either is not done is left out; n is 0
    where that leaves none.
    """
    done = frame[frame["status"] == "done"]
    of_control = done[done["method"] == control].set_index("base_key")[metric]
    others = done[done["method"] != control]
    controls = others["base_key"].map(of_control).astype("float64")  # of dtype str where nothing is done
    paired = others.assign(difference=others[metric] - controls)
    groups = paired.groupby([*ROW, "method"], sort=False)["difference"]
    return {tuple(map(str, key)): Spread.of(values) for key, values in groups}


def marks(row: dict[str, Entry], metric: str) -> dict[str, str]:
    """`best` and `second` of a row by method; means that print alike share a mark.

    Only means over the row's largest number of seeds are compared: one over fewer is over other seeds, the easier ones
    where some diverged.
    """
    spec = METRICS[metric]
    most = max(entry.spread.n for entry in row.values())
    printed = {m: f"{e.spread.mean:.{spec.digits}f}" for m, e in row.items() if e.spread.n == most > 0}
    ranking = sorted(set(printed.values()), key=float, reverse=spec.higher_is_better)[:2]
    return {m: ("best", "second")[ranking.index(value)] for m, value in printed.items() if value in ranking}


def caption(metric: str) -> str:
    """What the numbers of a table are."""
    spec = METRICS[metric]
    return (
        f"{spec.title} ({'higher' if spec.higher_is_better else 'lower'} is better) at the last epoch, never the best "
        "one: mean ± sample standard deviation over the number of seeds shown (n where a cell has fewer). "
        "Nothing was selected on test data: choices, where there are any, were made on validation data alone."
    )


def unfinished(frame: pd.DataFrame) -> list[str]:
    """Failed, diverged and skipped cells by name, one line per status, model, dataset, optimizer and seed."""
    lines = []
    for status in UNFINISHED[:-1]:
        for key, cells in frame[frame["status"] == status].groupby([*ROW, "seed"], sort=False):
            *row, seed = map(str, key)
            lines.append(f"{status}: {' '.join(row)} seed {seed}: {', '.join(cells['method'])}")
    return lines


def _texts(frame: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table as printed, row names and seeds as ordinary columns, and the marks of its cells."""
    table, texts = entries(frame, metric), []
    for row, methods in table.items():
        seeds = max(entry.seeds for entry in methods.values())
        cells = {method: entry.text(METRICS[metric].digits) for method, entry in methods.items()}
        texts.append({**dict(zip(ROW, row, strict=True)), "seeds": str(seeds), **cells})
    text = pd.DataFrame(texts).fillna("")
    marked = [marks(methods, metric) for methods in table.values()]
    return text, pd.DataFrame([{name: row.get(name, "") for name in text.columns} for row in marked])


def markdown(frame: pd.DataFrame, metric: str = "test_accuracy") -> str:
    """The table as Markdown: best of a row in bold, second in italics."""
    text, marked = _texts(frame, metric)
    text = text.mask(marked == "best", "**" + text + "**").mask(marked == "second", "*" + text + "*")
    legend = "Best of a row **bold**, second *italic*, among means over equally many seeds."
    body = text.to_markdown(index=False, disable_numparse=True)
    notes = "".join(f"- {line}\n" for line in unfinished(frame))
    return f"{caption(metric)} {legend}\n\n{body}\n" + (f"\n{notes}" if notes else "")


_LATEX = str.maketrans(
    {
        **{c: f"\\{c}" for c in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "–": "--",
    }
)


def latex(frame: pd.DataFrame, metric: str = "test_accuracy") -> str:
    """The table as LaTeX (packages booktabs and adjustbox): best of a row in bold, second underlined."""
    text, marked = _texts(frame, metric)
    css = marked.replace({"best": "textbf:--rwrap;", "second": "underline:--rwrap;"})
    text = text.map(lambda cell: cell.translate(_LATEX))
    text.columns = css.columns = pd.Index([name.translate(_LATEX) for name in text.columns])
    styler = text.style.hide(axis="index").apply(lambda _: css, axis=None)
    tabular = styler.to_latex(hrules=True, column_format="lll" + "r" * (len(text.columns) - 3))
    legend = r"Best of a row \textbf{bold}, second \underline{underlined}, among means over equally many seeds."
    notes = "".join(rf"\par\footnotesize {line.translate(_LATEX)}" + "\n" for line in unfinished(frame))
    return (
        "% needs \\usepackage{booktabs,adjustbox}\n\\begin{table}\n\\centering\n"
        f"\\caption{{{caption(metric).translate(_LATEX)} {legend}}}\n"
        f"\\begin{{adjustbox}}{{max width=\\textwidth}}\n{tabular}\\end{{adjustbox}}\n{notes}\\end{{table}}\n"
    )


def write_tables(frame: pd.DataFrame, folder: Path) -> None:
    """Write main.md and main.tex (test accuracy) and main.csv (every metric, long, full precision) into `folder`."""
    write_bytes(folder / "main.md", markdown(frame).encode())
    write_bytes(folder / "main.tex", latex(frame).encode())
    with replacing(folder / "main.csv") as temporary:
        pd.concat([statistics(frame, metric) for metric in METRICS]).to_csv(temporary, index=False)


_SECONDS = ("train_seconds", "method_seconds", "eval_seconds")
_HEADINGS = ("method", "n", "val %", "test %", "test diff", "train s", "method s", "eval s")


def _terminal_lines(frame: pd.DataFrame) -> dict[Row, list[tuple[str, ...]]]:
    """The terminal table's lines below their model, dataset and optimizer."""
    validation, paired = entries(frame, "val_accuracy"), differences(frame)
    costs = frame.groupby([*ROW, "method"], sort=False)[list(_SECONDS)].mean()
    seconds = {key: ["–" if np.isnan(s) else f"{s:.1f}" for s in row] for key, *row in costs.itertuples(name=None)}
    sections: dict[Row, list[tuple[str, ...]]] = {}
    for row, methods in entries(frame).items():
        for method, test in methods.items():
            key, n = (*row, method), test.spread.n
            values = (validation[row][method].spread.text(2, "±"), test.spread.text(2, "±"))
            if n == 0:
                values = (f"– {test.status}", "–")
            difference = paired[key].text(2, "±", "+") if key in paired and paired[key].n > 0 else "–"
            line = (method, str(n) if n == test.seeds else f"{n}/{test.seeds}", *values, difference, *seconds[key])
            sections.setdefault(row, []).append(line)
    return sections


def terminal_table(frame: pd.DataFrame) -> Table:
    """One section per model, dataset and optimizer, methods as rows; about 80 columns wide."""
    sections, tests = _terminal_lines(frame), entries(frame)
    everything = [_HEADINGS, *(line for lines in sections.values() for line in lines)]
    widths = [max(map(len, column)) for column in zip(*everything, strict=True)]
    whole = Table.grid()
    for row, lines in sections.items():
        marked = marks(tests[row], "test_accuracy")
        section = Table(box=box.SIMPLE_HEAD, padding=0, title=Text(" · ".join(row), "bold"), title_justify="left")
        for name, width in zip(_HEADINGS, widths, strict=True):
            # Padded headings align the sections, and unlike a minimal width they never cut cells off.
            left = name == "method"
            section.add_column(name.ljust(width) if left else name.rjust(width), justify="left" if left else "right")
        for line in lines:
            section.add_row(*map(Text, line), style="bold" if marked.get(line[0]) == "best" else None)
        whole.add_row(section)
    whole.caption = (
        "Last epoch; mean ± sample std over n seeds, best test mean bold. test diff: points above "
        f"{CONTROL}, paired by seed. Seconds: mean per seed; an observer shares its base's training."
    )
    return whole
