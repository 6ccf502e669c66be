"""Snapshots of a model: its trainable weights as one vector, and many such vectors in memory as a trajectory.

This is the one way in which weights are flattened. Every trainable parameter stands once, tied and 0-d ones too, in
the order and under the names of `named_parameters`, each in C order whatever its memory format. Frozen parameters
(`requires_grad` false) and buffers are not weights. Methods may import this module, which needs torch and numpy alone.

Shape suffixes: N weights, T snapshots, B a block of weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from harness.method import Buffers, Layout, Snapshot, Trajectory

Snapshots: TypeAlias = "Tensor | NDArray[np.generic] | Sequence[Tensor] | Sequence[NDArray[np.generic]] | Trajectory"
"""snapshots in whatever form: a floating-point tensor or array (T, N), a list of (N,), or a trajectory in memory or in
files"""

FLOATING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable parameters by name; TypeError where the model is none, ValueError where it has no weight, or naming
    one that is none of numbers."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    found = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, parameter in found.items():
        if is_lazy(parameter):
            raise ValueError(f"parameter {name} must have a shape, which a lazy module has after a first forward pass")
        if parameter.dtype not in FLOATING or parameter.layout != torch.strided:
            kind = f"{parameter.dtype}, {parameter.layout}"
            raise ValueError(f"parameter {name} must be a dense tensor of real floating-point numbers, got {kind}")
    if sum(parameter.numel() for parameter in found.values()) == 0:
        raise ValueError("model must have at least 1 trainable weight, got 0")
    return found


def check_float32(parameters: Mapping[str, nn.Parameter]) -> None:
    """ValueError naming the first parameter that is not float32."""
    for name, parameter in parameters.items():
        if parameter.dtype != torch.float32:
            raise ValueError(f"parameter {name} must be float32, got {parameter.dtype}")


def layout_of(model: nn.Module) -> Layout:
    """Names and shapes of the tensors inside theta_N; ValueError where the model has no trainable weight."""
    parameters = trainable(model)
    return Layout(tuple(parameters), tuple(tuple(parameter.shape) for parameter in parameters.values()))


@torch.no_grad()
def weights_of(model: nn.Module) -> Tensor:
    """A copy of the model's trainable weights, (N,) float32; ValueError where there are none, or naming a parameter
    that is not on the first one's device."""
    parameters = trainable(model)
    device = next(iter(parameters.values())).device
    for name, parameter in parameters.items():
        if parameter.device != device:
            raise ValueError(f"parameter {name} must be on {device} like those before it, got {parameter.device}")
    return torch.cat([parameter.detach().reshape(-1).float() for parameter in parameters.values()])


def tensors_of(theta_N: Tensor, layout: Layout) -> list[Tensor]:
    """Views into theta_N, one for every tensor of the layout and of its shape."""
    places = zip(layout.offsets, layout.sizes, layout.shapes, strict=True)
    return [theta_N[offset : offset + size].view(shape) for offset, size, shape in places]


def block_bounds(N: int, T: int, max_bytes: int) -> Iterator[tuple[int, int]]:
    """Consecutive (start, stop) over N weights such that T x (stop - start) float32 values fit `max_bytes`."""
    width = max(1, max_bytes // (4 * max(T, 1)))
    for start in range(0, N, width):
        yield start, min(start + width, N)


class MemoryTrajectory:
    """A `Trajectory` in memory: row i of `W_TN` holds the weights after epoch `ts[i]`, by default epoch i.

    Blocks are views of W_TN in its own type, on `device` where one is given. ValueError unless W_TN has two dimensions
    and holds floating-point numbers.
    """

    def __init__(
        self, W_TN: Tensor | NDArray[np.generic], ts: Sequence[int] | None = None, device: torch.device | None = None
    ) -> None:
        array_TN = W_TN.detach() if isinstance(W_TN, Tensor) else torch.as_tensor(W_TN)
        if array_TN.ndim != 2:
            raise ValueError(f"snapshots must have shape (T, N), got {tuple(array_TN.shape)}")
        if array_TN.dtype not in FLOATING:
            raise ValueError(f"snapshots must be floating-point numbers, got {array_TN.dtype}")
        self.W_TN = array_TN
        self.device = array_TN.device if device is None else device
        self._rest: list[tuple[int, int, Buffers]] = [(t, t, {}) for t in (range(len(array_TN)) if ts is None else ts)]
        """t, step and buffers of every snapshot"""

    @classmethod
    def of(cls, snapshots: Sequence[Snapshot]) -> MemoryTrajectory:
        """The trajectory of these snapshots: their weights are copied, their buffers kept as they are."""
        made = cls(torch.stack([snapshot.theta_N for snapshot in snapshots]) if snapshots else torch.empty(0, 0))
        made._rest = [(snapshot.t, snapshot.step, snapshot.buffers) for snapshot in snapshots]
        return made

    def __len__(self) -> int:
        return len(self._rest)

    @property
    def ts(self) -> tuple[int, ...]:
        return tuple(t for t, _, _ in self._rest)

    def __getitem__(self, index: int) -> Snapshot:
        t, step, buffers = self._rest[index]
        return Snapshot(t, step, self.W_TN[index].to(self.device, torch.float32), buffers)

    def window(self, first: int, last: int) -> MemoryTrajectory:
        inside = [index for index, t in enumerate(self.ts) if first <= t <= last]
        rows = slice(inside[0], inside[-1] + 1) if inside else slice(0)
        view = MemoryTrajectory(self.W_TN[rows], device=self.device)
        view._rest = self._rest[rows]
        return view

    def blocks(self, max_bytes: int) -> Iterator[tuple[int, int, Tensor]]:
        for start, stop in block_bounds(self.W_TN.shape[1], len(self), max_bytes):
            yield start, stop, self.W_TN[:, start:stop].to(self.device)


def as_trajectory(snapshots: Snapshots) -> Trajectory:
    """The rows of an array or a list as a trajectory; a trajectory as it is. ValueError where a list has others than
    vectors of one length, TypeError for anything else."""
    if isinstance(snapshots, list | tuple):
        rows = [row if isinstance(row, Tensor) else torch.as_tensor(row) for row in snapshots]
        shapes = {tuple(row.shape) for row in rows}
        if len(shapes) != 1 or rows[0].dim() != 1:
            found = ", ".join(sorted(map(str, shapes))) or "none"
            raise ValueError(f"snapshots in a list must be vectors of one length, got shapes {found}")
        snapshots = torch.stack(rows)
    if isinstance(snapshots, Tensor | np.ndarray):
        return MemoryTrajectory(snapshots)
    if isinstance(snapshots, Sequence) or not hasattr(snapshots, "blocks"):
        raise TypeError(f"snapshots must be (T, N), a list of (N,) or a trajectory, got {type(snapshots).__name__}")
    return snapshots
