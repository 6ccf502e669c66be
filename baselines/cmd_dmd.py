"""Dynamic mode decomposition of CMD's reference weights: a forecast of all weights from a few trajectories.

CMD (Brokman et al., ICLR 2024) fitted to the warm-up makes every weight an affine function of its mode's reference.
Here the references are forecast, by the dynamics of their own warm-up, and decoded: w_i = wbar_i + a_i (x - mean(x)).
Neither is published. Beside online CMD, which sees every later snapshot, it shows what the references' future is worth;
beside `dmd`, what is lost where the dynamics are those of a few weights.

Shape suffixes: T snapshots of the warm-up, M modes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import pandas as pd
import torch
from torch import Tensor

from baselines.cmd.modes import ModeReport
from baselines.cmd.posthoc import check_modes, decompose_run
from baselines.cmd.regression import decode
from baselines.dmd.decomposition import finite_gram
from baselines.dmd.dynamics import Dynamics
from baselines.dmd.rank import Offset, check_rank, check_rank_fits
from baselines.parameters import check_bool
from baselines.warmup import check_warmup, warmup_snapshots
from harness.method import Observer, Proposal, Run, Snapshot, State
from harness.snapshots import MemoryTrajectory


@dataclass(frozen=True)
class Decoder:
    """What of CMD's model turns values of the references into weights."""

    wbar_N: Tensor
    a_N: Tensor
    mode_N: Tensor
    references_TM: Tensor
    """float64 on the CPU"""

    def decode(self, x_M: Tensor) -> Tensor:
        """theta_N where the references have the values x_M."""
        return decode(self.wbar_N, self.a_N, self.mode_N, x_M - self.references_TM.mean(0))

    def tensors(self) -> dict[str, Tensor]:
        return {f.name: getattr(self, f.name).clone() for f in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], device: torch.device) -> Decoder:
        """Vectors over weights go to `device`."""
        moved = {name: tensor.to(device if name.endswith("_N") else "cpu") for name, tensor in tensors.items()}
        return cls(**moved)


@dataclass(eq=False)
class DMDOfReferences(Observer):
    """From the end of epoch F + 1 on, F = `warmup`, proposes CMD's model with its references forecast to the present.

    ValueError where modes is below 1 or above samples, rank is above modes, or as for `DMDForecast`.
    """

    modes: int = 10
    samples: int = 1000
    warmup: int = 20
    rank: int | str = "energy"
    energy: float = 0.9999
    offset: Offset = "constant"
    clip: bool = True

    needs_even_steps = True

    def __post_init__(self) -> None:
        check_modes(self.modes, self.samples)
        check_warmup(self.warmup)
        check_rank(self.rank, self.energy, self.offset)
        check_rank_fits(self.rank, self.warmup + 1, self.offset)
        if isinstance(self.rank, int) and self.rank > self.modes:
            raise ValueError(f"rank must be at most modes = {self.modes}, got {self.rank}")
        check_bool("clip", self.clip)

    def needs(self, epochs: int) -> tuple[int, int]:
        return warmup_snapshots(self.warmup, epochs)

    def epochs_read(self, epochs: int) -> int:
        """The forecast follows from the warm-up alone."""
        return self.warmup + 1

    def memory_floats(self, N: int) -> int:
        """Mean, slope, and the modes' labels at one byte; a proposal beside them."""
        return 3 * N + N // 4

    def begin(self, run: Run) -> None:
        self.run = run
        self.t = 0
        self.decoder: Decoder | None = None
        self.report: ModeReport | None = None

    def observe(self, snapshot: Snapshot) -> None:
        self.t = snapshot.t
        if snapshot.t == self.warmup + 1:
            cmd = decompose_run(self.run, self.run.trajectory.window(1, snapshot.t), self.modes, self.samples)
            self.report = ModeReport.of(cmd, self.run.layout)
            self._take(Decoder(cmd.wbar_N, cmd.a_N, cmd.mode_N, cmd.references_TM))

    def _take(self, decoder: Decoder) -> None:
        self.decoder = decoder
        references_TM = decoder.references_TM
        gram_TT = finite_gram(MemoryTrajectory(references_TM), self.offset)
        self.dynamics = Dynamics.fit(gram_TT, references_TM.shape[1], self.rank, self.energy, self.offset)

    def propose(self) -> Proposal | None:
        if self.decoder is None:
            return None
        c_T = self.dynamics.coefficients(self.dynamics.forecast(self.t - self.warmup - 1, self.clip))
        return Proposal(self.decoder.decode(c_T @ self.decoder.references_TM))

    def scalars(self) -> dict[str, float]:
        return {} if self.report is None else {**self.report.scalars(), **self.dynamics.scalars()}

    def tables(self) -> dict[str, pd.DataFrame]:
        return {} if self.report is None else {**self.report.tables(self.run.layout), **self.dynamics.tables()}

    def state_dict(self) -> State:
        """Empty but for the epoch during the warm-up, whose snapshots come again with the run's trajectory."""
        state: State = {"t": self.t}
        if self.decoder is not None and self.report is not None:
            state |= {"decoder": self.decoder.tensors(), "report": self.report.state_dict()}
        return state

    def load_state_dict(self, state: State) -> None:
        self.t = state["t"]
        if "decoder" in state:
            self._take(Decoder.from_tensors(state["decoder"], self.run.device))
            self.report = ModeReport(**state["report"])
