"""Weights that are no longer trained but follow their reference, under any torch optimizer.

Embedded CMD of Brokman et al. (ICLR 2024). An embedded weight i of the mode with reference x keeps to
w_i = wbar_i + a_i (x - mu), with a, wbar and the reference's mean mu as they were when it was embedded. The published
code trains everything for an epoch and overwrites at its end; here the constraint holds after every optimizer step.
Weights are addressed by their index into theta_N, and read and written in their own tensors, a few at a time: nothing
of the model is moved, whatever its memory format.

Shape suffixes: N weights, E embedded weights in ascending order, P some weights in ascending order, L tensors,
R references in ascending order, M modes in theirs, G groups of weights embedded at once in one mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from harness.method import Layout

Rule = Literal["projected", "chain", "reference"]
RULES: tuple[Rule, ...] = get_args(Rule)

DECOUPLED = (torch.optim.AdamW, torch.optim.Adafactor, torch.optim.Muon)
"""optimizers that decay weights apart from the gradient; others of torch say so in `decoupled_weight_decay`"""

COUNTERS = frozenset({"step", "mu_product", "eta", "mu"})
"""optimizer state that belongs to a tensor as a whole, although a 0-d parameter has its shape"""


class Places:
    """Where the weights `index_P` (ascending, int64) lie in the tensors of `layout`."""

    def __init__(self, layout: Layout, index_P: Tensor) -> None:
        self.index_P = index_P
        ends = torch.searchsorted(index_P.cpu(), torch.tensor([*layout.offsets, layout.N])).tolist()
        self.parts = [
            (tensor, slice(start, stop), index_P[start:stop] - layout.offsets[tensor])
            for tensor, (start, stop) in enumerate(pairwise(ends))
            if stop > start
        ]

    def take(self, tensors: Sequence[Tensor | None], factor_L: Sequence[float] | None = None) -> Tensor:
        """Their values (P,), each times its tensor's factor; 0 where a tensor is None."""
        values_P = torch.empty(len(self.index_P), device=self.index_P.device)
        for tensor, part, local in self.parts:
            source, values = tensors[tensor], values_P[part]
            if source is None:
                values.zero_()
                continue
            torch.index_select(source.detach().reshape(-1).float(), 0, local, out=values)
            if factor_L is not None:
                values.mul_(factor_L[tensor])
        return values_P

    def put(self, tensors: Sequence[Tensor | None], values_P: Tensor) -> None:
        """Overwrite them; where a tensor is None nothing is written."""
        for tensor, part, local in self.parts:
            target = tensors[tensor]
            if target is not None:
                flat = target.detach().reshape(-1)
                flat.scatter_(0, local, values_P[part].to(flat.dtype))  # a quarter of the time of `index_copy_`
                if flat.data_ptr() != target.data_ptr():
                    # another memory format, such as channels_last, of which `flat` is a copy
                    target.detach().copy_(flat.view(target.shape))


def optimizer_state(optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]) -> list[list[Tensor | None]]:
    """Every kind of state that an optimizer keeps per weight (momentum_buffer, exp_avg, ...): one entry per tensor."""
    states: list[Mapping[str, Any]] = [optimizer.state.get(p, {}) for p in parameters]
    kinds = sorted({kind for state in states for kind in state} - COUNTERS)

    def own(state: Mapping[str, Any], kind: str, parameter: nn.Parameter) -> Tensor | None:
        value = state.get(kind)
        return value if isinstance(value, Tensor) and value.shape == parameter.shape else None

    return [[own(state, kind, p) for state, p in zip(states, parameters, strict=True)] for kind in kinds]


def decay_factors(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]
) -> tuple[list[float], list[float]]:
    """Per tensor: what weight decay adds to a gradient per unit of weight, and what it takes off the weight itself."""
    coupled, decoupled = {}, {}
    for group in optimizer.param_groups:
        decay = float(group.get("weight_decay", 0.0))
        apart = group.get("decoupled_weight_decay", isinstance(optimizer, DECOUPLED))
        for parameter in group["params"]:
            # under `maximize` the gradient changes its sign, weight decay does not
            coupled[parameter] = 0.0 if apart else -decay if group.get("maximize", False) else decay
            decoupled[parameter] = float(group["lr"]) * decay if apart else 0.0
    return [coupled.get(p, 0.0) for p in parameters], [decoupled.get(p, 0.0) for p in parameters]


