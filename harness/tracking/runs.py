"""Cells as runs of a tracker, made from their records and nothing else.

A job that starts a cell's run and `publish` that rebuilds it both come here with the cell's record, of which the job
has all but the end. Suites as runs are made by `publishing.suite_run`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.config import TrackerConfig
from harness.storage.inside import files_in
from harness.tracking.tracker import ArtifactFiles, Row, RunEnd, RunInfo

if TYPE_CHECKING:
    import pandas as pd

    from harness.storage.store import Record, Store

EXTREMES = {"train_loss": min, "val_loss": min, "train_accuracy": max, "val_accuracy": max}
"""columns whose best value over the epochs is worth a look; never those of the test split"""
ENVIRONMENT = ("versions", "device", "threads", "machine", "sources")


def cell_info(record: Record, suite: str) -> RunInfo:
    """A cell's run. `record`: its record, or what a job knows of it when it starts.

    Its name ends with the parameters of the method that are not as in its preset, so that settings are told apart.
    """
    base = f"{record['model']}-{record['dataset']}-{record['optimizer']}-s{record['seed']}"
    changed = "".join(f"-{name}={_short(value)}" for name, value in (record.get("changed") or {}).items())
    labels = ("model", "dataset", "optimizer", "seed", "method", "batchnorm", "base_key", "cell_key")
    config = {
        **{name: record[name] for name in labels},
        "base": record["config"].get("base"),
        "method_config": record["config"].get("method"),
        "evaluate": record["config"].get("evaluate"),
        "environment": {
            **{name: record[name] for name in ENVIRONMENT if name in record},
            **(record.get("environment") or {}),
        },
    }
    return RunInfo(
        run_id=record["run_id"],
        name=f"{base}-{record['method']}{changed}",
        group=f"{base}-{record['base_key'][:8]}",
        job_type=record["method"],
        tags=(suite, record["model"], record["dataset"], record["method"]),
        config=config,
    )


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def cell_end(
    record: Record, rows: Sequence[Row], tables: Mapping[str, pd.DataFrame], kept: Sequence[ArtifactFiles]
) -> RunEnd:
    """How a cell's run ended: the table's numbers, costs, best values over the epochs, tables and artifacts `kept`."""
    best = {
        f"{name}_{best.__name__}": best(values)
        for name, best in EXTREMES.items()
        if (values := [row[name] for row in rows if math.isfinite(row.get(name, math.nan))])
    }
    summary = {
        **record["summary"],
        **record["communication"],
        **record["cost"],
        **best,
        "reason": record["reason"],
        "where": record.get("where"),
    }
    return RunEnd(
        summary=summary,
        tables=tables,
        artifacts=kept,
        status=record["status"],
        digest=cell_digest(record, [artifact.type for artifact in kept]),
    )


def cell_digest(record: Record, kinds: Iterable[str]) -> str:
    """Of a record, and which kinds of artifacts go with it."""
    return " ".join([record["sha256"][:20], *sorted(kinds)])


def holds(digest: str | None, wanted: str) -> bool:
    """Whether a run that ended with `digest` has all that `wanted` stands for."""
    have, want = (digest or "").split(), wanted.split()
    return have[:1] == want[:1] and set(want) <= set(have)


def cell_artifacts(store: Store, record: Record, config: TrackerConfig) -> list[ArtifactFiles]:
    """What the tracker keeps of a cell's files; none of a cell that is not done."""
    return list(_artifacts(store, record, config)) if record["status"] == "done" else []


def _artifacts(store: Store, record: Record, config: TrackerConfig) -> Iterable[ArtifactFiles]:
    folder, key = store.cell_folder(record["cell_key"]), record["cell_key"][:12]
    labels = {name: record[name] for name in ("model", "dataset", "optimizer", "seed", "method", "cell_key")}
    if config.keeps("models"):
        files = {path.name: path for path in files_in(folder, "*.safetensors")}
        if files:
            yield ArtifactFiles(f"model-{key}", "model", files, labels)
    if config.keeps("all") and record["method"] == "base":
        manifest = _manifest(store, record["base_key"])
        if manifest["snapshots"]:
            text = (json.dumps(manifest, indent=1) + "\n").encode()
            name = f"trajectory-{record['base_key'][:12]}"
            yield ArtifactFiles(name, "trajectory", {"manifest.json": text}, {"base_key": record["base_key"]})


def _manifest(store: Store, base_key: str) -> dict[str, Any]:
    """The stored snapshots of a base (epoch, file, bytes, checksum), and the digests of its weights at every epoch."""
    from harness.storage.files import CorruptFile
    from harness.storage.tensors import read_header

    base, snapshots = store.base(base_key), []
    for path in files_in(store.base_folder(base_key) / "trajectory", "[0-9]*.safetensors"):
        try:
            header, _ = read_header(path)
            entry = {"epoch": int(path.stem), "file": path.name, "bytes": path.stat().st_size}
            snapshots.append(entry | {"sha256": header["__metadata__"]["sha256"]})
        except (CorruptFile, KeyError, ValueError) as error:
            store.say(f"left out of the trajectory's manifest: {path}: {error}")
    return {"base_key": base_key, "weights": [] if base is None else base["digests"], "snapshots": snapshots}
