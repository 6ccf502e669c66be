"""Tracking of cells while they run: W&B as a live view of the records, which are complete without it."""

from harness.tracking.live import CellRun, RunInfo, WandbRun, open_run
from harness.tracking.modes import resolve_mode
from harness.tracking.offline import OfflineRun, offline_runs, read_offline, transaction_logs

__all__ = [
    "CellRun",
    "OfflineRun",
    "RunInfo",
    "WandbRun",
    "offline_runs",
    "open_run",
    "read_offline",
    "resolve_mode",
    "transaction_logs",
]
