"""Tracking of runs: W&B, plain files or nothing, fed by jobs and from records, which are complete without it."""

from __future__ import annotations

from pathlib import Path

from harness.config import TrackerConfig
from harness.tracking.tracker import Say, Tracker
from harness.tracking.wandb.destination import check_environment, forget_single_run, resolve_mode

__all__ = ["check_environment", "open_tracker", "tracks"]


def tracks(config: TrackerConfig) -> bool:
    """Whether a configuration asks for any tracking."""
    return config.name == "csv" or (config.name == "wandb" and config.mode != "disabled")


def open_tracker(config: TrackerConfig, results_dir: Path, say: Say, notice: bool = False) -> Tracker:
    """The tracker of a configuration, its files below `results_dir`.

    What is not as asked for is said in one line to `say`; with `notice` also what `tracker.mode=auto` chose.
    """
    if not tracks(config):
        return Tracker()
    if config.name == "csv":
        from harness.tracking.csv_files import CsvTracker

        return CsvTracker(results_dir, say, config.tags, config.notes)
    mode, note = resolve_mode(config)
    if mode == "disabled":
        if notice and note is not None:
            say(note)
        return Tracker()
    from harness.tracking.wandb.live import WandbTracker

    tracker = WandbTracker(config, results_dir, say, notice)
    forget_single_run()
    return tracker
