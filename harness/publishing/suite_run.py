"""A suite as a run of a tracker: what was asked for, its comparison table, figures and artifacts, from its views."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from harness.config import TrackerConfig
from harness.report.stats.means import statistics
from harness.report.warnings import marks
from harness.results.columns import METRICS
from harness.storage.files import read_bytes
from harness.storage.inside import files_below, files_in, is_file
from harness.tracking.tracker import ArtifactFiles, RunEnd, RunInfo, as_id


def suite_info(plan: Mapping[str, Any], store_id: str) -> RunInfo:
    """A suite's run: what was asked for as its configuration."""
    suite = plan["suite"]
    return RunInfo(
        run_id=f"suite-{as_id(suite)}-{store_id}",
        name=suite,
        group=suite,
        job_type="suite",
        tags=(suite, "suite"),
        config={"command": plan["command"], "created": plan["created"], "plan": plan["config"]},
    )


def suite_end(folder: Path, plan: Mapping[str, Any], frame: pd.DataFrame, config: TrackerConfig) -> RunEnd:
    """A suite's comparison table, figures, and frame, tables and report as artifacts, from its folder of views."""
    comparison = pd.concat([statistics(frame, metric) for metric in METRICS], ignore_index=True)
    images = {path.stem: path for path in files_in(folder / "figures", "*.png")}
    report = folder / "report" / "index.html"
    artifacts = []
    if config.keeps("tables"):
        tables = [path for path in files_in(folder / "tables", "*.*") if path.suffix in (".md", ".csv", ".tex")]
        views = [folder / f"{name}.parquet" for name in ("frame", "history", "correct")]
        views = [*filter(is_file, views), *tables]
        artifacts.append(ArtifactFiles(f"{as_id(plan['suite'])}-frame", "frame", {path.name: path for path in views}))
        if is_file(report):
            whole = {str(path.relative_to(report.parent)): path for path in _files_below(report.parent)}
            artifacts.append(ArtifactFiles(f"{as_id(plan['suite'])}-report", "report", whole))
    statuses = frame["status"].value_counts()
    seconds = {name: float(frame[name].sum()) for name in ("method_seconds", "eval_seconds")}
    training = frame.drop_duplicates("base_key")["train_seconds"].sum()
    return RunEnd(
        summary={
            "cells": len(frame),
            **{mark: mark in marks(frame) for mark in ("fast", "partial")},
            **{f"cells_{status}": int(count) for status, count in statuses.items()},
            "bases": int(frame["base_key"].nunique()),
            "base_train_seconds": float(training),
            **seconds,
        },
        tables={"comparison": comparison, "frame": frame},
        images=images,
        artifacts=artifacts,
        status="failed" if (frame["status"] == "failed").any() else "done",
        digest=_suite_digest(plan, frame, [*images.values(), *([report] if is_file(report) else [])], artifacts),
    )


def _files_below(folder: Path) -> list[Path]:
    """All files of a folder and those within it: the page needs its scripts, figures and cells' pages."""
    return sorted(files_below(folder))


def _suite_digest(
    plan: Mapping[str, Any], frame: pd.DataFrame, files: Sequence[Path], artifacts: Sequence[ArtifactFiles]
) -> str:
    """Of all that a suite's run shows."""
    digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode())
    digest.update(frame.to_json(orient="split", double_precision=15).encode())
    for path in files:
        digest.update(f"{path.name}|".encode() + read_bytes(path))
    return " ".join([digest.hexdigest()[:20], *sorted(artifact.type for artifact in artifacts)])
