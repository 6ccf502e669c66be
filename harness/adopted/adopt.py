"""`traindyn adopt`: checkpoints of somebody's own training become a base, checked and not copied."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.arguments import AdoptArguments
from harness.checkpoints import gather
from harness.checkpoints.digests import digests
from harness.checkpoints.entries import Facts
from harness.checkpoints.errors import Unreadable
from harness.checkpoints.places import Files, Place, load
from harness.checkpoints.recognition import OPTIMIZER_FILES, Checkpoint, recognise
from harness.checkpoints.registry import Named, kept_folder, names_in, read_name, write_name, write_run
from harness.checkpoints.roles import FIXED, TIED, WEIGHT, Tensors, ordered, plain_names, roles
from harness.checkpoints.runs import AdoptedRun, Source, SourceFile, Tensor, check_same
from harness.checkpoints.writing import write_safetensors
from harness.config import OWN, ConfigError
from harness.running.jobs.environment import versions
from harness.snapshots import trainable
from harness.storage import inside
from harness.storage.files import replacing
from harness.storage.keys import harness_digest
from harness.storage.leases import lease_name, leave
from harness.storage.store import Record, Store
from harness.training.clock import Counts
from harness.validation import shown

Say = Callable[[str], None]
SEED = "{seed}"
LEAST = 3
"""different snapshots after w(0)"""
MOST_BESIDE = 1 << 26
"""bytes of a file beside the weights, such as a tokenizer's, that is linked with them"""


def adopt(name: str, given: AdoptArguments, say: Say) -> Named:
    """Register checkpoints under a name; ConfigError, one line, where they are no run."""
    store = Store(Path(given.results_dir), say)
    model = _model(given)
    found: list[tuple[AdoptedRun, list[dict[str, Any]]]] = []
    seeds: list[int | None] = [None] if given.seeds is None else [*given.seeds]
    for seed in seeds:
        found.append(_read(_sources(given, seed), seed, given, model, say))
    runs = [run for run, _ in found]
    differing = check_same(runs)
    if differing is not None:
        raise ConfigError(differing)
    named = Named(name, {run.seed: run.key for run in runs}, given.model, given.dataset)
    if name in names_in(store.root) and (before := read_name(store.root, name)).keys != named.keys:
        say(f"{name} was another run before ({', '.join(before.keys.values())}), whose cells stay")
    for run, rows in found:
        lease = store.leases.wait(lease_name(store.root, store.base_folder(run.key)), leave)
        with lease:
            kept = _kept(store, run, given.keep, say)
            write_run(store, kept, _record(name, kept), rows)
        for line in _summary(kept):
            say(line)
    write_name(store.root, named)
    return named


def _model(given: AdoptArguments) -> nn.Module | None:
    """The classifier that is named, None where none is; ConfigError where it is not known."""
    if given.model is None or given.dataset is None:
        return None
    from harness.planning.classifier import classifier
    from harness.problem.models import build_model

    base = classifier(given.model, given.dataset)
    return build_model(base.model, base.dataset, base.seed)


def _check_model(found: Checkpoint, model: nn.Module, name: str | None) -> None:
    """ConfigError where the tensors are not those of the model that is named."""
    wanted = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    has = {key: place.shape for key, place in plain(found).items()}
    for key, shape in wanted.items():
        if has.get(key) != shape:
            got = f"shape {has[key]}" if key in has else "none"
            raise ConfigError(f"model {name} must have the checkpoints' tensors: {key} of shape {shape}, got {got}")
    more = sorted(set(has) - set(wanted))
    if more:
        raise ConfigError(f"model {name} must have the checkpoints' tensors, and has none named {more[0]}")


def _sources(given: AdoptArguments, seed: int | None) -> list[str]:
    """What `from` says of one seed."""
    texts = [given.source] if isinstance(given.source, str) else list(given.source)
    holds = any(SEED in text for text in texts)
    if given.seeds is not None and len(given.seeds) > 1 and not holds:
        raise ConfigError(f"from must have {SEED} in it where there are several seeds, got {shown(given.source)}")
    if given.seeds is None and holds:
        raise ConfigError(f"seeds must be given where from has {SEED} in it, got {shown(given.source)}")
    return [text.replace(SEED, str(seed)) for text in texts]


