"""The installed command: armed against interrupts before it imports anything else."""

# PYTHON_ARGCOMPLETE_OK
from __future__ import annotations

from harness import interrupt

interrupt.arm()


def main() -> None:
    """Run the command and exit, as `harness.cli.main` says."""
    from harness.cli import main as command

    try:
        command()
    except SystemExit as end:
        interrupt.disarm(end.code if isinstance(end.code, int) else 0)
        raise
