"""The fragments of a W&B run that were recorded offline."""

from harness.tracking.wandb.transaction_log import transaction_logs


def offline_runs(results_dir, run_id):
    """Transaction logs in the order in which they were started."""
    return [path for path in transaction_logs(results_dir, run_id) if path.parent.name.startswith("offline-run-")]