def _read(
    texts: Sequence[str], seed: int | None, given: AdoptArguments, model: nn.Module | None, say: Say
) -> tuple[AdoptedRun, list[dict[str, Any]]]:
    """One seed's run and the rows of its history."""
    notes: list[str] = []
    read = gather.read_all(gather.candidates(texts), given.entry, notes)
    if not read:
        raise ConfigError(f"from must give at least {LEAST} different snapshots beside w(0), got no checkpoint at all")
    placed = gather.chosen(gather.place(read), given.steps)
    initial = None if given.initial is None else _initial(given)
    checkpoints = [*([] if initial is None else [initial]), *(one.checkpoint for one in placed)]
    _check_tensors(checkpoints)
    if model is not None:
        _check_model(checkpoints[0], model, given.model)
    said = None if model is None else [*trainable(model)]
    hashed = digests([(str(one.path), plain(one)) for one in checkpoints], torch.get_num_threads())
    kept = _different(checkpoints, [None] * (initial is not None) + [*placed], hashed, notes)
    for note in notes:
        say(note)
    checkpoints = [checkpoints[index] for index in kept]
    hashed = [hashed[index] for index in kept]
    ats = [-1.0 if initial is not None and index == 0 else _placed(placed, index, initial).at for index in kept]
    unit = placed[0].unit
    first = 0 if initial is not None or (unit == "step" and ats[0] == 0) else 1
    if len(kept) - (first == 0) < LEAST:
        count = len(kept) - (first == 0)
        raise ConfigError(f"from must give at least {LEAST} different snapshots beside w(0), got {count}")
    facts = [one.facts for one in checkpoints]
    own_seed = seed if seed is not None else next((one.seed for one in facts if one.seed is not None), 0)
    whole = all(at == int(at) for at in ats)
    sources = tuple(
        Source(
            t=t,
            step=0 if t == 0 else int(at) if whole else t,
            at=0.0 if t == 0 else at,
            path=os.path.abspath(one.path),
            entry=given.entry,
            kind=one.kind,
            taken=one.taken,
            files=tuple(SourceFile.of(path.absolute()) for path in one.files),
            original=os.path.abspath(one.path),
            original_entry=given.entry,
        )
        for t, (one, at) in enumerate(zip(checkpoints, ats, strict=True), first)
    )
    tensors = _tensors(checkpoints, hashed, said, given)
    run = AdoptedRun(own_seed, unit, sources, tensors)
    if not run.weights:
        raise ConfigError("from must have weights that move, got the same numbers in all snapshots")
    for line in _doubts(run, facts):
        say(line)
    metrics = {at: one.metrics for one in placed for at in [one.at]}
    return run, history(run, facts, metrics)


def _placed(placed: Sequence[gather.Placed], index: int, initial: Checkpoint | None) -> gather.Placed:
    return placed[index - (initial is not None)]


def _initial(given: AdoptArguments) -> Checkpoint:
    assert given.initial is not None
    path = Path(given.initial)
    if not path.exists():
        raise ConfigError(f"initial must name a checkpoint that is there: no such file: {shown(given.initial)}")
    return recognise(path, given.entry)


def plain(found: Checkpoint) -> dict[str, Place]:
    """The tensors of a checkpoint without the prefixes of wrappers in their names."""
    names = plain_names(list(found.tensors))
    return {names[name]: place for name, place in found.tensors.items()}


def _check_tensors(checkpoints: Sequence[Checkpoint]) -> None:
    """Unreadable where a checkpoint lacks a tensor that the first has, or has it in another shape or kind."""
    first = plain(checkpoints[0])
    for one in checkpoints[1:]:
        own = plain(one)
        for name in [*first, *own]:
            if name not in own or name not in first:
                lacks, has = (one, checkpoints[0]) if name not in own else (checkpoints[0], one)
                raise Unreadable(f"{lacks.path}: lacks the tensor {name}, which {has.path} has")
        for name, place in own.items():
            if place.shape != first[name].shape:
                raise Unreadable(
                    f"{one.path}: tensor {name} must have shape {first[name].shape} as in {checkpoints[0].path}, "
                    f"got {place.shape}"
                )
            if place.dtype.is_floating_point != first[name].dtype.is_floating_point:
                raise Unreadable(f"{one.path}: tensor {name} must be of {first[name].dtype}, got {place.dtype}")


