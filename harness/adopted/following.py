"""A method on an adopted run, outside of any suite: what it proposes after each snapshot."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from harness.checkpoints.runs import AdoptedRun
from harness.checkpoints.trajectory import AdoptedTrajectory
from harness.config import ConfigError, nearest
from harness.method import Method, Observer, Proposal, Reconstruction, Run
from harness.planning.adopted import check_replays
from harness.planning.compose import available, load_yaml
from harness.planning.methods import FittedMethod, make_method, resolved_method
from harness.randomness import generator


def fitted(
    name: str, run: AdoptedRun, values: Mapping[str, Any] | None = None, folders: Collection[Path] = ()
) -> FittedMethod:
    """A method's preset with other `values`, for a run's snapshots; ConfigError where it is unknown or does not fit."""
    presets = available("method", folders)
    if name not in presets:
        raise ConfigError(f"method: no preset named {name!r}{nearest(name, presets)}")
    own = load_yaml(presets[name])[name] | dict(values or {})
    found = resolved_method(name, own, run.epochs)
    check_replays(found, run)
    return found


class Following:
    """A method that follows a run; `proposals` may be asked for once."""

    def __init__(self, method: FittedMethod, run: AdoptedRun, device: torch.device) -> None:
        self.method: Method = make_method(method.config)
        self.run = run
        self.trajectory = AdoptedTrajectory(run, device)
        first, last = (0, -1) if method.needs is None else method.needs
        self._about = Run(
            layout=run.layout,
            trajectory=self.trajectory.window(first, last),
            epochs=run.epochs,
            steps_per_epoch=run.steps_per_epoch,
            device=device,
            rng=lambda purpose: generator(run.seed, f"method/{purpose}"),
        )

    def proposals(self, ts: Collection[int]) -> Iterator[tuple[int, Proposal | None]]:
        """What it proposes at each t of `ts`, in order; None stands for the run's own weights."""
        if isinstance(self.method, Reconstruction):
            self.method.fit(self._about)
            for t in sorted(ts):
                yield t, self.method.reconstruct(t)
            return
        assert isinstance(self.method, Observer)
        self.method.begin(self._about)
        trajectory = AdoptedTrajectory(self.run, self.trajectory.device)
        for place, t in enumerate(self.run.ts):
            self.trajectory.rewind(t)
            self.method.observe(trajectory[place])
            if t in ts:
                yield t, self.method.propose()
        self.trajectory.rewind(self.run.epochs)
