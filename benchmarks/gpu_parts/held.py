"""a: a job that is killed and goes on, deterministic mode repeating itself, and every method held to the contract."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
import pytest
import torch

from gpu_parts.findings import Findings
from gpu_parts.options import Options
from harness.config import BaseConfig
from harness.planning.compose import Request
from harness.planning.resolve import resolve
from harness.problem.splits import load_split
from harness.running.events import EpochEnded, Event, JobResumed
from harness.running.jobs import run_job
from harness.storage.store import Store
from harness.storage.tensors import digest_tensor
from harness.training.kernels import told_kernels
from harness.training.loop import Trainer, set_determinism

if TYPE_CHECKING:
    from harness.conformance.tiny import Subject

WATCHED = "cmd_online"
"""the method that watches the job that is killed"""
KILLED_AFTER = 3
"""epochs of it"""
CLAUSES = (
    "test_job_runs_on_a_device_that_is_not_the_cpu",
    "test_job_stopped_after_every_epoch_ends_alike",
    "test_job_on_a_trained_base_equals_the_first",
    "test_observer_repeats_to_the_last_bit",
    "test_reconstruction_repeats_to_the_last_bit",
    "test_branch_from_a_restart_state_equals_one_without",
    "test_observer_goes_on_from_its_state",
    "test_observer_leaves_the_base_alone",
)
"""the checks that come first, of all methods"""
TINY_METHODS, TINY_CLAUSES = ("ema", "cooldown"), CLAUSES[2:3]


class Repeated(NamedTuple):
    """What is trained twice."""

    model: str
    overrides: tuple[str, ...] = ()


REPEATED = (
    Repeated("resnet18"),
    Repeated("vit_tiny", ("optimizer=adam",)),
    Repeated("lenet5"),
    Repeated("resnet18", ("precision=bfloat16",)),
    Repeated("vit_tiny", ("optimizer=adam", "precision=bfloat16")),
    Repeated("resnet18", ("memory_format=contiguous",)),
    Repeated("resnet18", ("deterministic=false",)),
)
FIRST = 2
"""of these come before the methods, the others after them"""
KEPT_SECONDS = 25.0
"""of the time, for those that come after"""
TINY_REPEATED = (Repeated("test_vit", ("optimizer=adam",)),)


def run(options: Options, findings: Findings) -> None:
    """First what forks processes: once this one has touched the GPU, its children could not."""
    os.environ["TRAINDYN_CONFORMANCE_DEVICE"] = options.device
    torch.set_num_threads(1)
    with findings.piece("a job that is killed"):
        _killed(options, findings)
    repeated = TINY_REPEATED if options.tiny else REPEATED
    _repeat_all(repeated[:FIRST], options, findings)
    with findings.piece("the contract"):
        _hold(options, findings)
    _repeat_all(repeated[FIRST:], options, findings)


def _repeat_all(several: tuple[Repeated, ...], options: Options, findings: Findings) -> None:
    for repeated in several:
        with findings.piece(" ".join(("twice:", repeated.model, *repeated.overrides))):
            findings.deadline.need(0.0 if options.tiny else 5.0)
            _repeat(repeated, options, findings)


def _killed(options: Options, findings: Findings) -> None:
    """A job that kills itself, as from outside, and is started again, against one that nothing happens to."""
    roots = {name: options.work / name for name in ("whole", "killed")}
    runs = (("whole", False), ("killed", True), ("killed", False))
    codes = [_in_a_process(roots[name], kills) for name, kills in runs]
    subject = _subject()  # planning asks for the GPU, after which no process can be forked that uses it
    whole, killed = (Store(root) for root in roots.values())
    digests = [_digests(store, subject.base.key) for store in (whole, killed)]
    rows = [_timeless(store, subject.cell.key) for store in (whole, killed)]
    row = {
        "job": f"test_resnet on digits with {WATCHED}",
        "killed after epoch": KILLED_AFTER,
        f"exit codes: undisturbed, killed, started again ({RESUMED}: it went on from the bundle)": ", ".join(
            map(str, codes)
        ),
        "the same weights after every epoch": len(digests[0]) > 0 and digests[0] == digests[1],
        f"the same numbers of {WATCHED}": len(rows[0]) > 0 and rows[0].equals(rows[1]),
    }
    expected = codes == [0, -signal.SIGKILL, RESUMED]
    findings.row("Resume after a kill", row, ok=expected and all(v is not False for v in row.values()))


RESUMED = 3
"""exit code of a job's process that went on from an earlier one"""


def _subject() -> Subject:
    from harness.conformance.tiny import find_subject  # once the environment says on which device

    return find_subject(WATCHED)


def _in_a_process(root: Path, kills: bool) -> int:
    """The exit code of a process that plans and runs a job in a results folder, and kills itself where it should."""
    process = multiprocessing.get_context("fork").Process(target=_run, args=(root, kills))
    process.start()
    process.join()
    return -255 if process.exitcode is None else process.exitcode


