"""Post-hoc CMD: every weight of a recorded run as an affine function of its mode's reference weight.

    cmd = CMD.fit(snapshots_TN, modes=10)
    cmd.rho_N, cmd.mode_N, cmd.reconstruct(t)

Brokman et al., Enhancing Neural Training via a Correlated Dynamics Model (ICLR 2024); `reference` says the same in a
few plain lines. Least squares within a mode is w^_i(t) = mean(w_i) + a_i (x(t) - mean(x)) with
a_i = Cov(w_i, x) / Var(x), which is kept in this centred form: a_i x + b_i loses 3e-5 in float32 where |a_i| is 400.

Shape suffixes: N weights, T snapshots, K sampled weights, M modes, F floating-point values of the buffers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from baselines.cmd.buffers import buffers_over_time, extended
from baselines.cmd.clustering import find_modes
from baselines.cmd.regression import NotFinite, Regression, decode, spread
from baselines.cmd.sampling import gather, sample_trajectories
from baselines.cmd.seed import check_seed
from baselines.finite import first_not_finite
from baselines.parameters import check_whole
from harness.method import Layout, Run, Trajectory
from harness.snapshots import Snapshots, as_trajectory

MOST_SAMPLES = 50_000
"""of the weights that are clustered: the distances between so many take 20 GB"""
BLOCK_BYTES = 256 << 20
"""bound on what a fit holds beside its results and the clustering"""

FindModes: TypeAlias = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""from trajectories (T, K) and a number of modes the mode of each (K,) and the columns that are references (M,)"""
Refer: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""from trajectories (T, K), the mode of each (K,) and the columns that stand for modes (M,) the references (T, M)"""


@dataclass(frozen=True, eq=False)
class Sample:
    """The weights that were clustered."""

    index_K: Tensor
    """int64 indices, on the CPU like the modes"""
    x_TK: Tensor
    """float64 trajectories, on the device of the snapshots"""
    mode_K: Tensor
    """int64 modes that the clustering gave them, which the regression of all weights may change"""


@dataclass(frozen=True, eq=False)
class CMD:
    """A fitted decomposition: w_i(t) is modelled as a_i x(t) + b_i, where x is the reference weight of its mode.

    Vectors over N lie on the device of the snapshots, the rest on the CPU.
    """

    wbar_N: Tensor
    """float32 time averages"""
    a_N: Tensor
    """float32 slopes; 0 for a weight that never moved"""
    mode_N: Tensor
    """mode of each weight, in the smallest integer type that holds M; 0 for a weight that never moved"""
    rho_N: Tensor
    """float32 signed correlation with the mode's reference; 0 for a weight that never moved"""
    reference_M: Tensor
    """int64 index of each mode's reference weight, largest mode of the sample first"""
    references_TM: Tensor
    """float64 trajectories of the references"""
    mu_M: Tensor
    """float64 time averages of the references"""
    size_M: Tensor
    """int64 number of weights that moved, per mode"""
    mean_abs_rho_M: Tensor
    """float64 mean |rho| over those"""
    ts: tuple[int, ...]
    """the snapshots' epochs, or their row numbers"""
    layout: Layout | None = None
    sample: Sample | None = field(default=None, repr=False)
    """what was clustered; not stored"""

    @classmethod
    def fit(
        cls,
        snapshots: Snapshots,
        modes: int = 10,
        samples: int = 1000,
        sample_K: Tensor | NDArray[np.generic] | list[int] | None = None,
        layout: Layout | None = None,
        seed: int = 0,
        max_bytes: int = BLOCK_BYTES,
    ) -> CMD:
        """CMD of all snapshots: a floating-point tensor or array (T, N), a list of (N,), or a trajectory in memory or
        in files.

        `samples` weights that move are drawn by `seed`, stratified by tensor where a `layout` is given, and clustered
        into at most `modes` modes; `sample_K` gives their indices instead. `max_bytes` bounds what is held beside the
        snapshots, the result and the clustering. ValueError where T is below 3, N below 1, modes below 1 or above
        the samples, an index out of range, the layout another model's, or a value not finite.
        """
        trajectory = as_trajectory(snapshots)
        if len(trajectory) < 3:
            raise ValueError(f"snapshots must be at least 3, got {len(trajectory)}")
        N = trajectory[0].theta_N.numel()
        if N < 1:
            raise ValueError(f"snapshots must have at least 1 weight, got {N}")
        if layout is not None:
            _check_size(layout, N)
        if sample_K is not None:
            given_K = _checked_sample(sample_K, N)
            check_modes(modes, len(given_K))
            return decompose(trajectory, modes, given_K, None, layout, max_bytes)
        check_modes(modes, samples)
        check_seed(seed)
        rng = torch.Generator().manual_seed(seed)
        drawn_K, x_TK = sample_trajectories(trajectory, N, layout, samples, rng, max_bytes)
        return decompose(trajectory, modes, drawn_K, x_TK, layout, max_bytes)

    @property
    def b_N(self) -> Tensor:
        """Intercepts of a_i x + b_i, for comparison with the paper; `reconstruct` evaluates the centred form."""
        return self.wbar_N - self.a_N * spread(self.mu_M, self.mode_N)

    def decode(self, x_M: Tensor) -> Tensor:
        """The modelled weights (N,) where the references have the values x_M."""
        return decode(self.wbar_N, self.a_N, self.mode_N, x_M - self.mu_M)

    def reconstruct(self, t: int) -> Tensor:
        """The modelled weights (N,) of the snapshot t; ValueError unless t is one of `ts`."""
        if t not in self.ts:
            raise ValueError(f"t must be one of the {len(self.ts)} snapshots {self.ts[0]}..{self.ts[-1]}, got {t}")
        return self.decode(self.references_TM[self.ts.index(t)])

    def without_rho(self) -> CMD:
        """The same model without `rho_N`, a third of its memory, which no weight is modelled by."""
        return replace(self, rho_N=self.rho_N.new_empty(0))

    def tensors(self) -> dict[str, Tensor]:
        """All that was fitted, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def save(self, path: Path | str) -> None:
        """Store as a safetensors file, by the package of that name."""
        from safetensors.torch import save_file

        metadata = {"format": "cmd", "ts": json.dumps(self.ts)}
        if self.layout is not None:
            metadata["layout"] = json.dumps([self.layout.names, self.layout.shapes])
        save_file({name: tensor.contiguous().cpu() for name, tensor in self.tensors().items()}, path, metadata)

    @classmethod
    def load(cls, path: Path | str) -> CMD:
        """What `save` stored, on the CPU; ValueError where the file is another."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                metadata: dict[str, str] = file.metadata() or {}
                if metadata.get("format") != "cmd":
                    raise ValueError(f"path must name a file from CMD.save, got {path}")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"path must name a file from CMD.save, got {path}: {error}") from error
        layout = None
        if "layout" in metadata:
            names, shapes = json.loads(metadata["layout"])
            layout = Layout(tuple(names), tuple(tuple(shape) for shape in shapes))
        return cls(**tensors, ts=tuple(json.loads(metadata["ts"])), layout=layout)


