"""Evaluation by somebody's own command or class: weights are written as a checkpoint like those that came in, and what
measures them says numbers.

Numbers of the same weights are taken once, and kept with the base: equal proposals, and an interrupted run, cost
nothing again. A command is run without a shell; `{checkpoint}`, `{method}`, `{t}` and `{seed}` in its words stand for
the weights' path and for what they are.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import math
import os
import shlex
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness.checkpoints.digests import digest as digest_of_place
from harness.checkpoints.giving import file_name, give
from harness.checkpoints.recognition import recognise
from harness.checkpoints.registry import kept_folder
from harness.checkpoints.roles import BUFFER, TIED
from harness.checkpoints.runs import AdoptedRun
from harness.checkpoints.trajectory import read_named
from harness.config import EvaluateConfig
from harness.method import Layout, Proposal, Snapshot
from harness.problem.running_norms import reset_statistics, running_norms
from harness.snapshots import tensors_of
from harness.storage import inside
from harness.storage.files import CorruptFile, read_json, write_json
from harness.storage.store import Store
from harness.storage.tensors import digest_tensor
from harness.validation import printable, reason, shown

LONGEST_LINE = 300
"""characters of what a command said that an error repeats"""


class NotMeasured(Exception):
    """What was to measure weights did not, in one line."""


class Flat(NamedTuple):
    """What there is of a model: how its weights lie in theta_N."""

    layout: Layout


@dataclass(frozen=True)
class Weights:
    """Weights and buffers as a model's state dict."""

    tensors: dict[str, Tensor]

    def state_dict(self) -> dict[str, Tensor]:
        return self.tensors


class Task(NamedTuple):
    """Weights to be measured, on behalf of a method at a snapshot."""

    snapshot: Snapshot
    theta_N: Tensor
    buffers: Mapping[str, Tensor]
    policy: str
    method: str