def _run(root: Path, kills: bool) -> None:
    resumed = False

    def tell(event: Event) -> None:
        nonlocal resumed
        resumed = resumed or isinstance(event, JobResumed)
        if kills and isinstance(event, EpochEnded) and event.epoch == KILLED_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)

    run_job(_subject().job("train", root), tell)
    if resumed:
        sys.exit(RESUMED)


def _digests(store: Store, key: str) -> list[str]:
    record = store.base(key)
    return [] if record is None else list(record["digests"])


def _timeless(store: Store, key: str) -> pd.DataFrame:
    """A cell's rows but for the clocks."""
    history = store.history(key)
    assert history is not None, "the job left no history"
    return history[[name for name in history.columns if not name.endswith("_seconds")]]


def _repeat(repeated: Repeated, options: Options, findings: Findings) -> None:
    """Train the same twice for two epochs, and compare the weights."""
    overrides = (
        *options.overrides,
        f"model={repeated.model}",
        "dataset=fashion_mnist",
        f"device={options.device}",
        "method=base",
        "epochs=2",
        "batches_per_epoch=10",
        f"batch_size={16 if options.tiny else 128}",
        *repeated.overrides,
    )
    base = resolve(Request(overrides), "benchmark").bases[0][0]
    named: list[str] = []
    with told_kernels(lambda text: named.append(text.partition(" has no deterministic")[0])):
        ends = [_end(base, options) for _ in range(2)]
    row = {
        "trained twice": " ".join((repeated.model, *repeated.overrides)),
        "the same weights": ends[0][0] == ends[1][0],
        "weights apart, relative": ((ends[0][1] - ends[1][1]).norm() / ends[0][1].norm()).item(),
        "operations without a deterministic form": ", ".join(named) or "none",
    }
    findings.row("Deterministic mode", row, ok=row["the same weights"] is True if base.deterministic else None)


def _end(base: BaseConfig, options: Options) -> tuple[str, torch.Tensor]:
    device = torch.device(options.device)
    set_determinism(base)
    trainer = Trainer(base, load_split(base.dataset, "train").to(device), device)
    for _ in range(base.epochs):
        trainer.train_epoch()
    return digest_tensor(trainer.flat.theta_N), trainer.flat.theta_N.clone()


def _hold(options: Options, findings: Findings) -> None:
    """The conformance suites, the checks that matter most first."""
    suites = Path(__file__).with_name("held_suites.py")
    holding = Holding(options, findings)
    # nothing of this project's own configuration of pytest, and no files beside the tests
    words = [
        str(suites),
        "-q",
        "-c",
        os.devnull,
        f"--rootdir={suites.parent}",
        "--noconftest",
        "-p",
        "no:cacheprovider",
    ]
    code = pytest.main(words, plugins=[holding])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED):
        raise RuntimeError(f"pytest ended with {code!r}")
    if holding.passed + holding.failed + holding.left == 0:
        raise RuntimeError("no check of the conformance suite could be collected")
    findings.note(
        f"{holding.passed} checks of the conformance suite passed, {holding.failed} failed, {holding.left} were left "
        "out for want of time. Each method on test_resnet and digits, 6 epochs of 3 batches; its job "
        "once more on the CPU."
    )


class Holding:
    """pytest's plugin that orders the checks, ends them in time and takes down how they came out."""

    def __init__(self, options: Options, findings: Findings) -> None:
        self._options = options
        self._findings = findings
        self._count: dict[str, Counter[str]] = {}
        self._first: dict[str, str] = {}
        """of each method's failures, what it says"""
        self.left = 0

    @property
    def passed(self) -> int:
        return sum(count["passed"] for count in self._count.values())

    @property
    def failed(self) -> int:
        return sum(count["failed"] for count in self._count.values())

    @staticmethod
    def _preset(node: str) -> str:
        found = re.search(r"::Test_(\w+)::", node)
        assert found is not None
        return found[1]

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self._options.tiny:
            items[:] = [i for i in items if self._preset(i.nodeid) in TINY_METHODS and i.name in TINY_CLAUSES]
        place = {name: number for number, name in enumerate(CLAUSES)}
        # the rest method by method, which shares what is trained for them
        items.sort(key=lambda item: place.get(item.name, len(CLAUSES)))
        self.left = len(items)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        preset = self._preset(report.nodeid)
        count = self._count.setdefault(preset, Counter())
        if report.when == "call" or report.outcome == "failed":
            count[report.outcome] += 1
        if report.when == "teardown":
            self.left -= 1
        if report.outcome == "failed":
            said = getattr(getattr(report.longrepr, "reprcrash", None), "message", str(report.longrepr))
            self._first.setdefault(preset, f"{report.nodeid.rpartition('::')[2]}: {said.splitlines()[0][:300]}")
        row = {
            "method": preset,
            "checks passed": count["passed"],
            "failed": count["failed"],
            "the first failure": self._first.get(preset, ""),
        }
        if report.when != "setup" or report.outcome == "failed":
            self._findings.row("The contract", row, ok=count["failed"] == 0)

    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        if self._findings.deadline.left < (0 if self._options.tiny else KEPT_SECONDS):
            item.session.shouldstop = "the time is up"
