"""Any observer of ours in anyone's loop: it sees what it would see of a base of the harness, and proposes the same.

Shape suffix: N trainable weights.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from harness.live.checks import check_whole_number
from harness.live.models import check_layout, check_whole, unwrapped
from harness.method import Buffers, Layout, Observer, Proposal, Run, Snapshot
from harness.randomness import generator
from harness.snapshots import layout_of, weights_of
from harness.storage.trajectory import StoredTrajectory, read_snapshot, write_snapshot
from harness.validation import shown
from harness.weights import kept, load_weights, undisturbed


class Watch:
    """Shows a training of `epochs` epochs to an observer such as `EMA`, `SWA`, `CMDOnline` or one of your own.

    The present weights are w(0). `update` is called after every epoch, or where the observer's `cadence` is a number of
    optimizer steps after every step, of which an epoch has `steps_per_epoch`; half-lives in epochs follow from it.
    Training is never touched. `seed` is what the observer's draws follow from. Snapshots that the observer reads again
    (its `needs`) lie in `folder`, which is this Watch's own, or in a temporary one, and are then in `state_dict` too.
    `probe_loss(model)` is asked by observers with `needs_probe`: a number, lower where the model is better, by images
    that results are not reported on.

    ValueError where an argument is out of bounds, the method is no observer or does not fit so many epochs, or where
    parameters are sharded over processes.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Observer,
        epochs: int,
        steps_per_epoch: int = 1,
        seed: int = 0,
        folder: Path | str | None = None,
        probe_loss: Callable[[nn.Module], float] | None = None,
    ) -> None:
        epochs = check_whole_number("epochs", epochs, 1)
        steps_per_epoch = check_whole_number("steps_per_epoch", steps_per_epoch, 1)
        seed = check_whole_number("seed", seed, 0)
        if isinstance(method, type) or not hasattr(method, "kind"):
            raise ValueError(f"method must be an observer that was made, got {shown(method)}")
        if method.kind != "observer":
            raise ValueError(f"method must be an observer, got {method.kind} {type(method).__name__}")
        if method.needs_probe and probe_loss is None:
            raise ValueError(f"probe_loss must be given where the method asks for it, as {type(method).__name__} does")
        self.model = unwrapped(model)
        self.layout = layout_of(self.model)
        check_whole(self.model)
        self.method, self.epochs, self.steps_per_epoch, self.seed = method, epochs, steps_per_epoch, seed
        self.needs = method.needs(epochs)
        """first and last t of the snapshots that the observer reads again"""
        self._temporary = folder is None
        if folder is None:
            folder = tempfile.mkdtemp(prefix="traindyn-watch-")
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.folder = Path(folder)
        self._probe_loss = probe_loss
        self.t = self.step = 0
        """completed epochs and optimizer steps at the last update"""
        self._initial: Snapshot | None = self._snapshot(0, 0)
        """w(0) until the observer has seen it, which it has not to where a state is loaded first"""
        self._begin()

    @property
    def cadence(self) -> Literal["epoch"] | int:
        """How often `update` is called: after every epoch, or after every step, of which every so many are observed."""
        return self.method.cadence

    def update(self, step: int | None = None) -> None:
        """Show the observer the model's present weights, after an epoch or an optimizer step.

        `step` is the number of optimizer steps so far where it is known; otherwise it is counted. ValueError where the
        training is longer than it was said to be, `step` does not rise or passes over one that the observer watches,
        or the model's parameters are no longer those it began with.
        """
        check_layout(self.layout, layout_of(self.model), "model")
        by_epoch = self.method.cadence == "epoch"
        if step is None:
            step = (self.t + 1) * self.steps_per_epoch if by_epoch else self.step + 1
        step = check_whole_number("step", step, self.step + 1)
        # an epoch is over when it has been shown, so that its last step is still within it
        t = self.t + 1 if by_epoch else (step - 1) // self.steps_per_epoch
        if t > (self.epochs if by_epoch else self.epochs - 1):
            raise ValueError(f"update must be called for at most epochs = {self.epochs} epochs, got one more")
        self._show_initial()
        if self.method.cadence == "epoch":
            self.t, self.step = t, step
            self._store(snapshot := self._snapshot(t, step))
            self.method.observe(snapshot)
            return
        looked_at = [self.method.cadence, *([self.steps_per_epoch] if self.needs is not None else [])]
        due = min((self.step // every + 1) * every for every in looked_at)
        if due < step:
            raise ValueError(f"step must be at most {due}, which the observer watches, got {step}")
        self.t, self.step = t, step
        if step % self.method.cadence == 0:
            self.method.observe(self._snapshot(t, step))
        if step % self.steps_per_epoch == 0:
            self._store(self._snapshot(t + 1, step))

    def propose(self) -> Proposal | None:
        """What the observer proposes now: weights (N,), perhaps with buffers, or None for the model's own."""
        self._show_initial()
        return self.method.propose()

    @property
    def ready(self) -> bool:
        """Whether the observer proposes weights other than the model's own."""
        return self.propose() is not None

    def weights(self) -> Tensor:
        """The weights (N,) that the observer stands for now, a copy: the model's own where it proposes none."""
        proposal = self.propose()
        return weights_of(self.model) if proposal is None else proposal.theta_N

    @contextlib.contextmanager
    def applied(self, model: nn.Module | None = None) -> Iterator[bool]:
        """Inside, `model` (default: the one in training) has the proposed weights; True where there are some yet.

        Afterwards its weights, buffers and modes and all random streams are what they were, bit for bit, also after an
        error, so that BatchNorm may be recalibrated and data loaded inside. ValueError where the model's layout is
        another.
        """
        target = self.model if model is None else unwrapped(model)
        check_layout(self.layout, layout_of(target), "model")
        proposal = self.propose()
        with undisturbed(target), kept(target):
            if proposal is not None:
                load_weights(target, proposal.theta_N)
                for name, buffer in (proposal.buffers or {}).items():
                    target.get_buffer(name).data.copy_(buffer)
            yield proposal is not None

    def state_dict(self) -> dict[str, Any]:
        """A copy of everything that `load_state_dict` needs; of snapshots in a `folder` of yours, which they are."""
        self._show_initial()
        state: dict[str, Any] = {
            "t": self.t,
            "step": self.step,
            **self._terms(),
            "kept": list(self.trajectory.ts),
            "method": self.method.state_dict(),
        }
        if self._temporary:
            state["snapshots"] = [self._packed(t) for t in self.trajectory.ts]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another Watch of the same observer on the same model stood; ValueError where it was of another
        layout or length, or its snapshots are not in the folder."""
        check_layout(Layout(tuple(state["names"]), tuple(map(tuple, state["shapes"]))), self.layout, "model")
        for name in ("epochs", "steps_per_epoch", "seed"):
            if state[name] != getattr(self, name):
                raise ValueError(f"{name} must be {state[name]}, as in the state, got {getattr(self, name)}")
        self._initial = None
        self._begin()
        for packed in state.get("snapshots", ()):
            write_snapshot(self.folder, Snapshot(**packed))
        self.trajectory.rewind(state["t"])
        lost = sorted(set(state["kept"]) - set(self.trajectory.ts))
        if lost:
            raise ValueError(f"folder must hold the snapshots of the state, got none of t = {lost[0]} in {self.folder}")
        self.t, self.step = state["t"], state["step"]
        self.method.load_state_dict(state["method"])

    def _terms(self) -> dict[str, Any]:
        names, shapes = list(self.layout.names), [list(shape) for shape in self.layout.shapes]
        length = {"epochs": self.epochs, "steps_per_epoch": self.steps_per_epoch, "seed": self.seed}
        return {"names": names, "shapes": shapes, **length}

    def _begin(self) -> None:
        device = next(iter(self.model.parameters())).device
        self.trajectory = StoredTrajectory(self.folder, device)
        self.trajectory.rewind(-1)
        probes = {} if self._probe_loss is None else {"probe_loss": self._loss_at}
        first, last = (0, -1) if self.needs is None else self.needs
        seed = self.seed  # and no cycle of references to this Watch, with which its temporary folder goes
        run = Run(
            layout=self.layout,
            trajectory=self.trajectory.window(first, last),
            epochs=self.epochs,
            steps_per_epoch=self.steps_per_epoch,
            device=device,
            rng=lambda purpose: generator(seed, f"method/{purpose}"),
            **probes,
        )
        self.method.begin(run)

    def _loss_at(self, theta_N: Tensor) -> float:
        """The loss that the user gave, at these weights."""
        assert self._probe_loss is not None
        with undisturbed(self.model), kept(self.model), torch.no_grad():
            load_weights(self.model, theta_N)
            return float(self._probe_loss(self.model.eval()))

    def _snapshot(self, t: int, step: int) -> Snapshot:
        persistent = self.model.state_dict().keys()
        buffers: Buffers = {name: b.detach() for name, b in self.model.named_buffers() if name in persistent}
        if t == 0 and step == 0:
            buffers = {name: buffer.clone() for name, buffer in buffers.items()}
        return Snapshot(t, step, weights_of(self.model), buffers)

    def _show_initial(self) -> None:
        if self._initial is not None:
            initial, self._initial = self._initial, None
            self._store(initial)
            self.method.observe(initial)

    def _store(self, snapshot: Snapshot) -> None:
        """Keep the snapshot of an epoch where the observer reads it again."""
        if self.needs is not None and self.needs[0] <= snapshot.t <= self.needs[1]:
            write_snapshot(self.folder, snapshot)
            self.trajectory.extend(snapshot.t)

    def _packed(self, t: int) -> dict[str, Any]:
        found = read_snapshot(self.folder, t, torch.device("cpu"))
        return {"t": found.t, "step": found.step, "theta_N": found.theta_N, "buffers": dict(found.buffers)}
