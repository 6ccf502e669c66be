"""The clauses of the contract that the conformance suite holds a method to, and the checks several kinds share."""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import pickle
import random
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd
import torch

from harness.kernel import KERNEL, checked
from harness.method import Layout, Method, Proposal, Snapshot
from harness.running.audience import RESERVED_COLUMNS
from harness.storage.tensors import digest_tensor, pack
from harness.validation import reason

ROUNDING = 1e-5
"""of weights that a kernel gives, beside the sum of |coefficient x weight|: float32 with room for a slope"""


class Clause(StrEnum):
    """Sentences of `harness/method.py`, to the letter but for line breaks."""

    PARAMETERS = "Its parameters are the keyword arguments of its class"
    IMPORTS = "imports nothing else from the harness but `harness.snapshots`"
    SEEDS = "opens no file, seeds nothing"
    FITS = "Raises ValueError, naming the parameter, where the method does not fit that many epochs"
    NEEDS = "First and last t of the stored snapshots that this method reads"
    DECLARED = "`trajectory` holds the snapshots that the method declared in `needs`"
    READ = "its last weights follow from what was seen by then"
    READ_ONLY = "Recorded snapshots in order of t, read-only, never beyond the present"
    WATCHES = "An **Observer** watches a base, causally"
    COPY = "valid during the call only, and is not written into: copy what you keep or change"
    PURE = "it changes nothing, however often it is called"
    REPLAYED = "the base's seed and the purpose alone: the same live, replayed, on any device"
    STATE = "holds only what `begin` cannot recompute"
    PLAIN_STATE = "State dicts are nested dicts, lists and tuples of tensors, numbers, strings and None"
    ANY_EPOCH = "`fit(run)` once, then `reconstruct(t)` for any epoch"
    BRANCH = "it starts at `start`, has read the base up to `prefix` >= start, and trains `epochs` of its own"
    RESTART = "trains on its own from a restart state of the base"
    COUNTED = "Every pass over data is counted and timed by the harness"
    RESUMED = "On resume `begin` runs again at the start state"
    WEIGHTS = "float32 trainable parameters, in `Layout` order"
    OWN_WEIGHTS = "with their own buffers where a method models those too; never written into"
    BUFFERS = "whether its proposals carry buffers"
    SCALARS = "Numbers of this epoch for history and tracking"
    TABLES = "Tables at the end of the run"
    KERNEL = "its coefficients times the snapshots are the weights that it proposes last"
    PROBED = "Every call is one forward pass of the probe's images, counted and timed as the method's"
    EXCHANGED = "says what passes between server and clients"
    APART = "a client knows nothing but its payloads and what it kept of them in `client.state`"
    UNTOUCHED = "A payload is never written into"
    BEGUN = "makes of it the weights to begin at"
    MERGED = "makes the new weights of all answers, one after the other in ascending order of k"
    MEMORY = "float32 values held beside the model"


def breach(clause: Clause, found: str) -> str:
    """What a failing check says."""
    return f'harness/method.py says "{clause}": {found}'


def bits(value: Any) -> str:
    """A digest of nested tensors, numbers and strings to the last bit: -0.0 is not 0.0, NaN is itself."""
    tensors, text = pack({"value": value})
    digest = hashlib.sha256(text.encode())
    for name, tensor in tensors.items():
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|{digest_tensor(tensor)}".encode())
    return digest.hexdigest()


def proposal_bits(proposal: Proposal | None) -> str:
    """A digest of a proposal; None, the base's own weights, has one too."""
    if proposal is None:
        return bits(None)
    return bits([proposal.theta_N, None if proposal.buffers is None else sorted(proposal.buffers.items())])


def now_bits(method: Method, proposal: Proposal | None) -> str:
    """A digest of what a method stands for in this epoch: proposal and scalars."""
    return proposal_bits(proposal) + bits(method.scalars())


def table_bits(method: Method) -> str:
    """A digest of a method's tables at the end."""
    return bits({name: table.to_csv() for name, table in method.tables().items()})


def snapshot_bits(snapshot: Snapshot) -> str:
    """A digest of a snapshot's weights and buffers."""
    return bits([snapshot.theta_N, sorted(snapshot.buffers.items())])


