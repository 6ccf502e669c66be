"""The tiny base that the conformance suite runs methods on, recorded once per process.

It lies on the CPU, or on the device that the environment names in TRAINDYN_CONFORMANCE_DEVICE.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import torch

from harness.config import BaseConfig, EvaluateConfig
from harness.method import Layout, Method, Run, Snapshot, Trajectory
from harness.planning.compose import Request, Values, available, load_yaml
from harness.planning.experiment import Experiment
from harness.planning.methods import load_class, make_method, with_lengths
from harness.planning.plan import BasePlan, CellPlan, make_plan
from harness.planning.resolve import resolve
from harness.problem.images import Images
from harness.problem.splits import load_split
from harness.randomness import generator
from harness.running.events import Event
from harness.running.jobs import WORKERS, Job, run_job
from harness.storage.store import Record, Store
from harness.storage.tensors import read_header, read_tensors
from harness.storage.trajectory import StoredTrajectory, read_snapshot
from harness.training.evaluate import Evaluator
from harness.training.loop import Trainer, set_determinism
from harness.validation import ConfigError, nearest

DEVICE = torch.device(os.environ.get("TRAINDYN_CONFORMANCE_DEVICE", "cpu"))
TINY = (
    "model=[test_resnet]",
    "dataset=[digits]",
    "fast=true",
    f"device={DEVICE.type}",
    "engine.threads=1",
    "tracker=none",
    "save=final",
    "trajectory.bundle_seconds=0",
    # dropout draws from torch's global generator, so that a method which disturbs it changes the training
    "model.test_resnet.drop_rate=0.1",
)
OPTIMIZERS = ("sgd_momentum_schedule", "sgd")
"""the tiny base's, and that of an exchange whose clients must not have the first"""
ALONE = ()
"""the settings of the tiny base without clients"""
CLIENTS = ("federation=[iid_10]", "federation.iid_10.clients=3", "batches_per_epoch=1", "batch_size=16")
"""those that give it clients, all of which are in every round"""
SOME = (*CLIENTS, "federation.iid_10.per_round=2", "federation.iid_10.optimizer_state=keep")
"""those by which they miss rounds, and keep their optimizer"""


@dataclass(frozen=True, eq=False)
class Subject:
    """A preset with its `fast` values, planned on the tiny base."""

    values: Values
    """the preset as its file has it, but for lengths: whole numbers in place of shares of the tiny base's epochs"""
    experiment: Experiment
    base: BasePlan
    cell: CellPlan
    settings: tuple[str, ...] = ALONE
    """of the tiny base, beside those that all have"""

    @property
    def recorded(self) -> Recorded:
        """Its base, trained."""
        return recorded(self.settings)

    @property
    def epochs(self) -> int:
        return self.base.config.epochs

    @property
    def needs(self) -> tuple[int, int]:
        """First and last t of the declared snapshots; none lie in 0..-1."""
        return (0, -1) if self.cell.needs is None else self.cell.needs

    def make(self) -> Method:
        return make_method(self.cell.method)

    def job(self, kind: str, root: Path) -> Job:
        """A job of this cell alone, in a results folder of its own or in that of the recorded base."""
        return self._job(kind, root, (self.cell,), self.base.snapshots([self.cell], "none"), set())

    def recording(self, root: Path) -> Job:
        """A training of the base that nobody watches, with every snapshot and restart state kept."""
        ts = set(range(self.epochs + 1))
        return self._job("train", root, (), ts, ts)

    def _job(self, kind: str, root: Path, cells: tuple[CellPlan, ...], snapshots: set[int], starts: set[int]) -> Job:
        known = [(cell, Store(root).record(cell.key)) for cell in cells]
        return Job(
            worker=WORKERS[kind],
            base=replace(self.base, cells=cells),
            cells=cells,
            snapshots=frozenset(snapshots),
            starts=frozenset(starts),
            retrain=False,
            evaluate=self.experiment.evaluate,
            settings=replace(self.experiment.settings, results_dir=str(root)),
            composed={},
            python_path=(),
            generations={cell.key: None if record is None else record["generation"] for cell, record in known},
        )

    def run(self, trajectory: Trajectory) -> Run:
        """What the harness tells an observer or a reconstruction of the tiny base."""
        tiny = self.recorded
        probes = {"probe_loss": tiny.evaluator.probe_loss} if self.make().needs_probe else {}
        return Run(
            layout=tiny.layout,
            trajectory=trajectory.window(*self.needs),
            epochs=self.epochs,
            steps_per_epoch=tiny.steps_per_epoch,
            device=DEVICE,
            rng=lambda purpose: generator(self.base.config.seed, f"method/{purpose}"),
            **probes,
        )


