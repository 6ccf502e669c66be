"""Federated CMD: weights that follow the reference of their mode are neither sent nor averaged.

Brokman et al., Enhancing Neural Training via a Correlated Dynamics Model (ICLR 2024), whose part on federated learning
calls itself preliminary and leaves open who fits what and how bytes are counted; this is our reading of it. The server
fits embedded CMD (`cmd.embedded`) to its own weights, round by round. Where a window closes it embeds weights and sends
their coefficients to every client once. Clients train under the embedding's rule, and send all weights but the
embedded. Averaging commutes with the constraint, which is affine, so the server puts the embedded weights where the
averaged references say. A client is also sent which weights the references are, before its first window.

Shape suffixes: N trainable weights, F those that are not embedded, E embedded ones, M modes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import pandas as pd
import torch
from torch import Tensor

from baselines.cmd.embedded import WINDOW_COLUMNS, check_embedded
from baselines.cmd.embedded_choice import Movement
from baselines.cmd.embedded_rules import Embedding, Places, Rule, optimizer_state
from baselines.cmd.federated import Followers, GlobalFit, Window
from baselines.parameters import check_choice
from baselines.warmup import PercentOf, branch_after_warmup
from harness.method import (
    Branch,
    Client,
    Exchange,
    Federation,
    Hook,
    Payload,
    Session,
    State,
    Upload,
    weighted_mean,
)

Coefficients = Literal["sent", "derived"]
MOST_MODES = 256
"""that a byte names"""


@dataclass(eq=False)
class FedCMD(Exchange):
    """Embedded CMD on a federation, from the end of the base's warm-up of F + 1 rounds on, F = `warmup`.

    The parameters are embedded CMD's. `coefficients`: `sent` by the server, or `derived` by every client from the
    averages that it hears, which costs no bytes, takes every client in every round, and begins at the first one, since
    a client has to hear the warm-up. ValueError where modes is below 1, above samples or above 256, warmup below 2 or
    not below epochs - 1, every below 1 or without a round to embed at before the last, percent not in (0, 100], a
    choice is not known, or coefficients are derived where clients miss rounds.
    """

    modes: int = 10
    samples: int = 1000
    warmup: int = 20
    every: int = 10
    percent: float = 10.0
    percent_of: PercentOf = "all"
    rule: Rule = "projected"
    movement: Movement = "coefficients"
    coefficients: Coefficients = "sent"

    def __post_init__(self) -> None:
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "coefficients"}
        check_embedded(**own)
        if self.modes > MOST_MODES:
            raise ValueError(f"modes must be at most {MOST_MODES}, got {self.modes}")
        check_choice("coefficients", self.coefficients, get_args(Coefficients))

    @property
    def derived(self) -> bool:
        return self.coefficients == "derived"

    def check(self, federation: Federation, optimizer: str, params: Mapping[str, Any]) -> None:
        if self.derived and federation.partial:
            raise ValueError(
                f"coefficients must be sent where {federation.per_round} of {federation.clients} clients take part in "
                "a round, got 'derived'"
            )

    def branch(self, epochs: int) -> Branch:
        branch = branch_after_warmup(self.warmup, epochs, self.every)
        return Branch(start=0, prefix=0, epochs=epochs) if self.derived else branch

    def needs(self, epochs: int) -> tuple[int, int]:
        prefix = self.branch(epochs).prefix
        return (0, 0) if self.derived else (1, prefix)

    def memory_floats(self, N: int) -> int:
        """Mean, covariance, last window's two coefficients, labels and masks, and where the weights lie that are not
        embedded, in int64; an embedded weight holds as much."""
        held = (9 if self.movement == "scale_free" else 8) * N
        return held + (self.warmup + 1) * N if self.derived else held

    def _fit(self) -> GlobalFit:
        own = self.modes, self.samples, self.warmup, self.every, self.percent, self.percent_of, self.movement
        return GlobalFit(*own)

    def begin(self, session: Session) -> None:
        self.session = session
        self.fit = self._fit()
        self.followers: Followers | None = None
        self.windows: list[Window] = []
        self.heard: dict[int, int] = {}
        """windows that every client was sent"""
        self.closed: list[dict[str, float]] = []
        if self.derived:
            self.fit.start(session.theta_N)
        else:
            warmup = session.trajectory.window(1, self.warmup + 1)
            self.fit.fix(warmup, session.layout, session.moving_N, session.rng("cmd/sample"))
        self.unplaced_F = session.theta_N.clone()
        """what clients that derive are sent: all that was not embedded before the last window closed, as averaged"""

    def down(self, k: int, theta_N: Tensor) -> Payload:
        if self.derived:
            return {"theta_F": self.unplaced_F}
        sent = self.heard.get(k, 0)
        self.heard[k] = len(self.windows)
        payload: dict[str, Tensor] = {"theta_F": self._without_followers(theta_N)}
        if sent == 0 and self.windows:
            payload["reference_M"] = self.fit.reference_M.int()
        for number, window in enumerate(self.windows[sent:]):
            new_N = torch.zeros_like(theta_N, dtype=torch.bool).index_fill_(0, window.place, True)
            of_window = {"new_N": new_N, "a": window.a, "wbar": window.wbar, "mode": window.mode, "mu_M": window.mu_M}
            payload |= {f"{number}/{name}": tensor for name, tensor in of_window.items()}
        return payload

    def _without_followers(self, theta_N: Tensor) -> Tensor:
        """The weights that are not embedded."""
        return theta_N if self.followers is None else theta_N.index_select(0, self.followers.free(len(theta_N)))

    def start(self, client: Client, payload: Payload) -> Tensor:
        self.new: list[Window] = []
        kept = client.state.get("followers")
        self.followers = None if kept is None else Followers(**kept)
        theta_N = self._derive(client, payload["theta_F"]) if self.derived else self._receive(client, payload)
        if self.followers is not None and self.new:
            client.state["followers"] = self.followers.state_dict()
        return theta_N

    def _receive(self, client: Client, payload: Payload) -> Tensor:
        """The weights, after the windows that come with them."""
        if "reference_M" in payload:
            self.followers = Followers.none(payload["reference_M"].long())
        while f"{(number := len(self.new))}/new_N" in payload:
            a, wbar, mode, mu_M = (payload[f"{number}/{name}"] for name in ("a", "wbar", "mode", "mu_M"))
            self._take(Window(torch.nonzero(payload[f"{number}/new_N"]).squeeze(1), a, wbar, mode, mu_M))
        return self._placed(payload["theta_F"], client.layout.N)

    def _derive(self, client: Client, theta_F: Tensor) -> Tensor:
        """The weights, after the window that they close."""
        fit = self._fit()
        theta_N = self._placed(theta_F, client.layout.N)
        if client.t == 0:
            fit.start(theta_N)
        else:
            fit.load_state_dict(client.state["fit"])
            found = fit.see(theta_N, client.t, False, client.layout, client.rng("cmd/sample"))
            if found is not None:
                self.followers = self.followers or Followers.none(fit.reference_M)
                self._take(found[0])
                theta_N = self.followers.place(theta_N)
        client.state["fit"] = fit.state_dict()
        return theta_N

    def _take(self, window: Window) -> None:
        assert self.followers is not None
        self.followers.add(window)
        self.new.append(window)

    def _placed(self, theta_F: Tensor, N: int) -> Tensor:
        """All weights, from those that are not embedded."""
        if self.followers is None:
            return theta_F
        theta_N = torch.zeros(N, device=theta_F.device).scatter_(0, self.followers.free(N), theta_F)
        return self.followers.place(theta_N)

    def hooks(self, client: Client) -> tuple[Hook, Hook]:
        if self.followers is None:
            return None, None
        embedding = Embedding(client.parameters, client.layout, self.followers.reference_M, client.optimizer)
        known = ("index_E", "a_E", "wbar_E", "group_E", "mu_G")
        embedding.load_state_dict({name: getattr(self.followers, name) for name in known})
        for window in self.new:  # a kept optimizer knows nothing more of what it no longer trains
            places = Places(client.layout, window.place)
            for tensors in optimizer_state(client.optimizer, client.parameters):
                places.put(tensors, torch.zeros_like(window.a))
        return (lambda: embedding.after_backward(self.rule)), (lambda: embedding.after_step(self.rule))

    def up(self, client: Client) -> Payload:
        return {"theta_F": self._without_followers(client.theta_N)}

    def merge(self, uploads: Iterable[Upload], theta_N: Tensor) -> Tensor:
        mean_F = weighted_mean((upload.weight, upload.payload["theta_F"]) for upload in uploads).float()
        return self._placed(mean_F, len(theta_N))

    def after_round(self, theta_N: Tensor) -> Tensor:
        session, t = self.session, self.session.t + 1
        self.unplaced_F = self._without_followers(theta_N)
        found = self.fit.see(theta_N, t, t == session.epochs, session.layout, session.rng("cmd/sample"))
        if found is None:
            return theta_N
        window, largest = found
        self.windows.append(window)
        self.followers = self.followers or Followers.none(self.fit.reference_M)
        self.followers.add(window)
        values = (t, len(window.place), self.fit.embedded, self.fit.trainable_fraction, largest)
        self.closed.append(dict(zip(WINDOW_COLUMNS, values, strict=True)))
        return self.followers.place(theta_N)

    def scalars(self) -> dict[str, float]:
        own = {"trainable_fraction": self.fit.trainable_fraction, "embedded": float(self.fit.embedded)}
        return own if self.fit.report is None else {**own, **self.fit.report.scalars()}

    def tables(self) -> dict[str, pd.DataFrame]:
        """The modes with the weights embedded in each, their share per layer, and one row per window."""
        if self.fit.report is None:
            return {}
        tables = self.fit.report.tables(self.session.layout)
        modes = tables["modes"]
        group_E = torch.empty(0, dtype=torch.int64) if self.followers is None else self.followers.group_E.cpu().long()
        modes["embedded"] = torch.bincount(group_E % len(modes), minlength=len(modes)).numpy()
        return {**tables, "windows": pd.DataFrame(self.closed, columns=list(WINDOW_COLUMNS))}

    def state_dict(self) -> State:
        return {
            "fit": self.fit.state_dict(),
            "followers": None if self.followers is None else self.followers.state_dict(),
            "windows": [tuple(tensor.clone() for tensor in window) for window in self.windows],
            "heard": dict(self.heard),
            "closed": [dict(row) for row in self.closed],
            "unplaced_F": self.unplaced_F.clone(),
        }

    def load_state_dict(self, state: State) -> None:
        self.fit.load_state_dict(state["fit"])
        self.followers = None if state["followers"] is None else Followers(**state["followers"])
        self.windows = [Window(*window) for window in state["windows"]]
        self.heard, self.closed = dict(state["heard"]), [dict(row) for row in state["closed"]]
        self.unplaced_F = state["unplaced_F"].clone()
