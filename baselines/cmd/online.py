"""Online CMD: modes fixed after a warm-up, and every weight then regressed on its reference as training goes on.

    cmd = OnlineCMD(model)
    for epoch in range(epochs):
        train(model)
        cmd.update()
        with cmd.applied(model):
            evaluate(model)

Brokman et al., Enhancing Neural Training via a Correlated Dynamics Model (ICLR 2024). This is for anyone's training
loop; the harness runs the same as `baselines.cmd_online`.

Shape suffixes: N weights, T snapshots of the warm-up, E weights and the buffers modelled with them.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from baselines.cmd.buffers import extended, join, split
from baselines.cmd.online_recursion import OnlineFit, check_online
from baselines.cmd.posthoc import BLOCK_BYTES, CMD, decompose
from baselines.cmd.sampling import sample_trajectories
from baselines.cmd.seed import check_seed
from baselines.finite import check_finite
from baselines.unchanged import Unchanged
from harness.method import Layout
from harness.snapshots import MemoryTrajectory, layout_of, tensors_of, trainable, weights_of


class OnlineCMD:
    """Models the weights of `model` from the (F + 1)-th `update` on, F = `warmup`; training is never touched.

    `update` is called after every epoch, or every so many steps: a snapshot is what it sees. The warm-up's snapshots
    lie in a temporary file in `folder` and are gone when the modes are fixed; then 9 bytes per weight stay.
    `include_initial` takes the present weights as the first snapshot. A snapshot counts `forgetting` ** k after k
    later ones. `model_buffers` models BatchNorm's statistics like weights. ValueError where a parameter is out of
    bounds, a weight is not finite, or a parameter is not real, or is frozen, freed, resized or moved half-way.
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
        check_online(modes, samples, warmup, include_initial, forgetting, model_buffers)
        check_seed(seed)
        self.model, self.unchanged = model, Unchanged(model)
        self.layout = self.unchanged.layout
        self.modes, self.samples, self.warmup, self.seed = modes, samples, warmup, seed
        self.forgetting, self.model_buffers, self.folder = forgetting, model_buffers, folder
        self.modelled = self._layout(model)
        """the layout of what is modelled"""
        self.t = -1 if include_initial else 0
        """updates so far"""
        self.online: OnlineFit | None = None
        self._rows_TE: Tensor | None = None
        self._kept: list[int] = []
        """t of the warm-up's snapshots so far"""
        if include_initial:
            self.update()

    @property
    def ready(self) -> bool:
        """Whether the modes are fixed."""
        return self.online is not None

    def update(self) -> None:
        """Take in the model's present weights as the next snapshot; ValueError naming a parameter that has changed in
        more than its values."""
        self.unchanged.check(self.model)
        if not self._kept and self.online is None:
            self.unchanged.note(self.model)
        _check_layout(self.modelled, self._layout(self.model), "model")
        theta_E = weights_of(self.model)
        if self.model_buffers:
            theta_E = join(theta_E, dict(self.model.named_buffers()))
        self.t += 1
        check_finite(theta_E, self.t, self.modelled)
        if self.online is not None:
            self.online.update(theta_E)
            return
        if self._rows_TE is None:
            self._rows_TE = _on_disk(self.warmup + 1, len(theta_E), self.folder)
        self._rows_TE[len(self._kept)] = theta_E
        self._kept.append(self.t)
        if len(self._kept) > self.warmup:
            self.online = OnlineFit.start(self._fit(self._rows_TE, theta_E.device), theta_E.device, self.forgetting)
            self._rows_TE, self._kept = None, []

    def _layout(self, model: nn.Module) -> Layout:
        """The layout of what is modelled of a model: the weights, and with `model_buffers` what follows them."""
        return extended(layout_of(model), dict(model.named_buffers())) if self.model_buffers else layout_of(model)

    def _fit(self, rows_TE: Tensor, device: torch.device) -> CMD:
        """Post-hoc CMD of the warm-up, whose references are weights."""
        N = self.layout.N
        weights = MemoryTrajectory(rows_TE[:, :N], self._kept, device)
        rng = torch.Generator().manual_seed(self.seed)
        sample_K, x_TK = sample_trajectories(weights, N, self.layout, self.samples, rng, BLOCK_BYTES)
        everything = MemoryTrajectory(rows_TE, self._kept, device)
        return decompose(everything, self.modes, sample_K, x_TK, self.modelled)

    @contextlib.contextmanager
    def applied(self, model: nn.Module | None = None) -> Iterator[bool]:
        """Inside, `model` (default: the one in training) has the modelled weights; True where there are some yet.

        Afterwards its weights and buffers are what they were, bit for bit, also after an error, so that BatchNorm may
        be recalibrated inside. ValueError where the model's layout is another.
        """
        target = self.model if model is None else model
        if target is self.model:
            self.unchanged.check(target)
        _check_layout(self.modelled, self._layout(target), "model")
        live = [p.data for p in trainable(target).values()] + [b.data for b in target.buffers()]
        before = [tensor.clone() for tensor in live]
        try:
            if self.online is not None:
                self._apply(self.online.model_N(), target)
            yield self.ready
        finally:
            for tensor, saved in zip(live, before, strict=True):
                tensor.copy_(saved)

    def _apply(self, theta_E: Tensor, target: nn.Module) -> None:
        N = self.layout.N
        for parameter, part in zip(trainable(target).values(), tensors_of(theta_E[:N], self.layout), strict=True):
            parameter.data.copy_(part)
        if self.model_buffers:
            for name, buffer in (split(theta_E, N, dict(target.named_buffers())).buffers or {}).items():
                target.get_buffer(name).data.copy_(buffer)

    def state_dict(self) -> dict[str, Any]:
        """A copy of everything that `load_state_dict` needs, the warm-up's snapshots included."""
        state: dict[str, Any] = {
            "t": self.t,
            "warmup": self.warmup,
            "names": list(self.layout.names),
            "shapes": [list(shape) for shape in self.layout.shapes],
            "kept": list(self._kept),
        }
        if self._rows_TE is not None:
            state["rows_TE"] = self._rows_TE[: len(self._kept)].clone()
        if self.online is not None:
            state["online"] = self.online.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another instance on the same model stood; ValueError where layout or warm-up differ."""
        layout = Layout(tuple(state["names"]), tuple(tuple(shape) for shape in state["shapes"]))
        _check_layout(self.layout, layout, "state_dict")
        if state["warmup"] != self.warmup:
            raise ValueError(f"state_dict must have warmup = {self.warmup}, got {state['warmup']}")
        self.t, self._kept = state["t"], list(state["kept"])
        self._rows_TE = self.online = None
        if "rows_TE" in state:
            rows_TE = state["rows_TE"]
            self._rows_TE = _on_disk(self.warmup + 1, rows_TE.shape[1], self.folder)
            self._rows_TE[: len(rows_TE)] = rows_TE
        if "online" in state:
            self.unchanged.note(self.model)
            self.online = OnlineFit.from_state(state["online"], weights_of(self.model).device)


def _check_layout(expected: Layout, got: Layout, what: str) -> None:
    """ValueError naming the first tensor that differs."""
    ours, theirs = (list(zip(layout.names, layout.shapes, strict=True)) for layout in (expected, got))
    for index in range(max(len(ours), len(theirs))):
        here, there = (tensors[index] if index < len(tensors) else None for tensors in (ours, theirs))
        if here != there:
            wanted, found = ("nothing" if t is None else f"{t[0]} {t[1]}" for t in (here, there))
            raise ValueError(f"{what} must have the layout that CMD was given: expected {wanted}, got {found}")


def _on_disk(T: int, N: int, folder: Path | str | None) -> Tensor:
    """A float32 array (T, N) in a memory-mapped temporary file that lives as long as the tensor does.

    OSError where the disk has no room for it.
    """
    handle, path = tempfile.mkstemp(prefix="cmd-warmup-", dir=folder)
    try:
        # without this a full disk would end the process with SIGBUS
        os.posix_fallocate(handle, 0, 4 * T * N)
        return torch.from_file(path, shared=True, size=T * N, dtype=torch.float32).view(T, N)
    finally:
        os.close(handle)
        os.unlink(path)