def decompose(
    trajectory: Trajectory,
    modes: int,
    sample_K: Tensor,
    x_TK: Tensor | None = None,
    layout: Layout | None = None,
    max_bytes: int = BLOCK_BYTES,
    buffers_TF: Tensor | None = None,
    find: FindModes = find_modes,
    refer: Refer | None = None,
) -> CMD:
    """Post-hoc CMD over all snapshots given; `max_bytes` bounds what is held beside the result and the clustering.

    `sample_K` is clustered as it is; if it is empty (nothing moved), weight 0 stands as the only reference. `x_TK` are
    its trajectories where they are known, among which `find` chooses modes and references; `refer` makes others of the
    modes' members, which are no weight's. `buffers_TF` are modelled
    behind the weights, as the `layout` then says too.
    Fewer than `modes` modes can come out. Constant weights are their value. ValueError below 3 snapshots, where every
    correlation is 1, and where a value is not finite, naming the first snapshot and, with a layout, the tensor.
    """
    check_length(len(trajectory))

    def blocks(block_bytes: int) -> Iterator[tuple[int, int, Tensor]]:
        stop = 0
        for start, stop, W_TB in trajectory.blocks(block_bytes):
            yield start, stop, W_TB
        if buffers_TF is not None and buffers_TF.shape[1] > 0:
            yield stop, stop + buffers_TF.shape[1], buffers_TF

    if sample_K.numel() == 0:
        sample_K, x_TK = torch.zeros(1, dtype=torch.int64), None
    if x_TK is None:
        x_TK = gather(trajectory, sample_K, max_bytes)
    try:
        if not bool(torch.isfinite(x_TK).all()):
            raise NotFinite
        mode_K, chosen_M = find(x_TK, modes)
        reference_M, x_TM = sample_K[chosen_M], x_TK[:, chosen_M.to(x_TK.device)].cpu()
        if refer is not None:
            x_TM = refer(x_TK.cpu(), mode_K, chosen_M)
        N = trajectory[0].theta_N.numel() if layout is None else layout.N
        fitted = Regression(N, x_TM, x_TK.device)
        fitted.run(blocks(fitted.read_bytes(max_bytes)))
    except NotFinite:
        raise ValueError(first_not_finite(blocks(max_bytes // 4), trajectory.ts, layout)) from None
    if refer is None:
        fitted.settle(reference_M)
    size_M, mean_abs_rho_M = fitted.statistics()
    vectors = fitted.wbar_N, fitted.a_N, fitted.mode_N, fitted.rho_N
    found = reference_M, x_TM, fitted.mu_M, size_M, mean_abs_rho_M
    return CMD(*vectors, *found, trajectory.ts, layout, Sample(sample_K, x_TK, mode_K))


def decompose_run(
    run: Run,
    trajectory: Trajectory,
    modes: int,
    samples: int,
    model_buffers: bool = False,
    find: FindModes = find_modes,
    refer: Refer | None = None,
) -> CMD:
    """CMD of a window of a run's trajectory, on a sample of its weights drawn from the run's own randomness.

    With `model_buffers` the buffers are modelled behind the weights, see `buffers`. `find` chooses modes and references
    out of the sample, `refer` makes others of these.
    """
    check_length(len(trajectory))
    layout, rng = run.layout, run.rng("cmd/sample")
    sample_K, x_TK = sample_trajectories(trajectory, layout.N, layout, samples, rng, BLOCK_BYTES)
    if not model_buffers:
        return decompose(trajectory, modes, sample_K, x_TK, layout, find=find, refer=refer)
    layout_E, buffers_TF = extended(layout, trajectory[0].buffers), buffers_over_time(trajectory)
    return decompose(trajectory, modes, sample_K, x_TK, layout_E, buffers_TF=buffers_TF, find=find, refer=refer)


def mode_kernels(references_TM: Tensor, row: int) -> Tensor:
    """Coefficients (M, T) of the snapshots that give the model of snapshot `row` for a weight of each mode: float64.

    c(s) = 1/T + d(s) d(row) / sum d^2, d the centred reference; 1/T where the reference never moves.
    """
    d_TM = references_TM - references_TM.mean(0)
    squares_M = d_TM.square().sum(0)
    slope_M = torch.where(squares_M > 0, d_TM[row] / squares_M.where(squares_M > 0, 1.0), 0.0)
    return (1 / len(d_TM) + d_TM * slope_M).T


def check_length(T: int) -> None:
    """ValueError below 3 snapshots, among which every correlation is 1."""
    if T < 3:
        raise ValueError(f"epochs must give CMD at least 3 snapshots, got {T}")


def check_modes(modes: int, samples: int) -> None:
    """ValueError unless 1 <= modes <= samples."""
    check_whole("modes", modes, 1)
    check_whole("samples", samples, 1, most=MOST_SAMPLES)
    if modes > samples:
        raise ValueError(f"modes must be at most samples = {samples}, got {modes}")


def _check_size(layout: Layout, N: int) -> None:
    """ValueError naming the first tensor of a layout that is not the snapshots'."""
    if layout.N == N:
        return
    for name, offset, size in zip(layout.names, layout.offsets, layout.sizes, strict=True):
        if offset + size > N:
            raise ValueError(f"layout must have N = {N} weights, got {layout.N}: {name} ends at {offset + size}")
    raise ValueError(f"layout must have N = {N} weights, got {layout.N}: nothing follows {layout.names[-1]}")


def _checked_sample(sample_K: Tensor | NDArray[np.generic] | list[int], N: int) -> Tensor:
    """Distinct indices of weights as an int64 tensor on the CPU; ValueError."""
    index_K = torch.as_tensor(sample_K)
    if index_K.ndim != 1 or index_K.numel() == 0 or index_K.is_floating_point():
        raise ValueError(f"sample_K must be a list of at least 1 index, got {index_K.dtype} {tuple(index_K.shape)}")
    index_K = index_K.cpu().long()
    low, high = int(index_K.min()), int(index_K.max())
    if low < 0 or high >= N:
        raise ValueError(f"sample_K must lie in 0..{N - 1}, got {low if low < 0 else high}")
    different = len(set(index_K.tolist()))
    if different < len(index_K):
        raise ValueError(f"sample_K must name {len(index_K)} different weights, got {different}")
    return index_K