class OwnEvaluator:
    """Evaluates weights of an adopted run as `harness.training.evaluate.Evaluator` does those of a known model.

    `folder` is where checkpoints lie while a command measures them.
    """

    test_correct: Tensor | None = None
    client_accuracy_K: Tensor | None = None
    probe: Sequence[object] = ()

    def __init__(
        self,
        run: AdoptedRun,
        config: EvaluateConfig,
        store: Store,
        device: torch.device,
        evaluation: str,
        folder: Path,
    ) -> None:
        self.run, self.config, self.device = run, config, device
        self.flat = Flat(run.layout)
        self.method = "base"
        """on whose behalf weights are evaluated, for `{method}`"""
        self._folder = folder
        self._kept = kept_folder(store, run.key) / "measured" / evaluation
        self._problem: Any = None
        self._model: nn.Module | None = None

    def probe_loss(self, theta_N: Tensor) -> float:
        raise RuntimeError("an adopted run has no probe")

    def splits(self, last: bool) -> tuple[str, ...]:
        """Validation, and at the last snapshot test data where a command measures these."""
        return ("val", "test") if last and self.config.test_command is not None else ("val",)

    def _task(self, snapshot: Snapshot, proposal: Proposal | None, policy: str, method: str) -> Task:
        theta_N, buffers = snapshot.theta_N, snapshot.buffers
        if proposal is not None:
            theta_N = proposal.theta_N
            if policy == "averaged" and proposal.buffers is not None:
                buffers = proposal.buffers
        return Task(snapshot, theta_N, buffers, policy, method)

    def prepare(self, snapshot: Snapshot, proposal: Proposal | None, policy: str) -> Weights:
        """Weights and buffers of a proposal, or of the run itself, by their names."""
        task = self._task(snapshot, proposal, policy, self.method)
        parts = dict(zip(self.flat.layout.names, tensors_of(task.theta_N, self.flat.layout), strict=True))
        return Weights({**parts, **task.buffers})

    def evaluate(
        self, snapshot: Snapshot, proposal: Proposal | None, policy: str, splits: tuple[str, ...]
    ) -> dict[str, float]:
        """`<split>_<metric>` for every number that is measured; NaN for a loss where weights are not finite.
        NotMeasured where nothing is."""
        task = self._task(snapshot, proposal, policy, self.method)
        if not bool(task.theta_N.isfinite().all()):
            return {f"{split}_loss": math.nan for split in splits}
        measured = self._measured(task, splits)
        return {f"{split}_{name}": value for split in splits for name, value in measured[split].items()}

    def expect(self, tasks: Iterable[tuple[Snapshot, Proposal | None, str, str]], splits: tuple[str, ...]) -> None:
        """Measure several weights at once, as many as `evaluate.jobs` says; what fails is told when it is asked for."""
        if self.config.jobs == 1 or self.config.command is None:
            return
        todo = {self._key(task): task for task in (self._task(*one) for one in tasks)}
        finite = [task for task in todo.values() if bool(task.theta_N.isfinite().all())]
        with ThreadPoolExecutor(self.config.jobs) as pool:
            for future in [pool.submit(self._measured, task, splits) for task in finite]:
                with contextlib.suppress(NotMeasured):
                    future.result()

    def _key(self, task: Task) -> str:
        """Of weights, buffers and what is done to them before they are measured."""
        buffers = [[name, digest_tensor(task.buffers[name])] for name in sorted(task.buffers)]
        recalibrated = task.policy == "recalibrate"
        said = json.dumps([digest_tensor(task.theta_N), [] if recalibrated else buffers, recalibrated])
        return hashlib.sha256(said.encode()).hexdigest()[:32]

    def _measured(self, task: Task, splits: tuple[str, ...]) -> dict[str, dict[str, float]]:
        key = self._key(task)
        found = {split: self._known(key, split) for split in splits}
        if all(known is not None for known in found.values()):
            return {split: known for split, known in found.items() if known is not None}
        lacking = tuple(split for split, known in found.items() if known is None)
        fresh = self._by_command(task, lacking) if self.config.command is not None else self._by_class(task)
        for split in lacking:
            write_json(self._kept / f"{key}-{split}.json", fresh[split])
        return {split: known if (known := found[split]) is not None else fresh[split] for split in splits}

    def _known(self, key: str, split: str) -> dict[str, float] | None:
        try:
            return _numbers(read_json(self._kept / f"{key}-{split}.json"), "a kept measurement")
        except (OSError, CorruptFile, NotMeasured):
            return None

    @contextlib.contextmanager
    def _written(self, task: Task) -> Iterator[Path]:
        """The weights as a checkpoint, which is gone afterwards."""
        folder = self._folder / f".{uuid.uuid4().hex[:12]}.tmp"
        inside.check_writable(folder)
        try:
            t = task.snapshot.t
            to = folder / file_name(self.run, t)
            yield give(self.run, t, task.theta_N, task.buffers, to, self.config.dtype).path
        finally:
            inside.remove_folder(folder, ignore_errors=True)

    def _by_command(self, task: Task, splits: tuple[str, ...]) -> dict[str, dict[str, float]]:
        config, found = self.config, {}
        with self._written(task) as path:
            if task.policy == "recalibrate":
                assert config.recalibrate_command is not None
                before = self._weight_digests(path)
                self._run("recalibrate_command", config.recalibrate_command, path, task)
                if self._weight_digests(path) != before:
                    raise NotMeasured("evaluate.recalibrate_command must change buffers alone, and changed weights")
            commands = {"val": ("command", config.command), "test": ("test_command", config.test_command)}
            for split in splits:
                name, command = commands[split]
                assert command is not None
                found[split] = _last_line(name, self._run(name, command, path, task))
        return found

    def _weight_digests(self, path: Path) -> list[str]:
        """Digests of all tensors of a checkpoint but buffers, to see that they stay."""
        found = recognise(path, "auto")
        names = {own.name for own in self.run.tensors if own.role != BUFFER}
        return [
            digest_of_place(found.tensors[raw])[0]
            for name, raw in sorted(self.run.by_name(found).items())
            if name in names
        ]

    def _run(self, name: str, command: str, path: Path, task: Task) -> str:
        """What a command printed; NotMeasured where it did not end well."""
        stands = {"checkpoint": str(path), "method": task.method, "t": task.snapshot.t, "seed": self.run.seed}
        return run_command(f"evaluate.{name}", command, stands, self.config.timeout)

    def _by_class(self, task: Task) -> dict[str, dict[str, float]]:
        assert self.config.callable is not None
        key = f"evaluate.callable={self.config.callable}"
        model = self._loaded(key, task)
        if task.policy == "recalibrate":
            _recalibrate(model, self._problem, key)
        with _told(f"{key}.evaluate"), torch.random.fork_rng(devices=[]):
            numbers = self._problem.evaluate(model.eval())
        return {"val": _numbers(numbers, f"{key}.evaluate")}

    def _loaded(self, key: str, task: Task) -> nn.Module:
        """The class's model with the weights, and for all else of its state what the snapshot has."""
        if self._model is None:
            with _told(key):
                module, _, name = str(self.config.callable).partition(":")
                self._problem = getattr(importlib.import_module(module), name)()
                self._model = self._problem.model().to(self.device)
        model, run = self._model, self.run
        values: dict[str, Tensor] = self.prepare(task.snapshot, Proposal(task.theta_N), "as_is").tensors | dict(
            task.buffers
        )
        values |= {own.name: values[own.of] for own in run.tensors if own.role == TIED and own.of in values}
        rest = tuple(own.name for own in run.tensors if own.name not in values)
        values |= read_named(run, run.ts.index(task.snapshot.t), rest)
        if self.config.dtype == "source":
            kinds = {own.name: own.dtype.removeprefix("torch.") for own in run.weights}
            values |= {name: values[name].to(getattr(torch, kind)) for name, kind in kinds.items()}
        state = model.state_dict()
        shared = {tensor.data_ptr() for name, tensor in state.items() if name in values}
        lacking = sorted(name for name in set(state) - set(values) if state[name].data_ptr() not in shared)
        if lacking:
            raise NotMeasured(f"{key}: its model has a tensor that the run has not: {lacking[0]}")
        with torch.no_grad():
            for name, tensor in state.items():
                if name not in values:
                    continue
                if tensor.shape != values[name].shape:
                    raise NotMeasured(
                        f"{key}: tensor {name} has shape {tuple(tensor.shape)}, not {tuple(values[name].shape)}"
                    )
                tensor.copy_(values[name])
        return model


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Errors of somebody's class, as what they are of."""
    try:
        yield
    except Exception as error:
        raise NotMeasured(f"{what} raised {type(error).__name__}: {reason(error)}") from error


