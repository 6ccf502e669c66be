"""The conformance suite: what every method must pass, the project's own and those of its users.

A test class of two lines holds a preset to the contract in `harness/method.py`:

    class TestMine(MethodConformance):
        preset = "mine"

with `config_dirs = [Path("folder")]` where the preset and its module lie outside the project, as with the
command's --config-dir; for an exchange it inherits from `ExchangeConformance`, whose tiny base has three clients. The
class has the checks of its method's kind only. The method runs with its preset's `fast` values on a tiny base
(test_resnet on digits, 6 epochs of 3 batches), which is trained once per process. A failure quotes the clause that is
broken. Runs on the CPU with one thread, the job once more on a GPU that is only pretended (`pretended_gpu.py`); with
TRAINDYN_CONFORMANCE_DEVICE=cuda in the environment all of it on a GPU, and the job once more on the CPU. It needs
pytest, which is a development dependency (`traindyn[dev]`) that the rest of the package does without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from harness.config import ConfigError
from harness.conformance.brancher import BrancherChecks
from harness.conformance.exchange import ExchangeConformance
from harness.conformance.jobs import JobChecks
from harness.conformance.observer import ObserverChecks
from harness.conformance.preset import PresetChecks
from harness.conformance.reconstruction import ReconstructionChecks
from harness.conformance.tiny import Subject, as_in_a_job, find_class, find_subject
from harness.method import Brancher, Exchange, Method, Observer, Reconstruction

__all__ = ["ExchangeConformance", "MethodConformance"]

CHECKS_OF_KINDS: dict[type[Method], type] = {
    Observer: ObserverChecks,
    Reconstruction: ReconstructionChecks,
    Brancher: BrancherChecks,
}


class MethodConformance(PresetChecks, ObserverChecks, ReconstructionChecks, BrancherChecks, JobChecks):
    """All checks of one preset; a subclass names it."""

    preset: ClassVar[str]
    config_dirs: ClassVar[Sequence[Path]] = ()
    """folders with presets and modules from outside the project"""

    def __init_subclass__(cls) -> None:
        """Drop the checks of other kinds of methods, so that pytest collects none that does not apply.

        ConfigError where `preset` is not found, names no class, or names an exchange, which has a suite of its own.
        """
        super().__init_subclass__()
        if not hasattr(cls, "preset"):
            return
        method = find_class(cls.preset, tuple(Path(folder) for folder in cls.config_dirs))
        if issubclass(method, Exchange):
            raise ConfigError(f"method.{cls.preset} must be held by ExchangeConformance, got MethodConformance")
        others = (checks for kind, checks in CHECKS_OF_KINDS.items() if not issubclass(method, kind))
        for name in (name for checks in others for name in vars(checks) if name.startswith("test_")):
            setattr(cls, name, None)

    @pytest.fixture
    def subject(self) -> Subject:
        """The preset as it is planned on the tiny base; ConfigError in one line where it cannot be."""
        return find_subject(self.preset, tuple(Path(folder) for folder in self.config_dirs))

    @pytest.fixture(autouse=True)
    def process_state(self, subject: Subject) -> Iterator[None]:
        """Every check runs as the harness's jobs do."""
        with as_in_a_job(subject.base.config):
            yield