def _different(
    checkpoints: Sequence[Checkpoint],
    placed: Sequence[gather.Placed | None],
    hashed: Sequence[dict[str, str]],
    notes: list[str],
) -> list[int]:
    """Which checkpoints stay: the same weights stand once. Unreadable where one step has two different ones."""
    seen: dict[tuple[tuple[str, str], ...], int] = {}
    at: dict[float, int] = {}
    for index, (one, own, digest) in enumerate(zip(checkpoints, placed, hashed, strict=True)):
        same = seen.setdefault(tuple(sorted(digest.items())), index)
        if same != index:
            notes.append(f"left out, the same weights as {checkpoints[same].path}: {one.path}")
            continue
        if own is not None and (other := at.setdefault(own.at, index)) != index:
            raise Unreadable(
                f"{one.path}: other weights than {checkpoints[other].path} at the same {own.unit} {own.at:g}"
            )
    return sorted(seen.values())


def _tensors(
    checkpoints: Sequence[Checkpoint],
    hashed: Sequence[dict[str, str]],
    said: list[str] | None,
    given: AdoptArguments,
) -> tuple[Tensor, ...]:
    """The tensors with their roles, weights first."""
    places = [plain(one) for one in checkpoints]
    found = {
        name: Tensors(
            place.dtype,
            place.shape,
            tuple(digest[name] for digest in hashed),
            tuple(of[name].identity for of in places),
        )
        for name, place in places[0].items()
    }
    own = checkpoints[0].parameters
    names = plain_names(list(checkpoints[0].tensors))
    known = said if said is not None else None if own is None else [names[name] for name in own]
    buffers = [*given.buffers, *(names[name] for name in checkpoints[0].buffers if known is None)]
    kinds = roles(found, known, given.weights, buffers)
    order = ordered(found, known)
    return tuple(
        Tensor(name, kinds[name].kind, kinds[name].of, str(found[name].dtype), found[name].shape, found[name].digests)
        for kind in (True, False)
        for name in order
        if (kinds[name].kind == WEIGHT) is kind
    )


def _doubts(run: AdoptedRun, facts: Sequence[Facts]) -> Iterator[str]:
    """What a person should know of the run, one line each."""
    optimized = next((one.optimized for one in facts if one.optimized is not None), None)
    beside = sum(own.role == TIED or (own.role == FIXED and "float" in own.dtype) for own in run.tensors)
    taken = len(run.weights)
    if optimized is not None and not taken <= optimized <= taken + beside:
        yield (
            f"the optimizer has {optimized} tensors, {taken} were taken for weights: weights= and buffers= "
            "(patterns of names) decide where that is wrong"
        )
    if not run.is_even:
        low, high = min(run.gaps), max(run.gaps)
        yield f"gaps between snapshots are of {low:g} to {high:g} {run.unit}s: methods that need equal ones are refused"


def history(run: AdoptedRun, facts: Sequence[Facts], metrics: dict[float, dict[str, float]]) -> list[dict[str, Any]]:
    """A row for every snapshot after w(0): its step, what was logged since the one before, and no cost, which is not
    known. Names of logged metrics begin with `logged_`, but for the training loss and the rate."""
    logged = max((one.rows for one in facts), key=len, default=[])
    singles = [row for one in facts if len(one.rows) == 1 for row in one.rows]
    logged = singles if len(singles) > len(logged) else logged
    rows, before = [], -1.0
    for source in run.sources:
        row: dict[str, Any] = {"epoch": source.t, "step": float(source.step), "train_seconds": 0.0, **_no_cost()}
        for one in (
            *(one for one in logged if before < one.get("step", -2.0) <= source.at),
            metrics.get(source.at, {}),
        ):
            row |= {
                LOGGED.get(name, f"logged_{name}"): value
                for name, value in one.items()
                if name not in ("step", "epoch")
            }
        before = source.at
        if source.t > 0:
            rows.append(row)
    return rows


LOGGED = {"loss": "train_loss", "train_loss": "train_loss", "learning_rate": "lr", "lr": "lr"}


def _no_cost() -> dict[str, int]:
    return Counts().as_dict()


