"""How results are arranged as runs: one per cell, one per suite, made from records and nothing else.

A job that starts a cell's run and `publish` that rebuilds it both come here with the cell's record, of which the job
has all but the end.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import TrackerConfig
from harness.tracking.tracker import ArtifactFiles, Row, RunEnd, RunInfo

if TYPE_CHECKING:
    import pandas as pd

    from harness.store import Record, Store

EXTREMES = {"train_loss": min, "val_loss": min, "train_accuracy": max, "val_accuracy": max}
"""columns whose best value over the epochs is worth a look; never those of the test split"""
ENVIRONMENT = ("versions", "device", "threads", "machine", "sources")


def cell_info(record: Record, suite: str) -> RunInfo:
    """A cell's run. `record`: its record, or what a job knows of it when it starts."""
    base = f"{record['model']}-{record['dataset']}-{record['optimizer']}-s{record['seed']}"
    labels = ("model", "dataset", "optimizer", "seed", "method", "batchnorm", "base_key", "cell_key")
    config = {
        **{name: record[name] for name in labels},
        "base": record["config"]["base"],
        "method_config": record["config"]["method"],
        "evaluate": record["config"]["evaluate"],
        "environment": {name: record[name] for name in ENVIRONMENT if name in record},
    }
    return RunInfo(
        run_id=record["run_id"],
        name=f"{base}-{record['method']}",
        group=f"{base}-{record['base_key'][:8]}",
        job_type=record["method"],
        tags=(suite, record["model"], record["dataset"], record["method"]),
        config=config,
    )


def cell_end(
    store: Store, record: Record, rows: Sequence[Row], tables: Mapping[str, pd.DataFrame], artifacts: TrackerConfig
) -> RunEnd:
    """How a cell's run ended: the table's numbers, costs, best values over the epochs, tables and artifacts."""
    kept = list(_cell_artifacts(store, record, artifacts)) if record["status"] == "done" else []
    best = {
        f"{name}_{best.__name__}": best(values)
        for name, best in EXTREMES.items()
        if (values := [row[name] for row in rows if math.isfinite(row.get(name, math.nan))])
    }
    summary = {**record["summary"], **record["cost"], **best, "reason": record["reason"]}
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


def _cell_artifacts(store: Store, record: Record, config: TrackerConfig) -> Iterable[ArtifactFiles]:
    folder, key = store.cell_folder(record["cell_key"]), record["cell_key"][:12]
    labels = {name: record[name] for name in ("model", "dataset", "optimizer", "seed", "method", "cell_key")}
    if config.keeps("models"):
        files = {path.name: path for path in sorted(folder.glob("*.safetensors"))}
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
    from harness.files import read_header

    base, snapshots = store.base(base_key), []
    for path in sorted((store.base_folder(base_key) / "trajectory").glob("*.safetensors")):
        header, _ = read_header(path)
        entry = {"epoch": int(path.stem), "file": path.name, "bytes": path.stat().st_size}
        snapshots.append(entry | {"sha256": header["__metadata__"]["sha256"]})
    return {"base_key": base_key, "weights": [] if base is None else base["digests"], "snapshots": snapshots}


def suite_info(plan: Mapping[str, Any], store_id: str) -> RunInfo:
    """A suite's run: what was asked for as its configuration."""
    suite = plan["suite"]
    return RunInfo(
        run_id=f"suite-{suite}-{store_id}",
        name=suite,
        group=suite,
        job_type="suite",
        tags=(suite, "suite"),
        config={"command": plan["command"], "created": plan["created"], "plan": plan["config"]},
    )


def suite_end(folder: Path, plan: Mapping[str, Any], frame: pd.DataFrame, config: TrackerConfig) -> RunEnd:
    """A suite's comparison table, figures, and frame, tables and report as artifacts, from its folder of views."""
    import pandas as pd

    from harness.report.tables import METRICS, statistics

    comparison = pd.concat([statistics(frame, metric) for metric in METRICS], ignore_index=True)
    images = {path.stem: path for path in sorted((folder / "figures").glob("*.png"))}
    report = folder / "report" / "index.html"
    artifacts = []
    if config.keeps("tables"):
        tables = [path for path in sorted((folder / "tables").glob("*.*")) if path.suffix in (".md", ".csv", ".tex")]
        views = [folder / "frame.parquet", folder / "history.parquet", *tables]
        artifacts.append(ArtifactFiles(f"{plan['suite']}-frame", "frame", {path.name: path for path in views}))
        if report.is_file():
            whole = {str(path.relative_to(report.parent)): path for path in _files_below(report.parent)}
            artifacts.append(ArtifactFiles(f"{plan['suite']}-report", "report", whole))
    statuses = frame["status"].value_counts()
    seconds = {name: float(frame[name].sum()) for name in ("method_seconds", "eval_seconds")}
    training = frame.drop_duplicates("base_key")["train_seconds"].sum()
    return RunEnd(
        summary={
            "cells": len(frame),
            **{f"cells_{status}": int(count) for status, count in statuses.items()},
            "bases": int(frame["base_key"].nunique()),
            "base_train_seconds": float(training),
            **seconds,
        },
        tables={"comparison": comparison, "frame": frame},
        images=images,
        artifacts=artifacts,
        status="failed" if (frame["status"] == "failed").any() else "done",
        digest=_suite_digest(plan, frame, [*images.values(), *([report] if report.is_file() else [])], artifacts),
    )


def _files_below(folder: Path) -> list[Path]:
    """All files of a folder and those within it: the page needs its scripts, figures and cells' pages."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def _suite_digest(
    plan: Mapping[str, Any], frame: pd.DataFrame, files: Sequence[Path], artifacts: Sequence[ArtifactFiles]
) -> str:
    """Of all that a suite's run shows."""
    digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode())
    digest.update(frame.to_json(orient="split", double_precision=15).encode())
    for path in files:
        digest.update(f"{path.name}|".encode() + path.read_bytes())
    return " ".join([digest.hexdigest()[:20], *sorted(artifact.type for artifact in artifacts)])
