"""Adaptive Parameter Freezing: weights that have become stable are neither trained nor sent for a while.

Chen et al., Communication-Efficient Federated Learning with Adaptive Parameter Freezing (ICDCS 2021). A weight is
stable where its moves cancel: the moving average of its moves is small beside that of their sizes. A stable one is
frozen for one check longer than the last time, one that is not for half as long. Aggressive APF also freezes weights
that are not stable, at random and ever more often. A client that missed rounds cannot know the averages: here it is
told what changed since its last one, and what is frozen, by two bitmaps.

Shape suffixes: N trainable weights, A active ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.parameters import check_between, check_bool, check_from, check_whole
from harness.method import Client, Exchange, Hook, Payload, Session, State, Upload, weighted_mean


@dataclass
class Freezing:
    """Which weights are frozen, from the weights after every round alone: the same for everyone who heard them."""

    E_N: Tensor
    """moving average of the moves"""
    A_N: Tensor
    """moving average of their sizes"""
    last_N: Tensor
    """weights at the last check"""
    length_N: Tensor
    wake_N: Tensor
    """the check from which on a weight is active again"""
    active_N: Tensor
    check: int
    threshold: float

    @classmethod
    def start(cls, theta_N: Tensor, threshold: float) -> Freezing:
        zero_N, none_N = torch.zeros_like(theta_N), torch.zeros_like(theta_N, dtype=torch.int32)
        active_N = torch.ones_like(theta_N, dtype=torch.bool)
        return cls(zero_N, zero_N.clone(), theta_N.clone(), none_N, none_N.clone(), active_N, 0, threshold)

    def look(self, theta_N: Tensor, alpha: float, tighten: float, freeze_N: Tensor | None) -> None:
        """One check; of the weights that are not stable, `freeze_N` are frozen too. Frozen ones keep their averages."""
        active_N = self.active_N
        D_N = theta_N - self.last_N
        self.E_N = torch.where(active_N, alpha * self.E_N + (1 - alpha) * D_N, self.E_N)
        self.A_N = torch.where(active_N, alpha * self.A_N + (1 - alpha) * D_N.abs(), self.A_N)
        stable_N = self.E_N.abs() < self.threshold * self.A_N  # a weight that never moved is not
        longer_N = torch.where(stable_N, self.length_N + 1, self.length_N // 2)
        self.length_N = torch.where(active_N, longer_N, self.length_N)
        self.wake_N = torch.where(active_N, self.check + self.length_N + 1, self.wake_N)
        if freeze_N is not None:
            self.wake_N += (active_N & ~stable_N & freeze_N).int()
        self.last_N = torch.where(active_N, theta_N, self.last_N)
        self.check += 1
        self.active_N = self.wake_N <= self.check
        if self.active_N.double().mean() < 1 - tighten:
            self.threshold /= 2

    def state_dict(self) -> State:
        return {name: value.clone() if isinstance(value, Tensor) else value for name, value in vars(self).items()}


@dataclass(eq=False)
class APF(Exchange):
    """APF in rounds: a check every `every` rounds, `alpha` of the averages, `threshold` below which a weight is stable.

    The threshold is halved where more than a share `tighten` is frozen. `aggressive`: a weight that is not stable is
    frozen for one check with probability min(rounds so far / `span`, 1/2). A frozen weight is put back after every
    local step. ValueError where alpha is not between 0 and 1, threshold below 0, tighten not between 0 and 1, or every
    or span below 1.
    """

    alpha: float = 0.99
    threshold: float = 0.05
    every: int = 1
    tighten: float = 0.8
    aggressive: bool = False
    span: int = 2000

    def __post_init__(self) -> None:
        check_between("alpha", self.alpha, 0, 1)
        check_from("threshold", self.threshold, 0)
        check_whole("every", self.every, 1)
        check_between("tighten", self.tighten, 0, 1)
        check_bool("aggressive", self.aggressive)
        check_whole("span", self.span, 1)

    def memory_floats(self, N: int) -> int:
        """Two averages, the weights at the last check, lengths and wake times, and when a weight changed last."""
        return 6 * N + N // 4

    def _look(self, freezing: Freezing, theta_N: Tensor, t: int, of: Session | Client) -> None:
        """What follows from the weights after round t, on whichever side."""
        if (t + 1) % self.every != 0:
            return
        freeze_N = None
        if self.aggressive:
            draws_N = torch.rand(len(theta_N), generator=of.rng(f"apf/{t}")).to(theta_N.device)
            freeze_N = draws_N < min((t + 1) / self.span, 0.5)
        freezing.look(theta_N, self.alpha, self.tighten, freeze_N)

    def begin(self, session: Session) -> None:
        assert session.federation is not None
        self.session = session
        self.partial = session.federation.partial
        self.freezing = Freezing.start(session.theta_N, self.threshold)
        self.sent_N = self.freezing.active_N
        """the weights that were active in the last round"""
        self.changed_N = torch.full_like(self.freezing.wake_N, -1)
        """the last round in which a weight was active"""
        self.heard: dict[int, int] = {}
        """the last round of every client"""

    def down(self, k: int, theta_N: Tensor) -> Payload:
        heard = self.heard.get(k)
        self.heard[k] = self.session.t
        if not self.partial:
            return {"theta_A": theta_N if heard is None else theta_N[self.sent_N]}
        if heard is None:
            return {"theta_A": theta_N, "active_N": self.freezing.active_N}
        changed_N = self.changed_N >= heard
        return {"theta_A": theta_N[changed_N], "changed_N": changed_N, "active_N": self.freezing.active_N}

    def start(self, client: Client, payload: Payload) -> Tensor:
        kept = client.state
        if not kept:
            theta_N = payload["theta_A"]
        else:
            changed_N = payload["changed_N"] if client.federation.partial else kept["freezing"]["active_N"]
            theta_N = kept["theta_N"].masked_scatter(changed_N, payload["theta_A"])
        kept["theta_N"] = theta_N.clone()
        if client.federation.partial:
            self.active_N = payload["active_N"]
            return theta_N
        if "freezing" in kept:
            freezing = Freezing(**kept["freezing"])
            self._look(freezing, theta_N, client.t - 1, client)
        else:
            freezing = Freezing.start(theta_N, self.threshold)
        kept["freezing"] = freezing.state_dict()
        self.active_N = freezing.active_N
        return theta_N

    def hooks(self, client: Client) -> tuple[Hook, Hook]:
        def put_back() -> None:
            with torch.no_grad():
                torch.where(self.active_N, client.theta_N, client.start_N, out=client.theta_N)

        return None, None if bool(self.active_N.all()) else put_back

    def up(self, client: Client) -> Payload:
        return {"theta_A": client.theta_N[self.active_N]}

    def merge(self, uploads: Iterable[Upload], theta_N: Tensor) -> Tensor:
        mean_A = weighted_mean((upload.weight, upload.payload["theta_A"]) for upload in uploads).float()
        return theta_N.masked_scatter(self.freezing.active_N, mean_A)

    def after_round(self, theta_N: Tensor) -> Tensor:
        self.sent_N = self.freezing.active_N
        self.changed_N[self.sent_N] = self.session.t
        self._look(self.freezing, theta_N, self.session.t, self.session)
        return theta_N

    def scalars(self) -> dict[str, float]:
        """The share of the weights that are active in the next round, and the threshold."""
        share = self.freezing.active_N.double().mean().item()
        return {"active_fraction": share, "threshold": self.freezing.threshold}

    def state_dict(self) -> State:
        own = {"sent_N": self.sent_N.clone(), "changed_N": self.changed_N.clone(), "heard": dict(self.heard)}
        return {"freezing": self.freezing.state_dict(), **own}

    def load_state_dict(self, state: State) -> None:
        self.freezing = Freezing(**state["freezing"])
        self.sent_N, self.changed_N, self.heard = state["sent_N"], state["changed_N"].clone(), dict(state["heard"])
