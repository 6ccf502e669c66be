"""What CMD says about its modes: scalars per epoch and a table.

Shape suffix: M modes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from baselines.cmd.fit import CMDModel
from baselines.cmd.sampling import tensor_name
from harness.method import Layout


@dataclass(frozen=True)
class ModeReport:
    """Sizes and correlations of the modes at the fit, over the weights that moved."""

    size_M: list[int]
    mean_abs_rho_M: list[float]
    reference_M: list[int]

    @classmethod
    def of(cls, model: CMDModel) -> ModeReport:
        return cls(model.size_M.tolist(), model.mean_abs_rho_M.tolist(), model.reference_M.tolist())

    def scalars(self) -> dict[str, float]:
        """Modes found, and where a weight moved its mean |rho| and the share of the largest mode in percent."""
        moved = sum(self.size_M)
        found: dict[str, float] = {"modes_found": float(sum(size > 0 for size in self.size_M))}
        if moved == 0:
            return found
        rho = sum(size * rho for size, rho in zip(self.size_M, self.mean_abs_rho_M, strict=True)) / moved
        return {"rho_mean": rho, **found, "largest_mode_share": 100 * max(self.size_M) / moved}

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