class Embedding:
    """The embedded weights of a model and the rule that a step follows on them.

    `projected`: a normal step on everything, then x <- (x + sum a_i (w_i - b_i)) / v with v = 1 + sum a_i^2, the point
    nearest to the step's among those that keep the constraint. `chain`: the gradient of x becomes
    (g_x + sum a_i g_i) / v, weight decay included; without the division SGD at an unchanged rate diverges.
    `reference`: x has its own gradient only, as in the published code. For plain SGD `chain` and `projected` are one.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], layout: Layout, reference_M: Tensor, optimizer: torch.optim.Optimizer
    ) -> None:
        self.parameters = parameters
        self.layout = layout
        self.optimizer = optimizer
        device = parameters[0].device
        reference_R, order = reference_M.to(device).sort()
        self.references = Places(layout, reference_R)
        self.rank_M = order.argsort()
        self._set(
            index_E=torch.empty(0, dtype=torch.int64, device=device),
            a_E=torch.empty(0, device=device),
            wbar_E=torch.empty(0, device=device),
            group_E=torch.empty(0, dtype=torch.int32, device=device),
            mu_G=torch.empty(0, dtype=torch.float64, device=device),
        )

    def _set(self, index_E: Tensor, a_E: Tensor, wbar_E: Tensor, group_E: Tensor, mu_G: Tensor) -> None:
        self.places = Places(self.layout, index_E)
        self.a_E, self.wbar_E, self.group_E, self.mu_G = a_E, wbar_E, group_E, mu_G
        self.rank_G = self.rank_M.repeat(len(mu_G) // len(self.rank_M))
        self.v_R = 1 + self._pull(a_E)
        self.pending_R = torch.zeros_like(self.v_R)

    def __len__(self) -> int:
        return len(self.a_E)

    @property
    def index_E(self) -> Tensor:
        return self.places.index_P

    @torch.no_grad()
    def add(self, index_P: Tensor, a_P: Tensor, wbar_P: Tensor, mode_P: Tensor, mu_M: Tensor) -> None:
        """Embed free weights that are no references, with the coefficients they keep; their optimizer state is zeroed.

        From here on they hold their constraint.
        """
        group_P = mode_P.int() + len(self.mu_G)
        index_E, order = torch.cat([self.index_E, index_P]).sort()
        self._set(
            index_E,
            torch.cat([self.a_E, a_P])[order],
            torch.cat([self.wbar_E, wbar_P])[order],
            torch.cat([self.group_E, group_P])[order],
            torch.cat([self.mu_G, mu_M.to(self.mu_G)]),
        )
        self._zero_state(Places(self.layout, index_P))
        self._overwrite(self._x_R())

    def after_backward(self, rule: Rule) -> None:
        """Between the last backward pass and the step, gradients complete and unscaled."""
        if rule == "projected" or len(self) == 0:
            return
        if rule == "chain":
            self._chain()
        self.places.put([p.grad for p in self.parameters], torch.zeros_like(self.a_E))

    def _chain(self) -> None:
        coupled_L, decoupled_L = decay_factors(self.optimizer, self.parameters)
        for tensor, _, _ in self.references.parts:
            if self.parameters[tensor].grad is None:
                self.parameters[tensor].grad = torch.zeros_like(self.parameters[tensor])
        gradients = [p.grad for p in self.parameters]
        # The optimizer adds the reference's own decay once more, hence it is taken off after the division.
        own_R = self.references.take(self.parameters, coupled_L).double()
        g_R = self.references.take(gradients).double() + own_R
        g_E = self.places.take(gradients) + self.places.take(self.parameters, coupled_L)
        self.references.put(gradients, ((g_R + self._pull(g_E)) / self.v_R - own_R).float())
        own_R = self.references.take(self.parameters, decoupled_L).double()
        self.pending_R = own_R - (own_R + self._pull(self.places.take(self.parameters, decoupled_L))) / self.v_R

    def after_step(self, rule: Rule) -> None:
        """After the optimizer's step: the references where the rule puts them, and everything else after them."""
        if len(self) == 0:
            return
        x_R = self._x_R()
        if rule == "projected":
            residual_E = self.places.take(self.parameters) - self.follow(x_R)
            x_R = self._move(x_R + self._pull(residual_E) / self.v_R)
        elif rule == "chain":
            x_R = self._move(x_R + self.pending_R)
        self._overwrite(x_R)
        if rule != "projected":
            self._zero_state(self.places)

    def follow(self, x_R: Tensor) -> Tensor:
        """The embedded weights (E,) where the references have the values x_R."""
        d_G = (x_R[self.rank_G] - self.mu_G).float()
        return torch.addcmul(self.wbar_E, self.a_E, d_G.index_select(0, self.group_E))

    def _pull(self, values_E: Tensor) -> Tensor:
        """sum a_i values_i over the weights embedded on each reference: (R,) float64."""
        sum_G = torch.zeros_like(self.mu_G).index_add_(0, self.group_E, (self.a_E * values_E).double())
        return torch.zeros(len(self.rank_M), dtype=sum_G.dtype, device=sum_G.device).index_add_(0, self.rank_G, sum_G)

    def _x_R(self) -> Tensor:
        return self.references.take(self.parameters).double()

    def _move(self, x_R: Tensor) -> Tensor:
        """Put the references there; the float32 values that they then have."""
        self.references.put(self.parameters, x_R.float())
        return x_R.float().double()

    def _overwrite(self, x_R: Tensor) -> None:
        self.places.put(self.parameters, self.follow(x_R))

    def _zero_state(self, places: Places) -> None:
        zero_P = torch.zeros(len(places.index_P), device=places.index_P.device)
        for tensors in optimizer_state(self.optimizer, self.parameters):
            places.put(tensors, zero_P)

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of which weights are embedded, and their coefficients."""
        vectors = {"a_E": self.a_E, "wbar_E": self.wbar_E, "group_E": self.group_E, "mu_G": self.mu_G}
        return {"index_E": self.index_E.clone(), **{name: vector.clone() for name, vector in vectors.items()}}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        device = self.index_E.device
        self._set(**{name: vector.to(device, copy=True) for name, vector in state.items()})