def find_class(preset: str, config_dirs: tuple[Path, ...] = ()) -> type[Method]:
    """The class that a preset's file names, found without composing the preset; ConfigError where there is none."""
    sys.path += [str(folder.resolve()) for folder in config_dirs if str(folder.resolve()) not in sys.path]
    presets = available("method", config_dirs)
    if preset not in presets:
        raise ConfigError(f"method: no preset named {preset!r}{nearest(preset, presets)}")
    return load_class(f"method.{preset}._target_", load_yaml(presets[preset])[preset]["_target_"])


@cache
def find_subject(preset: str, config_dirs: tuple[Path, ...] = (), settings: tuple[str, ...] = ALONE) -> Subject:
    """The preset, composed and validated as the command does it; ConfigError where it cannot be.

    With clients the settings get the first of OPTIMIZERS that the method takes.
    """
    refusals: list[ConfigError] = []
    for optimizer in OPTIMIZERS if settings else OPTIMIZERS[:1]:
        whole = (f"optimizer=[{optimizer}]", *settings)
        try:
            experiment = resolve(
                Request((*TINY, *whole, f"method=[{preset}]"), config_dirs), "conformance", compares=False
            )
            (base,) = make_plan(experiment, Store(temporary_folder())).bases
        except ConfigError as error:
            refusals.append(error)
            continue
        (cell,) = base.cells
        values = with_lengths(preset, load_yaml(available("method", config_dirs)[preset])[preset], base.config.epochs)
        return Subject(values, experiment, base, cell, whole if settings else ALONE)
    raise refusals[0]


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="traindyn-conformance-")


def temporary_folder() -> Path:
    """A folder that vanishes when the process ends."""
    return Path(_temporary().name)


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file's content below a folder, locks and logs left out.

    A safetensors file with metadata may order its header differently each time: its own digest stands for it.
    """
    digests = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.suffix == ".safetensors" and "__metadata__" in read_header(path)[0]:
            digests[str(path.relative_to(folder))] = read_tensors(path)[1]["sha256"]
        elif path.name not in (".lock", "log.txt"):
            digests[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


@contextlib.contextmanager
def as_in_a_job(base: BaseConfig) -> Iterator[None]:
    """One thread and deterministic kernels for the block; afterwards the process is as it was."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, cuda = torch.backends.cudnn.benchmark, torch.backends.cuda
    asked = (cuda.flash_sdp_enabled, cuda.mem_efficient_sdp_enabled, cuda.cudnn_sdp_enabled)
    fused = [bool(enabled()) for enabled in asked]  # type: ignore[no-untyped-call]
    torch.set_num_threads(1)
    set_determinism(base)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
        for enable, before in zip(
            (cuda.enable_flash_sdp, cuda.enable_mem_efficient_sdp, cuda.enable_cudnn_sdp), fused, strict=True
        ):
            enable(before)


def quiet(event: Event) -> None:
    """Tell nobody."""


@dataclass(frozen=True, eq=False)
class Recorded:
    """The tiny base after a training that nobody watched."""

    root: Path
    """the results folder that holds it"""
    base: BasePlan
    record: Record

    @property
    def folder(self) -> Path:
        return Store(self.root).base_folder(self.base.key)

    @cached_property
    def images(self) -> Images:
        return load_split(self.base.config.dataset, "train").to(DEVICE)

    @cached_property
    def layout(self) -> Layout:
        return self.trainer().flat.layout

    @property
    def images_per_epoch(self) -> int:
        """Images that an epoch, or a round of all its clients, trains on."""
        images: int = self.record["counts"]["gradients_full"]
        return images // self.base.config.epochs

    @property
    def steps_per_epoch(self) -> int:
        return self.images.steps(self.base.config.batch_size, self.base.config.batches_per_epoch)

    def trainer(self) -> Trainer:
        """The base at its initial state."""
        return Trainer(self.base.config, self.images, DEVICE)

    @cached_property
    def evaluator(self) -> Evaluator:
        """For probe losses."""
        return Evaluator(self.base.config, EvaluateConfig(), self.images, DEVICE, with_test=False)

    def trajectory(self, folder: Path | None = None) -> StoredTrajectory:
        return StoredTrajectory(folder or self.folder / "trajectory", DEVICE)

    def snapshot(self, t: int) -> Snapshot:
        return read_snapshot(self.folder / "trajectory", t, DEVICE)


@cache
def recorded(settings: tuple[str, ...] = ALONE) -> Recorded:
    """Train the tiny base, with all its snapshots and restart states."""
    subject = find_subject("base", (), settings)
    root = temporary_folder()
    run_job(subject.recording(root), quiet)
    record = Store(root).base(subject.base.key)
    assert record is not None
    assert record["status"] == "done", record["reason"]
    return Recorded(root, subject.base, record)
