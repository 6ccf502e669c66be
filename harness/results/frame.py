"""The results of a view as DataFrames: one row per cell of its plan, built from the records.

Records are the truth, the files below suites/ are views of them. Nothing here resolves a configuration: what a
view consists of is read from its plan.json, so frames can be built on another machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from harness.results.columns import ADDED, FRAME_COLUMNS, METRICS, PARAMETER, ROW_METHOD, declare, from_source
from harness.results.correct import Correct, correct_of, correct_table
from harness.storage.checked import STATUSES as RECORDED
from harness.storage.files import CorruptFile
from harness.storage.parquet import check_parquet, read_parquet
from harness.storage.store import Store, has_other_weights
from harness.storage.views import chosen_view, is_fast, read_plan
from harness.validation import ConfigError, as_name, reason, shown

LABELS = [*ROW_METHOD, "seed"]
"""The columns of the frame that a history has too."""
MARGIN = 0.5
"""The points of accuracy within which methods count as equivalent, where the plan does not say."""
SAID = ("created", "command", "commands")
"""What a plan says of the commands that asked for it, which no view shows: a frame stays of it where these change."""
STATUSES = (*RECORDED, "stale", "left")
"""What became of a cell: `stale` where its base has other weights now than those that its numbers are of."""
CAUSE = ("reason", "where", "log")
"""What the record of a cell that did not end well says of it; `where` and `log` are of no earlier version."""
TOGETHER = 500
"""The histories that are read before they become one table."""
STALE = "its base was trained anew since, to other weights; redo=stale runs it again"
UNFINISHED = ("failed", "diverged", "skipped", "stale", "left")
"""The statuses without numbers, the gravest first."""


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True)


def _row(cell: dict[str, Any], record: dict[str, Any] | None, history: pa.Table | None) -> dict[str, Any]:
    """A cell of the plan with what its record holds, and of a kernel that was recorded by an earlier version what the
    last line of its history says."""
    row = {name: cell.get(name) for name in from_source("plan")} | {"parameters": _text(cell["parameters"])}
    row["federation"] = row["federation"] or "none"  # a plan of an earlier version says nothing of it
    if record is None or record["status"] == "stale":
        return {**row, "status": "left" if record is None else "stale"}
    row |= {name: record.get(name) for name in from_source("record")}
    row["versions"] = _text({"traindyn" if name == "cmdbench" else name: v for name, v in record["versions"].items()})
    row |= {name: record["summary"].get(name) for name in METRICS}
    row |= {name: record["communication"].get(name) for name in from_source("communication")}
    row |= {name: record["cost"].get(name) for name in from_source("cost")}
    load = (record.get("machine") or {}).get("load") or {}
    row |= {name: load.get(name) for name in from_source("load")}
    return row | {name: record["kernel"].get(name, _last(history, f"kernel_{name}")) for name in from_source("kernel")}


def _last(history: pa.Table | None, name: str) -> float | None:
    """The last value of a column of a history; None where it has none."""
    if history is None or name not in history.column_names or len(history) == 0:
        return None
    value: float | None = history[name][-1].as_py()
    return value


def build_frame(store: Store, plan: dict[str, Any]) -> pd.DataFrame:
    """One row per cell of the plan, in its order; status `left` and no numbers where there is no record.

    Accuracies are in percent, seconds in s, memory in bytes; `parameters` and `versions` are JSON with sorted keys, and
    the parameters that differ between cells are columns too, see `with_parameters`. `frame.attrs["causes"]` has CAUSE
    of the cells that did not end well, by their keys. ConfigError as in `validate`.
    """
    declare(plan.get("better"))
    rows = _Rows()
    for cell, record, table in _cells(store, plan):
        rows.add(cell, record, table)
    return rows.frame(plan)


class Gathered(NamedTuple):
    """What the records of a plan hold: the frame, the history, and which test images every cell got right."""

    frame: pd.DataFrame
    history: pd.DataFrame
    correct: pd.DataFrame


def gather(store: Store, plan: dict[str, Any]) -> Gathered:
    """Frame and history of a plan as `build_frame` and `build_history` give them, and the test images that every cell
    got right as `correct.correct_table` does; each record is read once.
    """
    declare(plan.get("better"))
    rows = _Rows()
    parts: list[pa.Table] = []
    whole: list[pa.Table] = []
    correct: dict[str, Correct] = {}
    for cell, record, table in _cells(store, plan):
        rows.add(cell, record, table)
        if record is None or table is None:
            continue
        if record["status"] == "done" and (bits := correct_of(record)) is not None:
            correct[cell["cell_key"]] = bits
        keys = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(table), dtype=np.int32)), [cell["cell_key"]])
        parts.append(table.add_column(0, "cell_key", keys.cast("string")).replace_schema_metadata(None))
        if len(parts) == TOGETHER:  # each small table takes more than its numbers
            whole, parts = [*whole, pa.concat_tables(parts, promote_options="permissive").combine_chunks()], []
    frame = rows.frame(plan)
    whole += parts
    parts.clear()
    return Gathered(frame, _history(whole), correct_table(correct))


def _cells(
    store: Store, plan: dict[str, Any]
) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None, pa.Table | None]]:
    """The cells of a plan, each with its record and history: neither where one of them is not there or damaged, and no
    history where the cell is stale, as its record then says in place of done."""
    bases: dict[str, dict[str, Any] | None] = {}
    for cell in plan["cells"]:
        found = store.cell(cell["cell_key"])
        table = None if found is None else _table(store, cell["cell_key"], found[1])
        if found is None or table is None:
            yield cell, None, None
            continue
        record, key = found[0], cell["base_key"]
        if key not in bases:
            base = store.base(key)
            bases[key] = base and {"digests": base["digests"][-1:]}  # of many bases all would fill the memory
        if record["status"] == "done" and has_other_weights(bases[key], record):
            yield cell, {**record, "status": "stale", "reason": STALE}, None
        else:
            yield cell, record, table


class _Rows:
    """The rows of a frame as records come in."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._causes: dict[str, list[str | None]] = {}
        self._threads: Counter[str] = Counter()

    def add(self, cell: dict[str, Any], record: dict[str, Any] | None, history: pa.Table | None) -> None:
        """A cell of the plan with its record and history, None where it has none whose history can be read."""
        self._rows.append(_row(cell, record, history))
        if record is not None and record["status"] != "done":
            self._causes[cell["cell_key"]] = [record.get(name) for name in CAUSE]
        elif record is not None:
            self._threads[str(record["threads"] or "unknown")] += 1

    def frame(self, plan: dict[str, Any]) -> pd.DataFrame:
        """All rows as `build_frame` gives them."""
        frame = _frame(self._rows, plan)
        frame.attrs["threads"] = dict(self._threads)
        frame.attrs["causes"] = self._causes
        return frame


