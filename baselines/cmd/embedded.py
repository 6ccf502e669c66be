"""Embedded CMD: training that stops for more and more weights, which then follow the reference of their mode.

Brokman et al., Enhancing Neural Training via a Correlated Dynamics Model (ICLR 2024). After a warm-up of F + 1 epochs
the modes are fixed; from then on, at every epoch that L divides, the P percent of weights whose coefficients moved
least since the last such window are embedded. Deviations: the constraint holds after every optimizer step, not at the
ends of epochs alone; references also take in what their weights ask for, unless `rule` says otherwise
(`embedded_rules`); weights without a gradient, such as those of a layer that its input never reaches, are not embedded
and not counted, in shares and percentages neither above nor below the line, since they would fill the first windows.
This is for anyone's training loop; the harness runs the same as `baselines.cmd_embedded`.

Shape suffixes: N trainable weights, M modes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from baselines.cmd.embedded_choice import MOVEMENTS, FreeFit, Movement
from baselines.cmd.embedded_rules import RULES, Embedding, Rule
from baselines.cmd.modes import ModeReport
from baselines.cmd.posthoc import BLOCK_BYTES, check_modes, decompose
from baselines.cmd.sampling import constant_weights, sample_weights
from baselines.cmd.seed import check_seed
from baselines.finite import check_finite
from baselines.parameters import check_choice
from baselines.unchanged import Unchanged
from baselines.warmup import PercentOf, check_warmup, check_windows
from harness.method import State, Trajectory
from harness.snapshots import MemoryTrajectory, check_float32, tensors_of, trainable, weights_of

WINDOW_COLUMNS = ("epoch", "embedded_now", "embedded", "trainable_fraction", "largest_movement")


def check_embedded(
    modes: int, samples: int, warmup: int, every: int, percent: float, percent_of: str, rule: str, movement: str
) -> None:
    """What embedded CMD asks of its parameters in anyone's loop and in the harness; ValueError."""
    check_modes(modes, samples)
    check_warmup(warmup)
    check_windows(every, percent, percent_of)
    check_choice("rule", rule, RULES)
    check_choice("movement", movement, MOVEMENTS)


