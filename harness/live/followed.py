"""What callbacks follow a training with: several methods by name, each updated at its own cadence."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol, TypeAlias

from torch import nn

from harness.live.checks import check_every
from harness.live.models import check_whole
from harness.weights import undisturbed


class Live(Protocol):
    """What follows a model in training: `Watch`, `OnlineCMD`, every class of `baselines.averages`, or one of yours."""

    def update(self) -> None:
        """Take in the model's present weights."""

    def applied(self, model: nn.Module | None = None) -> contextlib.AbstractContextManager[Any]:
        """A block in which the model has the method's weights; False is given where there are none yet."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


MakeLive: TypeAlias = Callable[[nn.Module], Live]


class Followed:
    """Methods by name, made when training begins.

    One with a `cadence`, as `Watch` has, is updated after every epoch or every optimizer step as this says, and any
    other at `every`: `epoch`, or a number of optimizer steps. ValueError where there is none or one cannot be made.
    """

    def __init__(self, methods: Mapping[str, MakeLive], every: Literal["epoch"] | int) -> None:
        check_every(every)
        if not methods:
            raise ValueError("methods must be at least 1, got none")
        for name, make in methods.items():
            if not isinstance(name, str) or not name or not callable(make):
                raise ValueError(f"methods must map names to functions of the model, got {name!r}: {make!r}")
        self._make, self.every = dict(methods), every
        self.live: dict[str, Live] = {}
        self.steps = 0
        """optimizer steps since training began"""

    def begin(
        self,
        model: nn.Module,
        epochs: int | None,
        steps_per_epoch: int | None,
        state: Mapping[str, Any] | None,
    ) -> None:
        """Make the methods, and have them go on from a state where there is one.

        ValueError where one was made for fewer epochs than are trained, or watches steps and was made for epochs of
        another number of them, None being unknown; where the state is of other methods; and where parameters are
        sharded over processes.
        """
        check_whole(model)
        self.live, self.steps = {name: make(model) for name, make in self._make.items()}, 0
        for name, live in self.live.items():
            planned = getattr(live, "epochs", None)
            if planned is not None and epochs is not None and planned < epochs:
                raise ValueError(f"methods.{name} must be made for at least {epochs} epochs, got {planned}")
            steps = getattr(live, "steps_per_epoch", None)
            if self._cadence(live) != "epoch" and None not in (steps, steps_per_epoch) and steps != steps_per_epoch:
                raise ValueError(f"methods.{name} must be made for {steps_per_epoch} steps per epoch, got {steps}")
        if state is None:
            return
        if state["methods"].keys() != self.live.keys():
            raise ValueError(f"methods must be {', '.join(state['methods'])}, as before, got {', '.join(self.live)}")
        self.steps = state["steps"]
        for name, live in self.live.items():
            live.load_state_dict(state["methods"][name])

    def state_dict(self) -> dict[str, Any]:
        """The state of every method."""
        return {"steps": self.steps, "methods": {name: live.state_dict() for name, live in self.live.items()}}

    def _cadence(self, live: Live) -> Any:
        return getattr(live, "cadence", self.every)

    def after_step(self) -> None:
        """Update what watches steps: one with a `cadence` of its own at every step, others at every so many."""
        self.steps += 1
        for live in self.live.values():
            counts_itself = hasattr(live, "cadence")
            if self._cadence(live) != "epoch" and (counts_itself or self.steps % self._cadence(live) == 0):
                live.update()

    def after_epoch(self) -> None:
        """Update what watches epochs."""
        for live in self.live.values():
            if self._cadence(live) == "epoch":
                live.update()

    @contextlib.contextmanager
    def applied(self, name: str, model: nn.Module) -> Iterator[bool]:
        """A block in which the model has a method's weights, if it proposes any, as the block is told; random streams
        and modes are afterwards what they were."""
        with undisturbed(model), self.live[name].applied(model) as ready:
            yield ready is not False