def _table(store: Store, cell_key: str, content: bytes) -> pa.Table | None:
    """The history of a cell, None where its file holds none, which is said."""
    try:
        table = check_parquet(content).read()
        kinds = {field.name: field.type for field in table.schema}
        numbers = all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds.values())
        if not numbers or "epoch" not in kinds or "cell_key" in kinds:
            raise CorruptFile("columns must be epoch and numbers")
        return table.set_column(table.column_names.index("epoch"), "epoch", table["epoch"].cast("int64"))
    except (CorruptFile, pa.ArrowException, OSError) as error:
        path = store.cell_folder(cell_key) / "history.parquet"
        store.say(f"not read, its cell counts as left: {path}: {reason(error)}")
        return None


def _frame(rows: list[dict[str, Any]], plan: dict[str, Any]) -> pd.DataFrame:
    kinds = FRAME_COLUMNS | dict.fromkeys(declare(plan.get("better")), "float64")
    frame = with_parameters(pd.DataFrame(rows, columns=list(kinds)).astype(kinds))
    frame.attrs["plan"] = _digest(plan)
    frame.attrs["fast"] = is_fast(plan)
    frame.attrs["reconstructions"] = reconstructions(plan)
    frame.attrs["kinds"] = all("kind" in cell for cell in plan["cells"])
    frame.attrs |= _tested(plan) | _own(plan)
    validate(frame)
    return frame


def _own(plan: dict[str, Any]) -> dict[str, Any]:
    """Of a view with somebody's own evaluation `metric`, what methods are compared by, and `plain`, the method that
    stands for plain training where it is not the recalibrated base; ConfigError for anything else."""
    found: dict[str, Any] = {}
    if plan.get("metric") is not None:
        if plan["metric"] not in METRICS:
            raise ConfigError(f"plan.metric must be one of {', '.join(METRICS)}, got {shown(plan['metric'])}")
        found["metric"] = plan["metric"]
    if plan.get("plain") is not None:
        if plan["plain"] != "base":
            raise ConfigError(f"plan.plain must be base, got {shown(plan['plain'])}")
        found["plain"] = "base"
    return found


