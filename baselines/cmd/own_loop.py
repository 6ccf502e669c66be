"""Online CMD in anyone's training loop, without the harness.

    cmd = OnlineCMD(model)
    for epoch in range(epochs):
        train(model)
        cmd.update()
        with cmd.applied(model):
            evaluate(model)

Brokman et al., Enhancing Neural Training via a Correlated Dynamics Model (ICLR 2024).

Shape suffix: N weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from baselines.cmd.buffers import extended, join, split
from baselines.cmd.fit import BLOCK_BYTES, fit
from baselines.cmd.online import check_finite, check_forgetting
from baselines.cmd.posthoc import check_modes
from baselines.cmd.recursion import OnlineFit
from baselines.cmd.report import ModeReport
from baselines.cmd.sampling import sample_trajectories
from baselines.cmd.weights import check_layout, layout_of, swapped, weights_of
from baselines.parameters import check_bool
from baselines.snapshots import Rows, on_disk
from baselines.warmup import check_warmup
from harness.method import Layout


class OnlineCMD:
    """Models the weights of `model` from the (F + 1)-th `update` on, F = `warmup`; training is never touched.

    `update` is called after every epoch, or every so many steps: a snapshot is what it sees. The warm-up's snapshots
    lie in a temporary file in `folder` and are gone when the modes are fixed; then 9 bytes per weight stay.
    `include_initial` takes the present weights as the first snapshot. A snapshot counts `forgetting` ** k after k
    later ones. `model_buffers` models BatchNorm's statistics like weights. ValueError where a parameter is out of
    bounds or a weight is not finite.
    """

    def __init__(
        self,
        model: nn.Module,
        modes: int = 10,
        warmup: int = 20,
        samples: int = 1000,
        include_initial: bool = False,
        forgetting: float = 1.0,
        model_buffers: bool = False,
        seed: int = 0,
        folder: Path | str | None = None,
    ) -> None:
        check_modes(modes, samples, include_initial)
        check_warmup(warmup)
        check_forgetting(forgetting)
        check_bool("model_buffers", model_buffers)
        self.model, self.layout = model, layout_of(model)
        self.modes, self.samples, self.warmup, self.seed = modes, samples, warmup, seed
        self.forgetting, self.model_buffers, self.folder = forgetting, model_buffers, folder
        self.t = -1 if include_initial else 0
        """updates so far"""
        self.online: OnlineFit | None = None
        self.report: ModeReport | None = None
        self._rows_TN: Tensor | None = None
        self._kept: list[int] = []
        """t of the warm-up's snapshots so far"""
        if include_initial:
            self.update()

    @property
    def ready(self) -> bool:
        """Whether the modes are fixed."""
        return self.online is not None

    def update(self) -> None:
        """Take in the model's present weights as the next snapshot."""
        theta_N = weights_of(self.model)
        if self.model_buffers:
            theta_N = join(theta_N, dict(self.model.named_buffers()))
        self.t += 1
        check_finite(theta_N, self.t, self._layout())
        if self.online is not None:
            self.online.update(theta_N)
            return
        if self._rows_TN is None:
            self._rows_TN = on_disk(self.warmup + 1, len(theta_N), self.folder)
        self._rows_TN[len(self._kept)] = theta_N
        self._kept.append(self.t)
        if len(self._kept) > self.warmup:
            self._fix(theta_N.device)

    def _layout(self) -> Layout:
        """Of what is modelled: the weights, and with `model_buffers` what follows them."""
        return extended(self.layout, dict(self.model.named_buffers())) if self.model_buffers else self.layout

    def _fix(self, device: torch.device) -> None:
        """End the warm-up: post-hoc CMD of its snapshots fixes the modes, whose references are weights."""
        assert self._rows_TN is not None
        N, ts = self.layout.N, tuple(self._kept)
        rng = torch.Generator().manual_seed(self.seed)
        weights = Rows(self._rows_TN[:, :N], ts, device)
        sample_K, x_TK = sample_trajectories(weights, N, self.layout, self.samples, rng, BLOCK_BYTES)
        everything = Rows(self._rows_TN, ts, device)
        fitted = fit(everything, self.modes, sample_K, BLOCK_BYTES, self._layout(), x_TK)
        self.online = OnlineFit.start(fitted, device, self.forgetting)
        self.report = ModeReport.of(fitted)
        self._rows_TN, self._kept = None, []

    @contextlib.contextmanager
    def applied(self, model: nn.Module | None = None) -> Iterator[bool]:
        """Inside, `model` (default: the one in training) has the modelled weights; True where there are some yet.

        Afterwards its weights and buffers are what they were, bit for bit, also after an error, so that BatchNorm may
        be recalibrated inside. ValueError where the model's layout is another.
        """
        target = self.model if model is None else model
        check_layout(self.layout, layout_of(target), "model")
        theta_N, buffers = None, {}
        if self.online is not None:
            theta_N = self.online.model_N()
            if self.model_buffers:
                proposal = split(theta_N, self.layout.N, dict(target.named_buffers()))
                theta_N, buffers = proposal.theta_N, dict(proposal.buffers or {})
        with swapped(target, theta_N, buffers):
            yield self.ready

    def state_dict(self) -> dict[str, Any]:
        """A copy of everything that `load_state_dict` needs, the warm-up's snapshots included."""
        state: dict[str, Any] = {
            "t": self.t,
            "warmup": self.warmup,
            "names": list(self.layout.names),
            "shapes": [list(shape) for shape in self.layout.shapes],
            "kept": list(self._kept),
        }
        if self._rows_TN is not None:
            state["rows_TN"] = self._rows_TN[: len(self._kept)].clone()
        if self.online is not None and self.report is not None:
            state |= {"online": self.online.state_dict(), "report": self.report.state_dict()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another instance on the same model stood; ValueError where layout or warm-up differ."""
        layout = Layout(tuple(state["names"]), tuple(tuple(shape) for shape in state["shapes"]))
        check_layout(self.layout, layout, "state_dict")
        if state["warmup"] != self.warmup:
            raise ValueError(f"state_dict must have warmup = {self.warmup}, got {state['warmup']}")
        self.t, self._kept = state["t"], list(state["kept"])
        self._rows_TN = self.online = self.report = None
        if "rows_TN" in state:
            rows_TN = state["rows_TN"]
            self._rows_TN = on_disk(self.warmup + 1, rows_TN.shape[1], self.folder)
            self._rows_TN[: len(rows_TN)] = rows_TN
        if "online" in state:
            self.online = OnlineFit.from_state(state["online"], weights_of(self.model).device)
            self.report = ModeReport(**state["report"])
