"""The comparison table: means over seeds by hand, marks, and the three file formats."""

import csv
import io
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from harness.config import ConfigError
from harness.report.method_styles import KNOWN
from harness.report.stats.means import differences, entries, marks, statistics
from harness.report.stats.summary import results, summary
from harness.report.tables import suite
from harness.report.tables.columns import Choice
from harness.report.tables.latex import latex
from harness.report.tables.printed import Printed
from harness.report.tables.terminal import terminal_table
from harness.report.tables.write import write_tables
from harness.report.warnings import unfinished

ROW = ("test_resnet", "digits", "sgd_50%")
COUNTS = (
    *("epochs", "prefix_epochs", "gradients_full", "gradients_subspace", "forward_passes"),
    *("trainable_fraction", "peak_memory_bytes"),
)
NO_HISTORY = pd.DataFrame({"cell_key": pd.Series(dtype="str"), "epoch": pd.Series(dtype="int64")})


def cells(method, accuracies, model="test_resnet"):
    """One cell per seed; a string stands for the status of one without numbers."""
    for seed, accuracy in enumerate(accuracies):
        done = not isinstance(accuracy, str)
        value = accuracy if done else np.nan
        yield {
            "model": model,
            "dataset": "digits",
            "optimizer": "sgd_50%",
            "seed": seed,
            "method": method,
            "batchnorm": "as_is" if method == "base" else "recalibrate",
            "status": "done" if done else accuracy,
            "test_accuracy": value,
            "val_accuracy": value + 1 if done else np.nan,
            "test_loss": 1 - value / 100 if done else np.nan,
            "val_loss": 0.5 if done else np.nan,
            **dict.fromkeys(("val_ece", "val_brier", "test_ece", "test_brier", "age", "n_eff"), np.nan),
            "train_seconds": 60.0 + seed if done else np.nan,
            "method_seconds": 1.25 if done else np.nan,
            "eval_seconds": 3.0 if done else np.nan,
            "base_key": f"{model}-{seed}",
            "cell_key": f"{model}-{method}-{seed}",
            **dict.fromkeys(COUNTS, 20.0 if done else np.nan),
            **{"moving": 1.0, "busy": 0.0, "control": None, "schedule": None, "rate_end": np.nan, "twin": None},
        }


def frame_of(*groups):
    return pd.DataFrame([cell for group in groups for cell in group])


@pytest.fixture
def frame():
    return frame_of(
        cells("base", [80.0, 82.0, 84.0]),  # mean 82, deviations -2 0 2: std sqrt(8/2) = 2
        cells("base_recalibrated", [81.0, 83.0, 85.0]),
        cells("swa", [86.0, 87.0, 88.0]),  # mean 87, std 1
        cells("cmd_online", [90.0, "diverged", "left"]),
        cells("lawa", ["failed", "diverged", "left"]),
        cells("base", [70.0, 71.0, 72.0], model="vit_tiny"),
    )


def main_texts(frame, choose=""):
    """The main table's texts by method."""
    found = results(frame, NO_HISTORY)
    (printed,) = suite.main(found, summary(found), Choice.of(choose, frame))
    return printed, printed.texts.set_index("method")


def test_mean_sample_std_and_number_of_seeds_by_hand(frame):
    table = statistics(frame).set_index(["model", "method"]).loc["test_resnet"]
    assert (table.loc["base", "mean"], table.loc["base", "std"], table.loc["base", "n"]) == (82.0, 2.0, 3)
    assert (table.loc["swa", "mean"], table.loc["swa", "std"], table.loc["swa", "n"]) == (87.0, 1.0, 3)
    online = table.loc["cmd_online"]
    assert (online["mean"], online["n"], online["status"]) == (90.0, 1, "diverged")
    assert np.isnan(online["std"])
    assert (table.loc["lawa", "n"], table.loc["lawa", "status"]) == (0, "failed")
    assert set(table["seeds"]) == {3}


def test_rows_and_methods_keep_the_order_of_the_plan(frame):
    printed, table = main_texts(frame)
    assert list(table.index) == ["base", "base_recalibrated", "swa", "cmd_online", "lawa"]
    assert list(table.columns) == ["test_resnet", "vit_tiny"]
    assert list(table["vit_tiny"]) == ["71.00 ± 1.00", "", "", "", ""]
    assert printed.names == 1


