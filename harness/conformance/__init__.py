"""The conformance suite: what every method must pass, the project's own and those of its users.

A test class of two lines holds a preset to the contract in `harness/method.py`:

    class TestMine(MethodConformance):
        preset = "mine"

with `config_dirs = [Path("folder")]` where the preset and its module lie outside the project, as with the
command's --config-dir. The method runs with its preset's `fast` values on a tiny base (test_resnet on digits, 6
epochs of 3 batches), which is trained once per process; checks of another kind of method are skipped. A failure
quotes the clause that is broken. Runs on the CPU with one thread, the job once more on a GPU that is only pretended
(`elsewhere.py`), and needs pytest, which is a development dependency (`traindyn[dev]`) that the rest of the package
does without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from harness.conformance.brancher import BrancherChecks
from harness.conformance.jobs import JobChecks
from harness.conformance.observer import ObserverChecks
from harness.conformance.preset import PresetChecks
from harness.conformance.reconstruction import ReconstructionChecks
from harness.conformance.tiny import Subject, as_in_a_job, find_subject

__all__ = ["MethodConformance"]


class MethodConformance(PresetChecks, ObserverChecks, ReconstructionChecks, BrancherChecks, JobChecks):
    """All checks of one preset; a subclass names it."""

    preset: ClassVar[str]
    config_dirs: ClassVar[Sequence[Path]] = ()
    """folders with presets and modules from outside the project"""

    @pytest.fixture
    def subject(self) -> Subject:
        """The preset as it is planned on the tiny base; ConfigError in one line where it cannot be."""
        return find_subject(self.preset, tuple(Path(folder) for folder in self.config_dirs))

    @pytest.fixture(autouse=True)
    def process_state(self, subject: Subject) -> Iterator[None]:
        """Every check runs as the harness's jobs do."""
        with as_in_a_job(subject.base.config):
            yield
