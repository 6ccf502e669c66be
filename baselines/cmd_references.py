"""Post-hoc CMD with other references than a member of each mode, and with all references at once for every weight.

CMD (Brokman et al., ICLR 2024) models a weight on one reference, the most central weight of the mode that it is in. Two
questions follow. Is a single noisy weight a good reference? The mean of a mode's standardised members, each turned the
way of the central one, or their first principal component, has less noise. And does it help that a weight is modelled
on its own reference alone? Regressed on all M at once every weight has one kernel, c = 1/T + Q Q[T]', Q an orthonormal
basis of the centred references: a projection of rank M, as principal components are.

Shape suffixes: T snapshots, K sampled weights, M modes, n members of a mode.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import pandas as pd
import torch
from torch import Tensor

from baselines.cmd.modes import ModeReport
from baselines.cmd.posthoc import check_length, check_modes, decompose_run, mode_kernels
from baselines.gram import combine
from baselines.kernel import kernel_scalars, kernel_table, row_of
from baselines.parameters import check_choice, check_whole
from baselines.subspace import RESOLVED
from harness.method import Proposal, Reconstruction, Run

Reference = Literal["member", "mean", "principal"]
Regress = Literal["own", "all"]


def mode_references(x_TK: Tensor, mode_K: Tensor, chosen_M: Tensor, reference: Reference) -> Tensor:
    """The references (T, M) of modes: their central members, or of their standardised members the mean or the first
    principal component, turned the way of these; float64. A mode that never moves has its member."""
    x_TM = x_TK[:, chosen_M].clone()
    if reference == "member":
        return x_TM
    for mode in range(len(chosen_M)):
        d_Tn = x_TK[:, mode_K == mode] - x_TK[:, mode_K == mode].mean(0)
        norm_n = torch.linalg.vector_norm(d_Tn, dim=0)
        z_Tn = (d_Tn / norm_n.where(norm_n > 0, 1.0))[:, norm_n > 0]
        centre_T = x_TM[:, mode] - x_TM[:, mode].mean()
        if z_Tn.shape[1] == 0 or float(centre_T.abs().max()) == 0:
            continue
        if reference == "mean":
            x_TM[:, mode] = (z_Tn * torch.where(centre_T @ z_Tn < 0, -1.0, 1.0)).mean(1)
        else:
            first_T = torch.linalg.eigh(z_Tn @ z_Tn.T)[1][:, -1]
            x_TM[:, mode] = first_T if float(first_T @ centre_T) >= 0 else -first_T
    return x_TM


@dataclass(eq=False)
class CMDReferences(Reconstruction):
    """Post-hoc CMD of w(first..T) with references made of each mode's members, on which weights are regressed.

    `reference`: member, as CMD has it, mean or principal. `regress`: own, on the reference of the mode that correlates
    most, as CMD has it, or all. ValueError where either is not known, modes is below 1 or above samples, the run gives
    fewer than 3 snapshots, or with all modes is not below T - 1, from where on the model is the run itself.
    """

    reference: Reference = "mean"
    regress: Regress = "own"
    modes: int = 10
    samples: int = 1000
    first: int = 1

    def __post_init__(self) -> None:
        check_choice("reference", self.reference, get_args(Reference))
        check_choice("regress", self.regress, get_args(Regress))
        check_modes(self.modes, self.samples)
        check_whole("first", self.first, 0)

    def needs(self, epochs: int) -> tuple[int, int]:
        T = epochs + 1 - self.first
        check_length(T)
        if self.regress == "all" and self.modes >= T - 1:
            raise ValueError(f"modes must be below T - 1 = {T - 1} where regress is all, got {self.modes}")
        return self.first, epochs

    def memory_floats(self, N: int) -> int:
        """While it is fitted mean, slope, correlation, and the modes' labels at one byte."""
        return 3 * N + N // 4

    def fit(self, run: Run) -> None:
        self.run = run
        self.window = run.trajectory.window(*self.needs(run.epochs))
        refer = None if self.reference == "member" else partial(mode_references, reference=self.reference)
        cmd = decompose_run(run, self.window, self.modes, self.samples, refer=refer)
        self.report, self.cmd = ModeReport.of(cmd, run.layout), cmd.without_rho()
        d_TM = self.cmd.references_TM - self.cmd.references_TM.mean(0)
        norm_M = torch.linalg.vector_norm(d_TM, dim=0)
        U_TM, s_M, _ = torch.linalg.svd(d_TM / norm_M.where(norm_M > 0, 1.0), full_matrices=False)
        self.Q_TM = U_TM[:, s_M.square() > RESOLVED * s_M[0].square()]

    def _kernel(self, t: int) -> Tensor:
        """Coefficients (M, T), or (1, T) of all weights, that give the model of epoch t; ValueError unless it is in."""
        row = row_of(self.window.ts, t)
        if self.regress == "own":
            return mode_kernels(self.cmd.references_TM, row)
        kernel_T: Tensor = 1 / len(self.Q_TM) + self.Q_TM @ self.Q_TM[row]
        return kernel_T[None]

    def reconstruct(self, t: int) -> Proposal:
        kernel_MT = self._kernel(t)
        if self.regress == "own":
            return Proposal(self.cmd.reconstruct(t))
        return Proposal(combine(self.window, kernel_MT, shift=False)[0])

    def _sizes(self) -> Tensor | None:
        return self.cmd.size_M if self.regress == "own" else None

    def scalars(self) -> dict[str, float]:
        """The modes' numbers, and the age and effective number of snapshots of the last epoch's kernels."""
        ts = self.window.ts
        return {**self.report.scalars(), **kernel_scalars(self._kernel(ts[-1]), ts, self._sizes())}

    def tables(self) -> dict[str, pd.DataFrame]:
        """Modes, layers, correlations and the kernel of the last epoch."""
        ts = self.window.ts
        kernel = kernel_table(self._kernel(ts[-1]), ts, self._sizes())
        return self.report.tables(self.run.layout) | {"kernel": kernel}