class EmbeddedCMD:
    """Embedded CMD in your own loop, around any `torch.optim` optimizer that steps without a closure.

    Call `after_backward()` between the last backward pass and `optimizer.step()` (gradients unscaled and complete),
    `after_step()` after it, and `after_epoch()` at the end of every epoch, of the last with `last=True`. The weights
    that count are those that move: that had a gradient other than 0 in some `after_backward()`, whatever weight decay
    does to the others. Epochs 1..F+1, F = `warmup`, are the warm-up, whose weights are kept in memory; then `modes`
    references are chosen out of `samples` clustered weights. At every later epoch that `every` divides, `percent`
    percent of the weights that move (or of those among them that `remaining` says are not embedded yet), rounded down,
    are embedded. `rule` is explained in `embedded_rules`, `movement` in
    `embedded_choice`. Weights are read and written in the model's own parameters, which are neither flattened nor
    replaced. Gradients of all weights are still computed. Optimizers with their own kind of weight decay need the rule
    `projected`, where it needs no treatment. ValueError, naming the parameter, for values out of bounds, weights that
    are not float32, and a parameter that is frozen, freed, resized, moved or replaced half-way.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        modes: int = 10,
        samples: int = 1000,
        warmup: int = 20,
        every: int = 10,
        percent: float = 10.0,
        percent_of: PercentOf = "all",
        rule: Rule = "projected",
        movement: Movement = "coefficients",
        seed: int = 0,
    ) -> None:
        check_embedded(modes, samples, warmup, every, percent, percent_of, rule, movement)
        check_seed(seed)
        check_float32(trainable(model))
        self.model, self.unchanged = model, Unchanged(model)
        self.layout = self.unchanged.layout
        self.parameters = list(trainable(model).values())
        self.optimizer = optimizer
        self.modes, self.samples, self.warmup = modes, samples, warmup
        self.every, self.percent, self.percent_of = every, percent, percent_of
        self.rule, self.movement = rule, movement
        self.generator = torch.Generator().manual_seed(seed)
        self.t = 0
        """completed epochs"""
        self.seen_TN: Tensor | None = None
        """weights of the warm-up's epochs, as far as they have passed"""
        self.free: FreeFit | None = None
        self.embedding: Embedding | None = None
        self.report: ModeReport | None = None
        self.moving_N = torch.zeros(self.layout.N, dtype=torch.bool, device=self.device)
        """weights that had a gradient so far"""
        self._unseen = list(range(len(self.parameters)))
        """tensors in which some weight had none when the last epoch ended"""
        self.embedded_epochs = 0
        """sum over epochs of the weights embedded while it was trained"""
        self.windows: list[dict[str, float]] = []

    @property
    def device(self) -> torch.device:
        return self.parameters[0].device

    @property
    def embedded(self) -> int:
        """Weights embedded now."""
        return 0 if self.embedding is None else len(self.embedding)

    @property
    def trainable_fraction(self) -> float:
        """Share of the weights that move that are not embedded now: 1 before the first window."""
        return 1 - self.embedded / max(self.moving, 1)

    @property
    def moving(self) -> int:
        """Weights that had a gradient so far."""
        return int(self.moving_N.sum())

    @property
    def saved(self) -> float:
        """Percent of the weights that move times all epochs so far, the warm-up's too, that went without training."""
        return 100 * self.embedded_epochs / (max(self.moving, 1) * max(self.t, 1))

    def after_backward(self) -> None:
        """See which weights have a gradient, and give references the one that the rule says."""
        self._see_gradients()
        self.follow_rule()

    def _see_gradients(self) -> None:
        views = tensors_of(self.moving_N, self.layout)
        for tensor in self._unseen:
            gradient = self.parameters[tensor].grad
            if gradient is not None:
                views[tensor] |= gradient.to_dense() != 0

    def follow_rule(self) -> None:
        """Give references the gradient that the rule says."""
        if self.embedding is not None:
            self.unchanged.check_tensors(self.parameters)
            self.embedding.after_backward(self.rule)

    def after_step(self) -> None:
        """Bring references and embedded weights to the constraint."""
        if self.embedding is not None:
            self.unchanged.check_tensors(self.parameters)
            self.embedding.after_step(self.rule)

    @torch.no_grad()
    def after_epoch(self, last: bool = False) -> None:
        """Take in the epoch's weights; fix the modes at the end of the warm-up, and embed where a window closes.

        `last`: no training follows, so there is nothing to embed for. ValueError, naming epoch and tensor, where a
        weight is not finite, where a window closes before any gradient was seen, or naming a parameter that is not what
        it was.
        """
        self.unchanged.check(self.model, self.parameters)
        if self.t == 0:
            self.unchanged.note(self.model)
        theta_N = weights_of(self.model)
        check_finite(theta_N, self.t + 1, self.layout)
        views = tensors_of(self.moving_N, self.layout)
        self._unseen = [tensor for tensor in self._unseen if not bool(views[tensor].all())]
        self.embedded_epochs += self.embedded
        self.t += 1
        if self.free is None:
            self._see(theta_N)
            return
        self.free.update(theta_N)
        if self.t % self.every == 0 and not last:
            self._embed()

    def _see(self, theta_N: Tensor) -> None:
        """Keep the weights of an epoch of the warm-up; at its end fix the modes."""
        if self.seen_TN is None:
            self.seen_TN = theta_N.new_empty(self.warmup + 1, len(theta_N))
        self.seen_TN[self.t - 1] = theta_N
        if self.t == len(self.seen_TN):
            self.fix_modes(MemoryTrajectory(self.seen_TN, range(1, self.t + 1)))
            self.seen_TN = None

    def fix_modes(self, warmup: Trajectory) -> None:
        """Choose modes and references from these snapshots; the epochs counted so far become those of the last."""
        constant_C = constant_weights(warmup, self.layout, BLOCK_BYTES // 2)
        sample_K = sample_weights(self.layout.N, self.layout, self.samples, constant_C, self.generator)
        cmd = decompose(warmup, self.modes, sample_K)
        self.t = warmup.ts[-1]
        self.report = ModeReport.of(cmd, self.layout)
        self.free = FreeFit(cmd, warmup, self.movement, BLOCK_BYTES)
        self._follow(cmd.reference_M)

    def _follow(self, reference_M: Tensor) -> None:
        self.unchanged.note(self.model)
        self.reference_M = reference_M.clone()
        self.embedding = Embedding(self.parameters, self.layout, reference_M, self.optimizer)

    def _embed(self) -> None:
        """Close a window."""
        assert self.free is not None
        assert self.embedding is not None
        if self.moving == 0:
            raise ValueError(
                f"after_backward must follow every backward pass, got no gradient other than 0 in {self.t} epochs"
            )
        of = self.moving - (self.embedded if self.percent_of == "remaining" else 0)
        before = self.embedded
        index, a, wbar, mode, largest = self.free.release(int(self.percent * of / 100), self.moving_N)
        self.embedding.add(index, a, wbar, mode, self.free.online.mu_M)
        values = (self.t, self.embedded - before, self.embedded, self.trainable_fraction, largest)
        self.windows.append(dict(zip(WINDOW_COLUMNS, values, strict=True)))

    def scalars(self) -> dict[str, float]:
        """Embedded weights and those without a gradient, what goes on training, and the numbers of the modes."""
        numbers = {
            "trainable_fraction": self.trainable_fraction,
            "saved": self.saved,
            "embedded": float(self.embedded),
            "without_gradient": float(self.layout.N - self.moving),
        }
        return numbers if self.report is None else {**numbers, **self.report.scalars()}

    def tables(self) -> dict[str, pd.DataFrame]:
        """The modes with the weights embedded in each, their share per layer, and one row per window."""
        if self.report is None or self.embedding is None:
            return {}
        tables = self.report.tables(self.layout)
        modes = tables["modes"]
        mode_E = self.embedding.group_E.cpu().long() % len(modes)
        modes["embedded"] = torch.bincount(mode_E, minlength=len(modes)).numpy()
        return {**tables, "windows": pd.DataFrame(self.windows, columns=list(WINDOW_COLUMNS))}

    def state_dict(self) -> State:
        """A copy of everything but the settings, the model's weights and the optimizer's state."""
        state: State = {
            "t": self.t,
            "N": self.layout.N,
            "embedded_epochs": self.embedded_epochs,
            "windows": [dict(row) for row in self.windows],
            "moving_N": self.moving_N.clone(),
        }
        if self.seen_TN is not None:
            state["seen_TN"] = self.seen_TN[: self.t].clone()
        if self.free is not None and self.embedding is not None and self.report is not None:
            state |= {
                "free": self.free.state_dict(),
                "embedding": self.embedding.state_dict(),
                "reference_M": self.reference_M.clone(),
                "report": self.report.state_dict(),
            }
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there, with the model and the optimizer as they were then; ValueError for another model's."""
        if state.get("N", self.layout.N) != self.layout.N:
            raise ValueError(f"state_dict must be of {self.layout.N} weights, got {state['N']}")
        self.unchanged.note(self.model)
        self.t = state["t"]
        self.embedded_epochs = state["embedded_epochs"]
        self.windows = [dict(row) for row in state["windows"]]
        self.moving_N = state["moving_N"].to(self.device, copy=True)
        self._unseen = list(range(len(self.parameters)))
        self.seen_TN = None
        if "seen_TN" in state:
            seen_TN = state["seen_TN"]
            self.seen_TN = torch.empty(self.warmup + 1, self.layout.N, device=self.device)
            self.seen_TN[: len(seen_TN)] = seen_TN
        if "free" in state:
            self.free = FreeFit.from_state(state["free"], self.device)
            self._follow(state["reference_M"])
            assert self.embedding is not None
            self.embedding.load_state_dict(state["embedding"])
            self.report = ModeReport(**state["report"])