def with_parameters(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame with a column `param.<name>` for every parameter of methods that differs between cells that have it.

    Numbers are float64, NaN where a cell's method has no such parameter or it is null; all else is text, as JSON where
    it is no text itself.
    """
    read = {text: json.loads(text) for text in frame["parameters"].unique()}
    values = frame["parameters"].map(read)
    columns = {}
    for name in sorted({name for parameters in read.values() for name in parameters}):
        own = [parameters[name] for parameters in values if name in parameters]
        if len({json.dumps(value, sort_keys=True) for value in own}) > 1:
            found = [parameters.get(name) for parameters in values]
            number = all(value is None or type(value) in (int, float) for value in own)
            texts = [v if v is None or isinstance(v, str) else json.dumps(v, sort_keys=True) for v in found]
            columns[f"{PARAMETER}{name}"] = pd.Series(
                found if number else texts, index=frame.index, dtype="float64" if number else "str"
            )
    return frame[[name for name in frame if not str(name).startswith(PARAMETER)]].assign(**columns)


def with_labels(history: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """A history with the columns LABELS of its cells, after their keys; those that it has stay."""
    labels = frame.set_index("cell_key")[LABELS].reindex(history["cell_key"])
    missing = {name: labels[name].array for name in LABELS if name not in history}
    whole = history.assign(**missing)
    others = [name for name in history if name not in ("cell_key", *LABELS)]
    return whole[["cell_key", *LABELS, *others]]


def _tested(plan: dict[str, Any]) -> dict[str, Any]:
    """`primary`, the comparisons that are tested, each a method and its control, `named`, since when (None in an older
    plan), and `margin`, the points within which methods count as equivalent; none and MARGIN in an older plan.
    ConfigError for anything else."""
    pairs, margin = plan.get("primary") or [], plan.get("margin", MARGIN)
    known = isinstance(pairs, list) and all(
        isinstance(pair, dict) and {"method", "control"} <= set(pair) for pair in pairs
    )
    again = f"the run of {plan.get('suite')} writes it anew"
    if not known:
        raise ConfigError(f"plan.primary must be a list of methods with their control, got {shown(pairs)}; {again}")
    if isinstance(margin, bool) or not isinstance(margin, (int, float)) or not 0 < margin < 1e300:
        raise ConfigError(f"plan.margin must be above 0 points, got {shown(margin)}; {again}")
    named = plan.get("named")
    if not (named is None or (isinstance(named, dict) and {"stated", "done"} <= set(named))):
        raise ConfigError(f"plan.named must say stated and done, got {shown(named)}; {again}")
    primary = [[str(pair["method"]), str(pair["control"])] for pair in pairs]
    return {"primary": primary, "named": named, "margin": float(margin)}


def reconstructions(plan: dict[str, Any]) -> list[str]:
    """The methods of a plan that see the whole run before they have weights."""
    return list(dict.fromkeys(cell["method"] for cell in plan["cells"] if cell.get("kind") == "reconstruction"))


def validate(frame: pd.DataFrame) -> None:
    """ConfigError of one line where a frame has other columns, dtypes, statuses or ranges, or a cell twice."""
    own = [
        name
        for name in frame.columns
        if not str(name).startswith(PARAMETER) and (name in FRAME_COLUMNS or name not in METRICS)
    ]
    if own != list(FRAME_COLUMNS):
        differing = sorted(set(own) ^ set(FRAME_COLUMNS)) or "their order"
        raise ConfigError(f"frame columns must be those of FRAME_COLUMNS, got a difference in {differing}")
    for name, dtype in FRAME_COLUMNS.items():
        if str(frame[name].dtype) != dtype:
            raise ConfigError(f"frame.{name} must be of dtype {dtype}, got {frame[name].dtype}")
    repeated = frame["cell_key"][frame["cell_key"].duplicated()]
    if len(repeated):
        raise ConfigError(f"frame.cell_key must not repeat, got {repeated.iloc[0]} twice")
    unknown = frame[~frame["status"].isin(STATUSES)]
    if len(unknown):
        status, key = unknown.iloc[0][["status", "cell_key"]]
        raise ConfigError(f"frame.status must be one of {', '.join(STATUSES)}, got {status!r} in cell {key}")
    for name in ROW_METHOD:
        for text in frame[name].unique():
            try:
                as_name(text)
            except (ValueError, AttributeError) as error:
                raise ConfigError(f"frame.{name} must be {error}, got {shown(text)}") from error
    for name in (name for name, metric in METRICS.items() if metric.unit == "%"):
        outside = frame[frame[name].notna() & ~frame[name].between(0, 100)]
        if len(outside):
            value, key = outside.iloc[0][[name, "cell_key"]]
            raise ConfigError(f"frame.{name} must be within 0..100 percent, got {value} in cell {key}")


def build_history(store: Store, plan: dict[str, Any]) -> pd.DataFrame:
    """The history of a plan: one row per cell and recorded epoch, in the order of the plan.

    Columns: cell_key, epoch, and the union of all metrics.
    """
    return gather(store, plan).history


def _history(parts: list[pa.Table]) -> pd.DataFrame:
    """One table of all histories, which it takes the place of: `parts` is empty then, and memory holds them once."""
    if not parts:
        return pd.DataFrame({"cell_key": pd.Series(dtype="str"), "epoch": pd.Series(dtype="int64")})
    whole = pa.concat_tables(parts, promote_options="permissive")
    parts.clear()
    metrics = [name for name in whole.column_names if name not in ("cell_key", "epoch")]
    whole = whole.select(["cell_key", "epoch", *metrics])
    frame: pd.DataFrame = whole.to_pandas(split_blocks=True, self_destruct=True)
    return frame.astype({"cell_key": "str", "epoch": "int64"})


def load_correct(results_dir: Path | str, name: str | None = None) -> pd.DataFrame:
    """The test images that every cell of a view got right, see `correct.correct_table`.

    From where `load_frame` reads.
    """
    name = chosen_view(results_dir, name)
    plan = read_plan(results_dir, name)
    if _views(Path(results_dir), name, plan) is not None:
        with contextlib.suppress(OSError, ValueError):  # an earlier version wrote none
            return read_parquet(Path(results_dir) / "suites" / name / "correct.parquet")
    return gather(Store(Path(results_dir)), plan).correct


def _digest(plan: dict[str, Any], without: Sequence[str] = SAID) -> str:
    return hashlib.sha256(_text({k: v for k, v in plan.items() if k not in without}).encode()).hexdigest()


def _names(frame: pd.DataFrame, plan: dict[str, Any]) -> bool:
    """Whether a stored frame says that it is of this plan; earlier versions took SAID into its digest."""
    return frame.attrs.get("plan") in (_digest(plan), _digest(plan, ()))


def is_of(frame: pd.DataFrame, plan: dict[str, Any]) -> bool:
    """Whether a stored frame is of this plan, with nothing left."""
    return _names(frame, plan) and not (frame["status"] == "left").any()


def _views(results_dir: Path, name: str, plan: dict[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """The stored frame and history, or None where they are damaged, of another plan, or what was left may be done.

    Those of an earlier version are taken, without the columns added since, only where there are no records.
    """
    folder = results_dir / "suites" / name
    try:
        frame, history = (read_parquet(folder / f"{kind}.parquet") for kind in ("frame", "history"))
        declare(plan.get("better"))
        earlier = set(FRAME_COLUMNS) - set(frame.columns)
        if earlier <= set(ADDED):
            frame = with_parameters(_whole(frame))
        validate(frame)
    except (OSError, ValueError):
        return None
    outdated = (bool(earlier) or (frame["status"] == "left").any()) and (results_dir / "cells").is_dir()
    return None if outdated or not _names(frame, plan) else (frame, history)


def _whole(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame of an earlier version with all columns; there were no federations then."""
    whole = [*FRAME_COLUMNS, *(name for name in frame.columns if name in METRICS and name not in FRAME_COLUMNS)]
    frame = frame.reindex(columns=whole)
    federation = frame["federation"].astype("object")
    return frame.assign(federation=federation.where(federation.notna(), "none")).astype(FRAME_COLUMNS)


def load_frame(results_dir: Path | str, name: str | None = None) -> pd.DataFrame:
    """The frame of a view, of the latest where no name is given (columns: FRAME_COLUMNS, then `with_parameters`).

    The stored view where it is of the view's plan and complete, otherwise built from the records, so a frame can be
    looked at while its cells run. ConfigError, naming the views there are, where there is none of that name.
    """
    name = chosen_view(results_dir, name)
    plan = read_plan(results_dir, name)
    views = _views(Path(results_dir), name, plan)
    return build_frame(Store(Path(results_dir)), plan) if views is None else views[0]


def load_history(results_dir: Path | str, name: str | None = None) -> pd.DataFrame:
    """The curves of a view, of the latest where no name is given: cell_key, model, dataset, optimizer, method, seed,
    epoch, and the union of all metrics; from where `load_frame` reads, and with its errors."""
    name = chosen_view(results_dir, name)
    plan = read_plan(results_dir, name)
    views = _views(Path(results_dir), name, plan)
    if views is None:
        frame, history, _ = gather(Store(Path(results_dir)), plan)
        return with_labels(history, frame)
    return with_labels(views[1], views[0])