def test_an_unknown_metric_is_refused_by_name(frame):
    with pytest.raises(ConfigError, match=r"metric must be one of .*, got 'accuracy'"):
        statistics(frame, "accuracy")


def test_differences_pair_seeds(frame):
    paired = differences(frame)
    # base is one point below its control at every seed, though each spreads by 2
    assert (paired[(*ROW, "base")].mean, paired[(*ROW, "base")].std) == (-1.0, 0.0)
    swa = paired[(*ROW, "swa")]  # 5, 4, 3
    assert (swa.mean, swa.std, swa.n) == (4.0, 1.0, 3)
    # only seed 0 has both: 90 - 81, not 90 minus the control's mean of 83
    assert (paired[(*ROW, "cmd_online")].mean, paired[(*ROW, "cmd_online")].n) == (9.0, 1)
    assert paired[("vit_tiny", "digits", "sgd_50%", "base")].n == 0


@pytest.mark.parametrize("base", [["diverged", "left"], [80.0, 81.0]])
def test_without_a_control_every_text_is_still_made(base, tmp_path):
    frame = frame_of(cells("base", base), cells("base_recalibrated", ["diverged", "left"])).astype({"base_key": "str"})
    assert all(spread.n == 0 for spread in differences(frame).values())
    assert "0/2" in rendered(frame, 100)
    write_tables(results(frame, NO_HISTORY), tmp_path)
    assert "– diverged" in (tmp_path / "main.md").read_text()


def test_best_and_second_are_marked_and_what_prints_alike_shares_a_mark():
    frame = frame_of(
        cells("a", [90.001, 90.001]), cells("b", [90.002, 90.002]), cells("c", [80.0, 80.0]), cells("d", [89.99, 89.99])
    )
    ((row, methods),) = entries(frame).items()
    assert row == ROW
    assert marks(methods, "test_accuracy") == {"a": "best", "b": "best", "d": "second"}


def test_the_lowest_loss_is_the_best():
    frame = frame_of(cells("a", [90.0]), cells("b", [80.0]))
    (methods,) = entries(frame, "test_loss").values()
    assert marks(methods, "test_loss") == {"a": "best", "b": "second"}


def test_a_mean_over_fewer_seeds_is_not_marked(frame):
    methods = entries(frame)[ROW]
    assert methods["cmd_online"].spread.mean > methods["swa"].spread.mean
    assert marks(methods, "test_accuracy") == {"swa": "best", "base_recalibrated": "second"}


def test_nothing_done_marks_nothing():
    (methods,) = entries(frame_of(cells("a", ["left"]), cells("b", ["left"]))).values()
    assert marks(methods, "test_accuracy") == {}