def _record(name: str, run: AdoptedRun) -> Record:
    return {
        "base_key": run.key,
        "kind": "adopted",
        "model": name,
        "dataset": OWN,
        "optimizer": OWN,
        "seed": run.seed,
        "status": "done",
        "reason": None,
        "N": run.N,
        "tensors": run.counts,
        "steps": [source.step for source in run.sources],
        "unit": run.unit,
        "digests": run.snapshot_digests,
        "versions": versions(),
        "sources": {"harness": harness_digest()},
        "threads": torch.get_num_threads(),
        "seconds": {},
        "counts": _no_cost(),
    }


def _summary(run: AdoptedRun) -> Iterator[str]:
    """What was adopted, in words."""
    first, counts = run.sources[0], run.counts
    kinds = ", ".join(dict.fromkeys(source.kind for source in run.sources))
    start = "w(0) and " if run.has_initial else ""
    places = [source.at for source in run.sources if source.t > 0]
    taken = ", ".join(dict.fromkeys(source.taken for source in run.sources))
    yield (
        f"seed {run.seed}: {start}{run.epochs} snapshots, {run.unit} {places[0]:g} to {places[-1]:g}, "
        f"{run.N:,} weights in {counts[WEIGHT]} tensors ({kinds}: {taken}), base {run.key}"
    )
    beside = [f"{counts[kind]} {words}" for kind, words in WORDS.items() if counts[kind]]
    if beside:
        yield f"beside them {', '.join(beside)}"
    if first.path != first.original:
        yield f"snapshots are kept in {Path(first.path).parent}"


WORDS = {"buffer": "buffers", FIXED: "tensors that never move", TIED: "names of tensors that stand once"}


def _kept(store: Store, run: AdoptedRun, keep: str, say: Say) -> AdoptedRun:
    """The run with its snapshots where they stay: copied or linked as asked for, those that no file has densely always
    copied."""
    folder = kept_folder(store, run.key)
    sources = []
    for source in run.sources:
        if not _dense(run, source) or keep == "copy":
            if keep != "copy":
                say(f"copied, as its tensors do not lie densely in their files: {source.original}")
            sources.append(_copied(run, source, folder))
        else:
            sources.append(_linked(source, folder) if keep == "hardlink" else source)
    return replace(run, sources=tuple(sources))


def _dense(run: AdoptedRun, source: Source) -> bool:
    found = source.open()
    raw = run.by_name(found)
    return all(found.tensors[raw[own.name]].is_dense for own in run.weights)


def _copied(run: AdoptedRun, source: Source, folder: Path) -> Source:
    """One safetensors file in the snapshot's own types, every tensor once under the name it has."""
    path = folder / f"{source.t:05d}.safetensors"
    found = source.open()
    wanted = [(name, place.dtype, place.shape) for name, place in found.tensors.items()]
    with Files() as files, replacing(path) as temporary:
        write_safetensors(temporary, wanted, lambda name: load(files, found.tensors[name]), {"format": "pt"})
    return replace(source, path=str(path), entry="auto", files=(SourceFile.kept(path),))


def _linked(source: Source, folder: Path) -> Source:
    """Hard links to the files of a snapshot, which stay when their other names go."""
    whole = Path(source.path)
    beside = whole if whole.is_dir() else whole.parent
    files = [Path(file.path) for file in source.files]
    if whole.is_dir():
        small = [path for path in whole.iterdir() if path.is_file() and path.stat().st_size <= MOST_BESIDE]
        files += [path for path in small if path not in files and path.name not in OPTIMIZER_FILES]
    target = folder / f"{source.t:05d}"
    half = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    inside.check_writable(half)
    half.mkdir(parents=True)
    try:
        for path in files:
            place = half / path.relative_to(beside)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(os.path.realpath(path), place)
            except OSError as error:
                raise ConfigError(
                    f"keep must be link or copy where files cannot be linked, got hardlink ({error.strerror}: {path})"
                ) from error
        inside.remove_folder(target, ignore_errors=True)
        inside.rename(half, target)
    finally:
        shutil.rmtree(half, ignore_errors=True)
    path = target if whole.is_dir() else target / whole.name
    now = tuple(SourceFile.kept(target / Path(file.path).relative_to(beside)) for file in source.files)
    return replace(source, path=str(path), files=now)
