"""What CMD says about its modes: numbers per epoch, and tables of modes, of layers and of correlations.

Shape suffixes: M modes, L tensors, H bins of |rho|.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from baselines.cmd.posthoc import CMD
from baselines.finite import tensor_name
from harness.method import Layout
from harness.snapshots import block_bounds

BINS = 40
"""bins of |rho| between 0 and 1"""
BLOCK_BYTES = 1 << 22
"""float32 bytes of the blocks in which weights are counted"""


@dataclass(frozen=True)
class ModeReport:
    """Sizes and correlations of the modes at the fit, over the weights that moved: those whose rho is not exactly 0."""

    size_M: list[int]
    mean_abs_rho_M: list[float]
    reference_M: list[int]
    size_LM: list[list[int]]
    """weights by tensor and mode"""
    size_MH: list[list[int]] = field(default_factory=list)
    """weights by mode and bin of |rho|"""

    @classmethod
    def of(cls, cmd: CMD, layout: Layout) -> ModeReport:
        """The report of a fit to weights of this layout; buffers modelled behind them are in no tensor."""
        size_LMH = count_moved(cmd, layout)
        by_tensor, by_rho = size_LMH.sum(2).tolist(), size_LMH.sum(0).tolist()
        return cls(cmd.size_M.tolist(), cmd.mean_abs_rho_M.tolist(), cmd.reference_M.tolist(), by_tensor, by_rho)

    def scalars(self) -> dict[str, float]:
        """Modes found, and where a weight moved its mean |rho| and the share of the largest mode in percent."""
        moved = sum(self.size_M)
        found: dict[str, float] = {"modes_found": float(sum(size > 0 for size in self.size_M))}
        if moved == 0:
            return found
        rho = sum(size * rho for size, rho in zip(self.size_M, self.mean_abs_rho_M, strict=True)) / moved
        return {"rho_mean": rho, **found, "largest_mode_share": 100 * max(self.size_M) / moved}

    def tables(self, layout: Layout) -> dict[str, pd.DataFrame]:
        """The tables `modes`, `layers` and `rho`."""
        return {"modes": self.modes(layout), "layers": self.layers(layout), "rho": self.rho()}

    def modes(self, layout: Layout) -> pd.DataFrame:
        """One row per mode: size and share (percent) of the weights that moved, mean |rho|, reference weight."""
        moved = max(1, sum(self.size_M))
        return pd.DataFrame(
            {
                "mode": range(len(self.size_M)),
                "size": self.size_M,
                "share": [100 * size / moved for size in self.size_M],
                "mean_abs_rho": self.mean_abs_rho_M,
                "reference": self.reference_M,
                "tensor": [tensor_name(layout, reference) for reference in self.reference_M],
            }
        )

    def layers(self, layout: Layout) -> pd.DataFrame:
        """One row per tensor and mode: weights that moved, and their share (percent) of the tensor's that did."""
        rows = [
            {"tensor": name, "mode": mode, "weights": size, "share": 100 * size / max(1, sum(size_M))}
            for name, size_M in zip(layout.names, self.size_LM, strict=True)
            for mode, size in enumerate(size_M)
        ]
        return pd.DataFrame(rows)

    def rho(self) -> pd.DataFrame:
        """One row per mode and bin low..high of |rho|: weights that moved, and the mode's mean |rho|."""
        M = len(self.size_MH)
        return pd.DataFrame(
            {
                "mode": np.repeat([str(mode) for mode in range(M)], BINS),
                "mean_abs_rho": np.repeat(self.mean_abs_rho_M[:M], BINS),
                "low": np.tile(np.arange(BINS) / BINS, M),
                "high": np.tile(np.arange(1, BINS + 1) / BINS, M),
                "weights": np.ravel(self.size_MH),
            }
        )

    def state_dict(self) -> dict[str, Any]:
        """A copy of everything, for `ModeReport(**state)`."""
        return asdict(self)


def count_moved(cmd: CMD, layout: Layout) -> Tensor:
    """Weights that moved, by tensor, mode and bin of |rho|: (L, M, H) int64."""
    M = len(cmd.reference_M)
    size_LMH = torch.zeros(len(layout.names), M * BINS, dtype=torch.int64)
    for tensor, (offset, size) in enumerate(zip(layout.offsets, layout.sizes, strict=True)):
        for start, stop in block_bounds(size, 1, BLOCK_BYTES):
            here = slice(offset + start, offset + stop)
            rho_B = cmd.rho_N[here].abs()
            bin_B = (rho_B * BINS).long().clamp_(max=BINS - 1)
            cell_B = (cmd.mode_N[here].long() * BINS + bin_B)[rho_B > 0]
            size_LMH[tensor] += torch.bincount(cell_B, minlength=M * BINS).cpu()
    return size_LMH.view(-1, M, BINS)