def rows_of(text):
    """Cells of a Markdown table, by the first of each line."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {line[0]: line[1:] for line in lines}


def test_markdown(frame):
    printed, _ = main_texts(frame)
    text = printed.markdown()
    lead = text.splitlines()[0]
    assert all(words in lead for words in ("Test accuracy", "last epoch", "sample standard deviation", "validation"))
    rows = rows_of(text)
    assert rows["method"] == ["test_resnet", "vit_tiny"]
    assert rows["swa"] == ["**87.00 ± 1.00**", ""]
    assert rows["base_recalibrated"][0].startswith("*83.00 ± 2.00")
    assert rows["cmd_online"] == ["90.00 (n=1)", ""]
    assert rows["lawa"] == ["– failed", ""]
    assert rows["base"] == ["82.00 ± 2.00", "**71.00 ± 1.00**"]
    assert text.endswith("".join(f"- {line}\n" for line in unfinished(frame)))
    assert unfinished(frame) == [
        "failed: test_resnet digits sgd_50% seed 0: lawa",
        "diverged: test_resnet digits sgd_50% seed 1: cmd_online, lawa",
    ]


def test_ranks_are_no_column_and_verdicts_are(frame):
    with pytest.raises(ConfigError, match=r"tables.columns must be methods of the suite or columns, got 'rank'"):
        Choice.of("[rank]", frame)
    choice = Choice.of("[swa,verdict_control,difference_control,moving,busy]", frame)
    assert choice.columns == ("verdict_control", "difference_control", "moving", "busy")
    frame["control"] = np.where(frame["method"] == "swa", "base", None)
    found = results(frame, NO_HISTORY)
    table = suite.statistics(found, summary(found), choice)[0]
    # 6, 5 and 4 above it: t(0.975, 2) / sqrt 3 = 2.48
    assert table.texts.iloc[0].tolist() == [
        "swa",
        "another BatchNorm policy",
        "+5.00 [+2.52, +7.48] (base)",
        "1.000",
        "0.00",
    ]


def test_std_is_blank_with_one_seed():
    printed, table = main_texts(frame_of(cells("a", [90.0])))
    assert list(table["test_resnet"]) == ["90.00"]
    assert "The suite named no primary comparisons, so all of them are exploratory." in printed.caption


def test_latex_marks_rules_escapes_and_names_methods_as_figures_do(frame):
    printed, _ = main_texts(frame)
    text = latex([printed])
    assert r"\textbf{87.00 $\pm$ 1.00" in text
    assert r"\underline{83.00 $\pm$ 2.00" in text
    assert r"Online CMD & 90.00 (n=1) &  \\" in text
    body = text.partition(r"\begin{table}")[2]
    assert [body.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    assert re.search(r"(?<!\\)[_#]|(?<!\\)%(?!\n)", body) is None
    assert "±" not in body
    assert "base_recalibrated" not in body
    assert text.count("{") == text.count("}")
    opened = re.findall(r"\\begin\{(\w+)\}", body)
    assert sorted(opened) == sorted(re.findall(r"\\end\{(\w+)\}", body.replace(r"\end{table}", "")))
    columns = len(re.search(r"\\begin\{tabular\}\{(\w+)\}", body)[1])
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert [line.count("&") for line in rows] == [columns - 1] * 6


def test_a_caption_is_short_and_the_note_says_seeds_spread_and_marks(frame):
    frame.attrs["primary"] = [["swa", "base_recalibrated"]]
    found = results(frame, NO_HISTORY)
    whole = summary(found)
    for table in (suite.main, suite.models, suite.statistics, suite.progress, suite.costs):
        for caption in re.findall(r"\\caption\{(.*)\}\n", latex(table(found, whole, Choice()))):
            assert len(caption) < 120
    text = latex(suite.main(found, whole, Choice()))
    assert r"\caption{Test accuracy in percent.}" in text
    note = text.partition(r"\begin{minipage}")[2]
    assert r"Mean $\pm$ sample standard deviation over 3 seeds (n where fewer), last epoch." in note
    assert r"\textbf{Bold}: best mean, \underline{underlined}: second best" in note
    assert r"failed: test\_resnet digits sgd\_50\% seed 0: lawa" in note


GOLDEN = r"""
% needs \usepackage{graphicx}; the rules are those of booktabs where that is loaded
\providecommand{\toprule}{\hline\noalign{\smallskip}}
\providecommand{\midrule}{\noalign{\smallskip}\hline\noalign{\smallskip}}
\providecommand{\bottomrule}{\noalign{\smallskip}\hline}