def _recalibrate(model: nn.Module, problem: Any, key: str) -> None:
    """Running statistics as the averages over the batches that a class gives."""
    batches: Callable[[], Iterable[Any]] | None = getattr(problem, "recalibration", None)
    if batches is None:
        raise NotMeasured(f"{key} must have recalibration() for evaluate.buffers=recalibrate")
    norms = running_norms(model)
    momenta = [norm.momentum for norm in norms]
    model.eval()
    try:
        for norm in norms:
            reset_statistics(norm)
            norm.momentum = None  # the average of all batches
            norm.train()
        with _told(f"{key}.recalibration"), torch.no_grad(), torch.random.fork_rng(devices=[]):
            for batch in batches():
                model(batch[0] if isinstance(batch, list | tuple) else batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


def run_command(what: str, command: str, stands: Mapping[str, object], timeout: float) -> str:
    """What a command printed, its placeholders filled in; NotMeasured where it fails, or takes longer than it may."""
    words = shlex.split(command)
    for name, value in stands.items():
        words = [word.replace(f"{{{name}}}", str(value)) for word in words]
    try:
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
            errors="replace", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise NotMeasured(f"{what} could not be started: {error.strerror}: {shown(words[0])}") from error
    try:
        printed, complained = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise NotMeasured(f"{what} took more than evaluate.timeout={timeout:g} seconds") from None
    finally:
        if process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode != 0:
        said = next((line for line in reversed(complained.splitlines()) if line.strip()), "nothing on stderr")
        raise NotMeasured(f"{what} ended with {process.returncode}: {printable(said.strip())[:LONGEST_LINE]}")
    return printed


def _last_line(name: str, printed: str) -> dict[str, float]:
    lines = [line for line in printed.splitlines() if line.strip()]
    what = f"the last line of evaluate.{name}"
    try:
        value = json.loads(lines[-1])
    except (IndexError, ValueError):
        got = printable(lines[-1].strip())[:LONGEST_LINE] if lines else "nothing"
        raise NotMeasured(f"{what} must be a JSON object of numbers, got {got}") from None
    return _numbers(value, what)


def _numbers(value: Any, what: str) -> dict[str, float]:
    if not isinstance(value, dict) or not value:
        raise NotMeasured(f"{what} must be a JSON object of numbers, got {shown(value)}")
    for name, number in value.items():
        if not isinstance(name, str) or not name.replace("_", "").isalnum() or not name.isascii():
            raise NotMeasured(f"{what} must name its numbers in letters, digits and _, got {shown(name)}")
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise NotMeasured(f"{what} must hold numbers alone, got {name}={shown(number)}")
    return {name: float(number) for name, number in value.items()}
