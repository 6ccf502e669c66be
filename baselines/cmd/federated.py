"""What server and clients of federated CMD have in common: the fit of the server's weights, and the embedded ones.

`GlobalFit` is embedded CMD's choice (`embedded_choice`) on weights that it is shown round by round; `Followers` are the
weights that a window took away and what they follow, small enough to be sent.

Shape suffixes: N trainable weights, E embedded ones in ascending order, M modes, G groups embedded at once in one mode.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from baselines.cmd.embedded_choice import FreeFit, Movement
from baselines.cmd.modes import ModeReport
from baselines.cmd.posthoc import BLOCK_BYTES, decompose
from baselines.cmd.sampling import constant_weights, sample_weights
from baselines.warmup import PercentOf
from harness.method import Layout, State, Trajectory
from harness.snapshots import MemoryTrajectory


class Window(NamedTuple):
    """Weights that are embedded at once: their places in theta_N, ascending, and the coefficients that they keep."""

    place: Tensor
    a: Tensor
    wbar: Tensor
    mode: Tensor
    mu_M: Tensor
    """means of the references"""


@dataclass
class Followers:
    """All embedded weights, w_E = wbar_E + a_E (x - mu) for the reference x of their mode."""

    reference_M: Tensor
    """int64 indices of the references"""
    index_E: Tensor
    a_E: Tensor
    wbar_E: Tensor
    group_E: Tensor
    """int32: the mode, and which window it was"""
    mu_G: Tensor
    """float64"""

    def __post_init__(self) -> None:
        self._free_F: Tensor | None = None

    @classmethod
    def none(cls, reference_M: Tensor) -> Followers:
        device = reference_M.device
        index, group = (torch.empty(0, dtype=kind, device=device) for kind in (torch.int64, torch.int32))
        a, mu = (torch.empty(0, dtype=kind, device=device) for kind in (torch.float32, torch.float64))
        return cls(reference_M, index, a, a.clone(), group, mu)

    def add(self, window: Window) -> None:
        index_E, order = torch.cat([self.index_E, window.place]).sort()
        self.a_E = torch.cat([self.a_E, window.a])[order]
        self.wbar_E = torch.cat([self.wbar_E, window.wbar])[order]
        self.group_E = torch.cat([self.group_E, window.mode.int() + len(self.mu_G)])[order]
        self.index_E, self.mu_G = index_E, torch.cat([self.mu_G, window.mu_M.to(self.mu_G)])
        self._free_F = None

    def place(self, theta_N: Tensor) -> Tensor:
        """The weights with the embedded ones where their references put them."""
        x_G = theta_N[self.reference_M].double().repeat(len(self.mu_G) // len(self.reference_M))
        d_E = (x_G - self.mu_G).float().index_select(0, self.group_E)
        return theta_N.scatter(0, self.index_E, torch.addcmul(self.wbar_E, self.a_E, d_E))

    def free(self, N: int) -> Tensor:
        """The weights of N that are not embedded: (F,) int64, ascending, looked up once per window."""
        if self._free_F is None:
            free_N = torch.ones(N, dtype=torch.bool, device=self.index_E.device)
            self._free_F = torch.nonzero(free_N.index_fill_(0, self.index_E, False)).squeeze(1)
        return self._free_F

    def state_dict(self) -> State:
        return {field.name: getattr(self, field.name).clone() for field in fields(self)}


class GlobalFit:
    """Embedded CMD's fit and windows on weights (N,) that are the same for all who see them round by round.

    Begin with `start`, for a warm-up that is yet to come, or with `fix`, for one that is recorded. A weight moves where
    it changed in some round. The parameters are those of `baselines.cmd.embedded.EmbeddedCMD`.
    """

    def __init__(
        self,
        modes: int,
        samples: int,
        warmup: int,
        every: int,
        percent: float,
        percent_of: PercentOf,
        movement: Movement,
    ) -> None:
        self.modes, self.samples, self.warmup = modes, samples, warmup
        self.every, self.percent, self.percent_of = every, percent, percent_of
        self.movement: Movement = movement
        self.free: FreeFit | None = None
        self.report: ModeReport | None = None
        self.seen: list[Tensor] = []
        """weights of the warm-up's rounds, until there are all"""
        self.embedded = 0

    def start(self, theta_N: Tensor) -> None:
        """The weights before the first round."""
        self.last_N = theta_N.clone()
        self.moving_N = torch.zeros_like(theta_N, dtype=torch.bool)

    def fix(self, warmup: Trajectory, layout: Layout, moving_N: Tensor, draws: torch.Generator) -> None:
        """Choose modes and references from the weights of the warm-up."""
        constant_C = constant_weights(warmup, layout, BLOCK_BYTES // 2)
        sample_K = sample_weights(layout.N, layout, self.samples, constant_C, draws)
        cmd = decompose(warmup, self.modes, sample_K)
        self.free = FreeFit(cmd, warmup, self.movement, BLOCK_BYTES)
        self.report = ModeReport.of(cmd, layout)
        self.reference_M = cmd.reference_M.to(moving_N.device)
        self.moving_N, self.last_N = moving_N, warmup[-1].theta_N.clone()

    def see(
        self, theta_N: Tensor, t: int, last: bool, layout: Layout, draws: torch.Generator
    ) -> tuple[Window, float] | None:
        """Take in the weights after t rounds; the window that closes there, and the largest movement of its weights.

        The warm-up's last weights fix the modes, by `draws`. After the last round no window closes.
        """
        self.moving_N |= theta_N != self.last_N
        self.last_N = theta_N.clone()
        if self.free is None:
            self.seen.append(self.last_N)
            if len(self.seen) == self.warmup + 1:
                warmup = MemoryTrajectory(torch.stack(self.seen), range(1, t + 1))
                self.seen = []
                self.fix(warmup, layout, self.moving_N, draws)
            return None
        self.free.update(theta_N)
        if t % self.every != 0 or last:
            return None
        of = int(self.moving_N.sum()) - (self.embedded if self.percent_of == "remaining" else 0)
        place, a, wbar, mode, largest = self.free.release(int(self.percent * of / 100), self.moving_N)
        window = Window(place, a, wbar, mode, self.free.online.mu_M.clone())
        self.embedded += len(window.place)
        return window, largest

    @property
    def trainable_fraction(self) -> float:
        """Share of the weights that move that are not embedded."""
        return 1 - self.embedded / max(int(self.moving_N.sum()), 1)

    def state_dict(self) -> State:
        state: State = {"seen": list(self.seen), "embedded": self.embedded}
        state |= {name: getattr(self, name).clone() for name in ("moving_N", "last_N")}
        if self.free is not None and self.report is not None:
            fixed = {"free": self.free.state_dict(), "report": self.report.state_dict()}
            state |= {**fixed, "reference_M": self.reference_M.clone()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen, self.embedded = list(state["seen"]), state["embedded"]
        self.moving_N, self.last_N = state["moving_N"].clone(), state["last_N"].clone()
        if "free" in state:
            self.free = FreeFit.from_state(state["free"], self.last_N.device)
            self.report, self.reference_M = ModeReport(**state["report"]), state["reference_M"].clone()
