"""The files in suites/<suite>/tables/: what is printed as Markdown and LaTeX, and every number as CSV."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from harness.report import printing
from harness.report.columns import Choice
from harness.report.cost import write_costs
from harness.report.rendering import Printed, latex, markdown
from harness.report.summary import Results, summary
from harness.report.tables import METRICS, statistics
from harness.results.frame import ROW
from harness.storage.files import replacing, write_bytes


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """In full precision, whole or not at all."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False)


def write_printed(tables: Sequence[Printed], folder: Path, name: str) -> None:
    """<name>.md and <name>.tex; where there is no table, they are removed."""
    for kind, text in (("md", markdown(tables)), ("tex", latex(tables))):
        if tables:
            write_bytes(folder / f"{name}.{kind}", text.encode())
        else:
            (folder / f"{name}.{kind}").unlink(missing_ok=True)


def write_errors(figures: Path, folder: Path) -> None:
    """Gather the reconstruction errors drawn in `figures` into errors.{md,tex,csv}, which are removed if none were."""
    parts = []
    for path in sorted(figures.glob("*-errors.csv")):
        origin = json.loads((figures / f"{path.stem.removesuffix('-errors')}.json").read_bytes())
        parts.append(pd.read_csv(path).assign(**{name: origin[name] for name in (*ROW, "seed")}))
    shares = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*ROW, "seed", "fit"])
    write_printed(printing.errors(shares), folder, "errors")
    if parts:
        write_csv(shares[[*ROW, "seed", "fit", "dimension", "share"]], folder / "errors.csv")
    else:
        (folder / "errors.csv").unlink(missing_ok=True)


def write_tables(found: Results, folder: Path, choice: Choice = Choice()) -> pd.DataFrame:  # noqa: B008
    """Write all tables into `folder` and return the summary.

    main, models, optimizers, statistics and progress as Markdown and LaTeX; main.csv (means of every metric, long),
    summary.csv (all that is known of a method in a row), comparisons.csv (every comparison), targets.csv (every cell),
    and the cost table.
    """
    whole = summary(found)
    write_printed(printing.main(found, whole, choice), folder, "main")
    write_printed(printing.models(found, whole, choice), folder, "models")
    write_printed(printing.optimizers(found, whole, choice), folder, "optimizers")
    write_printed(printing.statistics(found, whole, choice), folder, "statistics")
    write_printed(printing.progress(found, whole, choice), folder, "progress")
    write_csv(pd.concat([statistics(found.frame, metric) for metric in METRICS]), folder / "main.csv")
    write_csv(whole, folder / "summary.csv")
    write_csv(found.compared, folder / "comparisons.csv")
    write_csv(found.reached, folder / "targets.csv")
    write_costs(found.frame, folder)
    write_bytes(folder / "cost.tex", latex(printing.costs(found, whole, choice)).encode())
    return whole
