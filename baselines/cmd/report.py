"""What CMD says about its modes: scalars per epoch, a table of modes and one of layers.

Shape suffixes: M modes, L tensors.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import torch

from baselines.cmd.fit import CMDModel
from baselines.cmd.sampling import tensor_name
from harness.method import Layout


@dataclass(frozen=True)
class ModeReport:
    """Sizes and correlations of the modes at the fit, over the weights that moved."""

    size_M: list[int]
    mean_abs_rho_M: list[float]
    reference_M: list[int]
    size_LM: list[list[int]]
    """by tensor and mode; empty where no layout is known"""

    @classmethod
    def of(cls, model: CMDModel, layout: Layout | None = None) -> ModeReport:
        size_LM = [] if layout is None else _sizes_by_tensor(model, layout)
        return cls(model.size_M.tolist(), model.mean_abs_rho_M.tolist(), model.reference_M.tolist(), size_LM)

    def scalars(self) -> dict[str, float]:
        """Modes found, and where a weight moved its mean |rho| and the share of the largest mode in percent."""
        moved = sum(self.size_M)
        found: dict[str, float] = {"modes_found": float(sum(size > 0 for size in self.size_M))}
        if moved == 0:
            return found
        rho = sum(size * rho for size, rho in zip(self.size_M, self.mean_abs_rho_M, strict=True)) / moved
        return {"rho_mean": rho, **found, "largest_mode_share": 100 * max(self.size_M) / moved}

    def tables(self, layout: Layout) -> dict[str, pd.DataFrame]:
        """`modes` and `layers`."""
        return {"modes": self.table(layout), "layers": self.layers(layout)}

    def layers(self, layout: Layout) -> pd.DataFrame:
        """One row per tensor and mode: size, and share (percent) of the tensor's weights that moved."""
        rows = [
            {"tensor": name, "mode": mode, "size": size, "share": 100 * size / max(1, sum(size_M))}
            for name, size_M in zip(layout.names, self.size_LM, strict=True)
            for mode, size in enumerate(size_M)
        ]
        return pd.DataFrame(rows)

    def table(self, layout: Layout) -> pd.DataFrame:
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

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)


def _sizes_by_tensor(model: CMDModel, layout: Layout) -> list[list[int]]:
    """How many weights that moved each tensor has in each mode: (L, M)."""
    M = len(model.reference_M)
    size_LM = []
    for offset, size in zip(layout.offsets, layout.sizes, strict=True):
        here = slice(offset, offset + size)
        mode_B = model.mode_N[here][model.rho_N[here] != 0]
        size_LM.append(torch.bincount(mode_B.long(), minlength=M).tolist())
    return size_LM