def check_proposal(proposal: Proposal, method: Method, layout: Layout, base: Snapshot) -> None:
    """Finite float32 weights (N,), and the model's buffers exactly where the method declares them.

    `base` is the snapshot that the proposal stands beside.
    """
    theta_N, when = proposal.theta_N, f"after epoch {base.t}"
    assert theta_N.dtype == torch.float32, breach(Clause.WEIGHTS, f"{when} theta_N is {theta_N.dtype}")
    assert tuple(theta_N.shape) == (layout.N,), breach(
        Clause.WEIGHTS, f"{when} theta_N has shape {tuple(theta_N.shape)}, not ({layout.N},)"
    )
    assert bool(theta_N.isfinite().all()), breach(Clause.WEIGHTS, f"{when} theta_N is not finite")
    carries = proposal.buffers is not None
    assert carries == method.proposes_buffers, breach(
        Clause.BUFFERS, f"proposes_buffers is {method.proposes_buffers}, and {when} buffers are given: {carries}"
    )
    for name, buffer in (proposal.buffers or {}).items():
        known = base.buffers.get(name)
        assert known is not None, breach(Clause.BUFFERS, f"the model has none named {name}")
        assert known.shape == buffer.shape, breach(Clause.BUFFERS, f"{name} has shape {tuple(buffer.shape)}")


def check_scalars(method: Method) -> None:
    """Finite floats, none of them named like a column of every history."""
    for name, value in method.scalars().items():
        assert isinstance(value, float), breach(Clause.SCALARS, f"{name} is a {type(value).__name__}, not a float")
        assert math.isfinite(value), breach(Clause.SCALARS, f"{name} is {value}")
        assert name not in RESERVED_COLUMNS, breach(Clause.SCALARS, f"{name} is a column of every history")


def check_tables(method: Method) -> None:
    """Data frames that Parquet takes."""
    for name, table in method.tables().items():
        assert isinstance(table, pd.DataFrame), breach(Clause.TABLES, f"{name} is a {type(table).__name__}")
        try:
            stored = pd.read_parquet(io.BytesIO(table.to_parquet(None, index=False)))
        except Exception as error:
            raise AssertionError(
                breach(Clause.TABLES, f"{name} cannot be stored as Parquet: {reason(error)}")
            ) from error
        assert stored.shape == table.shape, breach(Clause.TABLES, f"{name} comes back as {stored.shape}")


def overwrite(proposal: Proposal | None) -> None:
    """Spoil what a method gave away."""
    if proposal is not None:
        proposal.theta_N.fill_(math.nan)
        for buffer in (proposal.buffers or {}).values():
            buffer.zero_()


def check_kernel(
    method: Method, states: Mapping[int, torch.Tensor], steps_per_epoch: int, last_N: torch.Tensor
) -> None:
    """That a method's table `kernel`, if it gives one, is what it says: its coefficients times the snapshots are the
    weights `last_N`, to rounding, each weight's by the kernel of some mode. `states` are weights by optimizer step."""
    tables = method.tables()
    if KERNEL not in tables:
        return
    try:
        table = checked(tables[KERNEL])
    except ValueError as error:
        raise AssertionError(breach(Clause.KERNEL, reason(error))) from error
    step = (table["epoch"] * steps_per_epoch).round().astype(int)
    unseen = sorted(set(step) - set(states))
    assert not unseen, breach(Clause.KERNEL, f"the table {KERNEL} names step {unseen[:1]}, which it was not shown")
    fits_N = torch.zeros(len(last_N), dtype=torch.bool)
    for _, lines in table.assign(step=step).groupby("mode", sort=False):
        c_T = torch.tensor(lines["coefficient"].to_numpy())
        W_TN = torch.stack([states[one] for one in lines["step"]]).double()
        fits_N |= (c_T @ W_TN - last_N).abs() <= ROUNDING * (c_T.abs() @ W_TN.abs())
    off = int((~fits_N).sum())
    assert off == 0, breach(Clause.KERNEL, f"{off} of {len(last_N)} weights are no mode's kernel times the snapshots")


def _global_randomness() -> bytes:
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    there = [state.numpy() for state in torch.cuda.get_rng_state_all()] if used else []
    return pickle.dumps((torch.get_rng_state().numpy(), there, np.random.get_state(), random.getstate()))


@contextlib.contextmanager
def seeding_nothing(call: str) -> Iterator[None]:
    """The block neither seeds nor draws from the global generators of torch, NumPy and Python."""
    before = _global_randomness()
    yield
    assert _global_randomness() == before, breach(
        Clause.SEEDS, f"`{call}` moved a global random generator; `rng(purpose)` gives one of the method's own"
    )