\begin{table*}
\centering
\caption{Accuracy: two \& more.}
\label{tab:main-1}
\footnotesize
\setlength{\tabcolsep}{3pt}
\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%
\begin{tabular}{lrrr}
\toprule
\multicolumn{2}{c}{} & \multicolumn{2}{c}{against Time mean} \\
method & \begin{tabular}[b]{@{}r@{}}net\_a, \\ sgd\_50\%, more\end{tabular} & $\Delta$ & p \\
\midrule
Online CMD & \textbf{90.00 $\pm$ 1.00 $^{\approx}$} & $-$3.00 [$-$4.00, 0.10] (Epoch EMA) & $<$0.001 \\
SWA & \underline{89.50 $\pm$ 1.00} & -- & 0.100 \\
\bottomrule
\end{tabular}}
\par\smallskip
\begin{minipage}{\linewidth}\footnotesize\raggedright
Over 3 seeds. \textbf{Bold}: best mean, \underline{underlined}: second best, of equally many seeds; no verdict.
\par failed: swa \#1
\end{minipage}
\end{table*}
"""
"""written by hand: three rules, no vertical line, the float as every class takes it, no package but graphicx"""


def test_latex_is_what_a_hand_would_write():
    texts = pd.DataFrame(
        {
            "method": ["cmd_online", "swa"],
            "net_a, sgd_50%, more": ["90.00 ± 1.00 ≈", "89.50 ± 1.00"],
            "Δ time_mean": ["-3.00 [-4.00, 0.10] (epoch_ema)", "–"],
            "p (time_mean)": ["<0.001", "0.100"],
        }
    )
    marks = texts.map(lambda _: "")
    marks["net_a, sgd_50%, more"] = ["best", "second"]
    groups = {"Δ time_mean": ("against Time mean", "Δ"), "p (time_mean)": ("against Time mean", "p")}
    words = {"title": "two & more", "label": "main 1", "short_caption": "Accuracy", "note": "Over 3 seeds."}
    table = Printed("In %.", texts, marks, notes=["failed: swa #1"], groups=groups, **words)
    assert latex([table]) == GOLDEN.removeprefix("\n")


def test_what_is_equivalent_to_plain_training_is_marked_and_nothing_else():
    """swa differs by +0.1 -0.11 +0.1, within half a point; ema as little, but the suite did not name it."""
    frame = frame_of(
        cells("base_recalibrated", [80.0, 81.0, 82.0]),
        cells("swa", [80.1, 80.89, 82.1]),
        cells("ema", [80.1, 80.9, 82.1]),
        cells("lawa", [60.0, 81.0, 82.0]),
    )
    frame.attrs["primary"] = [["swa", "base_recalibrated"], ["lawa", "base_recalibrated"]]
    printed, _ = main_texts(frame)
    text = latex([printed])
    assert r"SWA & \textbf{81.03 $\pm$ 1.01 $^{\approx}$} \\" in text
    assert r"EMA & \textbf{81.03 $\pm$ 1.01} \\" in text
    assert text.count(r"\approx") == 2
    assert r"$^{\approx}$: equivalent to Base, recalibrated within 0.5 points." in text
    found = results(frame, NO_HISTORY)
    (table,) = suite.statistics(found, summary(found), Choice())
    shown = table.texts.set_index("method")["verdict (base_recalibrated)"]
    assert shown["swa"] == "equivalent"
    assert shown["ema"] == "(close)"
    assert re.fullmatch(r"undecided \(finds \d+\.\d\d\)", shown["lawa"])


def needs_latex(*packages):
    """Skip where pdfLaTeX or one of the packages is missing."""
    if shutil.which("pdflatex") is None or shutil.which("kpsewhich") is None:
        pytest.skip("pdflatex is not installed")
    for name in packages:
        if subprocess.run(["kpsewhich", f"{name}.sty"], stdout=subprocess.DEVNULL).returncode:
            pytest.skip(f"LaTeX's package {name} is not installed")


FOOTNOTESIZE, LEAST = 8.0, 7.0
"""points of \footnotesize in an article of 10 points, and what can still be read"""
LONG = "a_method_whose_name_is_longer_than_anyone_would_give_it_but_is_allowed"


@pytest.mark.parametrize("packages", [("graphicx",), ("graphicx", "booktabs")], ids=" ".join)
def test_latex_compiles_and_can_be_read(frame, tmp_path, packages):
    """In one column and in two, nothing sticks out, and no table shrinks below 7 points: with every method there is
    and with names that are far too long; of packages texlive-latex-base has graphicx, and not booktabs."""
    needs_latex(*packages)
    more = [
        cells(method, [81.0, 83.5, 85.0]) for method in [*KNOWN, LONG, "x" * 40] if method not in {*frame["method"]}
    ]
    frame = pd.concat([frame, frame_of(*more)], ignore_index=True)
    frame.loc[frame["method"] == LONG, "control"] = "cmd_mean_kernel"
    frame.attrs["primary"] = [[LONG, "base_recalibrated"]]
    write_tables(results(frame, NO_HISTORY), tmp_path)
    odd = Printed("Ω 漢 → ¬ \\ ~^{}$&#_%", pd.DataFrame({"method": ["–"], '| < > "': ["漢 é"]}), short_caption="é 漢")
    (tmp_path / "odd.tex").write_text(latex([odd]))
    inputs = "".join(rf"\input{{{path.stem}}}\clearpage" for path in sorted(tmp_path.glob("*.tex")))
    for layout in ("onecolumn", "twocolumn"):
        page = rf"\documentclass[{layout}]{{article}}\usepackage{{{','.join(packages)}}}\begin{{document}}"
        # how wide a table is before it is shrunk, and the room that it has
        told = r"\typeout{WIDTH \the\wd0 ROOM \the\linewidth}"
        tell = rf"\let\resized\resizebox\def\resizebox#1#2#3{{\sbox0{{#3}}{told}\resized{{#1}}{{#2}}{{#3}}}}"
        (tmp_path / "page.tex").write_text(page + tell + inputs + r"\end{document}")
        command = ["pdflatex", "-interaction=batchmode", "-halt-on-error", "page.tex"]
        done = subprocess.run(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
        log = (tmp_path / "page.log").read_text(errors="replace")
        assert done.returncode == 0, log
        assert "Overfull" not in log
        assert "too large" not in log
        sizes = [tuple(map(float, found)) for found in re.findall(r"WIDTH ([\d.]+)ptROOM ([\d.]+)pt", log)]
        assert len(sizes) >= 10
        assert [size for size in sizes if FOOTNOTESIZE * min(1.0, size[1] / size[0]) < LEAST] == []


def test_files_and_full_precision_of_the_csv(tmp_path):
    frame = frame_of(cells("a", [80.0, 80.0, 81.0]), cells("b", [90.0, "diverged", "left"]))
    write_tables(results(frame, NO_HISTORY), tmp_path / "tables")
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {
        *(f"{name}.{kind}" for name in ("main", "models", "statistics", "progress") for kind in ("md", "tex")),
        *(f"{name}.csv" for name in ("main", "summary", "comparisons", "targets", "cost")),
        *("cost.md", "cost.tex"),
    }
    with open(tmp_path / "tables" / "main.csv", newline="") as file:
        lines = {(line["method"], line["metric"]): line for line in csv.DictReader(file)}
    assert len(lines) == 2 * 8
    a, b = lines["a", "test_accuracy"], lines["b", "test_accuracy"]
    assert float(a["mean"]) == pytest.approx(241 / 3, abs=1e-12)
    assert float(a["std"]) == pytest.approx(1 / 3**0.5, abs=1e-12)  # squares 1/9 + 1/9 + 4/9 over n - 1 = 2
    assert (b["std"], b["n"], b["seeds"], b["status"]) == ("", "1", "3", "diverged")
    assert lines["a", "val_loss"]["mean"] == "0.5"


def rendered(frame, width):
    console = Console(width=width, force_terminal=False, record=True, file=io.StringIO())
    console.print(terminal_table(frame))
    return console.export_text()


def test_terminal_table_is_whole_at_100_columns_and_without_a_terminal(frame):
    text = rendered(frame, 100)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert "\x1b" not in text
    assert "test_resnet · digits · sgd_50%" in lines[0]
    by_method = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert by_method["swa"] == ["3", "88.00±1.00", "87.00±1.00", "+4.00±1.00", "61.0", "1.2", "3.0"]
    assert by_method["cmd_online"] == ["1/3", "91.00", "90.00", "+9.00", "60.0", "1.2", "3.0"]
    assert by_method["lawa"] == ["0/3", "–", "failed", "–", "–", "–", "–", "–"]


def test_a_narrow_terminal_is_spared_columns_and_no_name_or_number_is_cut(frame):
    narrow, wide = rendered(frame, 60), rendered(frame, 200)
    assert max(map(len, narrow.splitlines())) <= 60
    assert "Too narrow for eval s, method s, train s." in " ".join(narrow.split())
    for word in ("base", "cmd_online", "swa", "87.00±1.00", "+4.00±1.00", "failed"):
        assert narrow.count(f"{word} ") == wide.count(f"{word} ") > 0


def test_of_one_seed_nothing_stands_out(frame):
    def bold(shown):
        console = Console(width=100, force_terminal=True, file=io.StringIO())
        console.print(terminal_table(shown))
        return [line for line in console.file.getvalue().splitlines() if "\x1b[1m" in line and "·" not in line]

    one = frame[frame["seed"] == 0]
    assert any("swa" in line for line in bold(frame))
    assert not any(name in line for line in bold(one) for name in ("swa", "base", "cmd_online"))
    assert "bold" in rendered(frame, 100)
    assert "bold" not in rendered(one, 100)
