"""Post-hoc CMD for anyone's snapshots, without the harness.

    cmd = CMD.fit(snapshots_TN, modes=10)
    cmd.rho_N, cmd.mode_N, cmd.reconstruct(t)

Brokman et al., Enhancing Neural Training via a Correlated Dynamics Model (ICLR 2024).

Shape suffixes: N weights, T snapshots, K sampled weights, M modes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from baselines.cmd.fit import BLOCK_BYTES, CMDModel, fit
from baselines.cmd.posthoc import check_modes
from baselines.cmd.sampling import sample_trajectories
from baselines.snapshots import Rows
from harness.method import Layout, Trajectory


@dataclass(frozen=True)
class CMD:
    """A fitted decomposition: w_i(t) is modelled as a_i x(t) + b_i, x the reference weight of its mode."""

    model: CMDModel
    ts: tuple[int, ...]
    """the snapshots' epochs, or their row numbers"""
    layout: Layout | None = None

    @classmethod
    def fit(
        cls,
        snapshots: Tensor | NDArray[np.generic] | Trajectory,
        modes: int = 10,
        samples: int = 1000,
        sample_K: Tensor | NDArray[np.generic] | list[int] | None = None,
        layout: Layout | None = None,
        seed: int = 0,
        max_bytes: int = BLOCK_BYTES,
    ) -> CMD:
        """CMD of all snapshots: a floating-point tensor or array (T, N), or a trajectory in memory or in files.

        `samples` weights that move are drawn by `seed`, stratified by tensor where a `layout` is given, and clustered
        into at most `modes` modes; `sample_K` gives their indices instead. `max_bytes` bounds what is held beside the
        snapshots, the result and the clustering. ValueError where T is below 3, N below 1, modes below 1 or above
        the samples, an index out of range, the layout another model's, or a value not finite.
        """
        trajectory = Rows(snapshots) if isinstance(snapshots, Tensor | np.ndarray) else snapshots
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
            return cls(fit(trajectory, modes, given_K, max_bytes, layout), trajectory.ts, layout)
        check_modes(modes, samples)
        rng = torch.Generator().manual_seed(seed)
        drawn_K, x_TK = sample_trajectories(trajectory, N, layout, samples, rng, max_bytes)
        return cls(fit(trajectory, modes, drawn_K, max_bytes, layout, x_TK), trajectory.ts, layout)

    @property
    def a_N(self) -> Tensor:
        """Slopes; 0 for a weight that never moved."""
        return self.model.a_N

    @property
    def b_N(self) -> Tensor:
        """Intercepts of a x + b; `reconstruct` evaluates the more exact centred form."""
        return self.model.b_N

    @property
    def mode_N(self) -> Tensor:
        """Mode of each weight, in the smallest integer type that holds M; 0 for a weight that never moved."""
        return self.model.mode_N

    @property
    def rho_N(self) -> Tensor:
        """Signed correlation of each weight with its mode's reference; 0 for a weight that never moved."""
        return self.model.rho_N

    @property
    def reference_M(self) -> Tensor:
        """Index of each mode's reference weight, int64."""
        return self.model.reference_M

    @property
    def references_TM(self) -> Tensor:
        """Trajectories of the references, float64."""
        return self.model.references_TM

    def reconstruct(self, t: int) -> Tensor:
        """The modelled weights (N,) of the snapshot t; ValueError unless t is one of `ts`."""
        if t not in self.ts:
            raise ValueError(f"t must be one of the {len(self.ts)} snapshots {self.ts[0]}..{self.ts[-1]}, got {t}")
        return self.model.reconstruct(self.ts.index(t))

    def save(self, path: Path | str) -> None:
        """Store as a safetensors file."""
        tensors = {f.name: getattr(self.model, f.name).contiguous().cpu() for f in fields(CMDModel)}
        metadata = {"format": "cmd", "ts": json.dumps(self.ts)}
        if self.layout is not None:
            metadata["layout"] = json.dumps([self.layout.names, self.layout.shapes])
        save_file(tensors, path, metadata)

    @classmethod
    def load(cls, path: Path | str) -> CMD:
        """What `save` stored, on the CPU; ValueError where the file is another."""
        try:
            with safe_open(path, "pt") as file:
                metadata: dict[str, Any] = file.metadata() or {}
                if metadata.get("format") != "cmd":
                    raise ValueError(f"path must name a file from CMD.save, got {path}")
                model = CMDModel(**{f.name: file.get_tensor(f.name) for f in fields(CMDModel)})
        except SafetensorError as error:
            raise ValueError(f"path must name a file from CMD.save, got {path}: {error}") from error
        layout = None
        if "layout" in metadata:
            names, shapes = json.loads(metadata["layout"])
            layout = Layout(tuple(names), tuple(tuple(shape) for shape in shapes))
        return cls(model, tuple(json.loads(metadata["ts"])), layout)


def _check_size(layout: Layout, N: int) -> None:
    """ValueError naming the first tensor of a layout that is not the snapshots'."""
    if layout.N == N:
        return
    for name, offset, size in zip(layout.names, layout.offsets, layout.sizes, strict=True):
        if offset + size > N:
            raise ValueError(f"layout must have N = {N} weights, got {layout.N}: {name} ends at {offset + size}")
    raise ValueError(f"layout must have N = {N} weights, got {layout.N}: nothing follows {layout.names[-1]}")


def _checked_sample(sample_K: Tensor | NDArray[np.generic] | list[int], N: int) -> Tensor:
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
