"""The learning rates of bases, searched on a grid by validation loss: `traindyn tune method=base`.

A comparison of methods is worth as much as the rate of its bases. Every rate of an optimizer preset's grid (`rates`) is
a base of its own, trained on every seed like any other and never trained twice. The best rate has the lowest mean
validation loss of the recalibrated weights at the last epoch; while it stands at an end of the grid, the grid is
widened by its next factor. The test split is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from harness.config import RECALIBRATED, BaseConfig, ConfigError, OptimizerConfig
from harness.planning.compose import available, load_yaml
from harness.planning.experiment import Experiment
from harness.planning.methods import resolved_method
from harness.storage.files import csv_text, write_bytes
from harness.storage.masking import masked

BASE_ALONE = {"base", RECALIBRATED}
"""the methods that are the base itself: tuning these searches its rate"""
WIDENINGS = 6
"""how often a grid may grow at its ends"""
COLUMNS = ["model", "dataset", "optimizer", "lr", "seeds", "val_loss", "val_loss_std", "val_accuracy", "best"]


@dataclass
class RateSearch:
    """The rates of one model, dataset and optimizer preset; `bases` are those of its seeds, at the preset's rate."""

    bases: tuple[BaseConfig, ...]
    rates: list[float]
    widened: int = 0

    @property
    def optimizer(self) -> OptimizerConfig:
        return self.bases[0].optimizer

    @property
    def names(self) -> tuple[str, str, str]:
        """Model, dataset and optimizer."""
        base = self.bases[0]
        return base.model.name, base.data, self.optimizer.name

    def at(self, rate: float) -> OptimizerConfig:
        """The optimizer at a rate, under a name that says so."""
        params = {**self.optimizer.params, "lr": rate}
        return replace(self.optimizer, name=f"{self.optimizer.name}-lr{rate:g}", params=params)

    def table(self, frame: pd.DataFrame) -> pd.DataFrame:
        """COLUMNS of every rate, ascending; a rate with which a seed diverged has an infinite loss."""
        model, dataset, name = self.names
        own = frame[(frame["model"] == model) & (frame["dataset"] == dataset) & (frame["method"] == RECALIBRATED)]
        lines = []
        for rate in self.rates:
            cells = own[own["optimizer"] == self.at(rate).name]
            losses = cells["val_loss"].to_numpy(dtype=np.float64)
            whole = len(losses) == len(self.bases) and bool(np.isfinite(losses).all())
            mean, std = (
                (losses.mean(), losses.std(ddof=1) if len(losses) > 1 else np.nan) if whole else (np.inf, np.nan)
            )
            lines.append((model, dataset, name, rate, len(losses), mean, std, cells["val_accuracy"].mean(), False))
        table = pd.DataFrame(lines, columns=COLUMNS)
        if np.isfinite(table["val_loss"]).any():
            table.loc[table["val_loss"].idxmin(), "best"] = True
        return table

    def widen(self, table: pd.DataFrame) -> bool:
        """Add the next rate where the best stands at an end of the grid; whether there is a new one."""
        place = np.flatnonzero(table["best"])
        if len(place) == 0 or self.widened >= WIDENINGS:
            return False
        if place[0] == len(self.rates) - 1:
            self.rates.append(_round(self.rates[-1] * self.rates[-1] / self.rates[-2]))
        elif place[0] == 0:
            self.rates.insert(0, _round(self.rates[0] * self.rates[0] / self.rates[1]))
        else:
            return False
        self.widened += 1
        return True


def _round(rate: float) -> float:
    return float(f"{rate:.6g}")


def rate_searches(experiment: Experiment) -> list[RateSearch]:
    """A search per model, dataset and optimizer of an experiment; ConfigError where a preset has no grid of rates."""
    grouped: dict[tuple[str, str, str], list[BaseConfig]] = {}
    for base, _ in experiment.bases:
        grouped.setdefault(base.row, []).append(base)
    searches = []
    for bases in grouped.values():
        optimizer = bases[0].optimizer
        if optimizer.rates is None:
            raise ConfigError(f"optimizer.{optimizer.name}.rates must be a list of at least 2 rates to tune the base's")
        searches.append(RateSearch(tuple(bases), sorted(map(float, optimizer.rates))))
    return searches


def with_rates(experiment: Experiment, searches: Sequence[RateSearch]) -> Experiment:
    """The recalibrated base of every rate of every search, as a view of its own beside that of the suite."""
    preset = load_yaml(available("method")[RECALIBRATED])[RECALIBRATED]
    bases = [
        (replace(base, optimizer=search.at(rate)), (resolved_method(RECALIBRATED, preset, base.epochs),))
        for search in searches
        for rate in search.rates
        for base in search.bases
    ]
    view = experiment.settings.view
    name = view if view.endswith("rates") else f"{view}-rates"
    return replace(experiment, bases=tuple(bases), settings=replace(experiment.settings, view=name))


def search_rates(
    experiment: Experiment, run: Callable[[Experiment], pd.DataFrame], say: Callable[[str], None]
) -> list[pd.DataFrame]:
    """The table of every search, once no best rate stands at an end of its grid.

    `run` trains what an experiment has left and gives its frame.
    """
    searches = rate_searches(experiment)
    while True:
        frame = run(with_rates(experiment, searches))
        tables = [search.table(frame) for search in searches]
        wider = [search for search, table in zip(searches, tables, strict=True) if search.widen(table)]
        if not wider:
            return tables
        for search in wider:
            say(f"{' '.join(search.names)}: the best rate is at an end of the grid, which grows to {search.rates}")


def write_rates(folder: Path, tables: Sequence[pd.DataFrame], command: str) -> dict[str, Any]:
    """`rates.csv` with all that was tried and `rates.yaml` with the best of each; what the latter holds."""
    import yaml

    write_bytes(folder / "rates.csv", csv_text(pd.concat(tables)).encode())
    best = [
        {
            **{name: str(line[name]) for name in COLUMNS[:3]},
            "lr": float(line["lr"]),
            "val_loss": float(line["val_loss"]),
        }
        for table in tables
        for line in table[table["best"]].to_dict("records")
    ]
    found = {"command": command, "chosen by": "mean validation loss of the recalibrated weights", "best": best}
    write_bytes(folder / "rates.yaml", yaml.safe_dump(masked(found), sort_keys=False).encode())
    return found


def rates_table(tables: Sequence[pd.DataFrame]) -> Table:
    """All rates that were tried, the best of each search marked, for the terminal."""
    shown = Table(
        title="rates by validation loss, mean ± standard deviation over seeds", title_justify="left", box=None
    )
    for name in ("model", "dataset", "optimizer", "lr", "seeds", "val loss", "val %", ""):
        shown.add_column(name, justify="left" if name in COLUMNS[:3] else "right")
    for line in pd.concat(tables).to_dict("records"):
        spread = "" if np.isnan(line["val_loss_std"]) else f" ± {line['val_loss_std']:.4f}"
        loss = "diverged" if np.isinf(line["val_loss"]) else f"{line['val_loss']:.4f}{spread}"
        names = [str(line[name]) for name in COLUMNS[:3]]
        accuracy = "" if np.isnan(line["val_accuracy"]) else f"{line['val_accuracy']:.2f}"
        shown.add_row(*names, f"{line['lr']:g}", str(line["seeds"]), loss, accuracy, "best" if line["best"] else "")
    return shown
