"""What clients keep between their rounds, held so that what is the same for many is there once.

Clients that hear the same keep the same: of equal tensors one stays, in memory and in what is stored.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.federated.client import ClientState
from harness.method import State


class ClientStates:
    """The state of every client that has taken part."""

    def __init__(self) -> None:
        self._states: dict[int, ClientState] = {}
        self._last: dict[str, Tensor] = {}
        """the tensor that a client kept last, by where it lies in its state"""

    def of(self, k: int) -> ClientState:
        """What client k kept; nothing where it never took part."""
        return self._states.get(k, ClientState())

    def keep(self, k: int, state: ClientState) -> None:
        if state.method or state.optimizer is not None:
            method = self._shared(state.method, "method")
            self._states[k] = ClientState(method, self._shared(state.optimizer, "optimizer"))

    def _shared(self, value: Any, where: str) -> Any:
        """The value, in which tensors that equal those kept last in their place are these."""
        if isinstance(value, Tensor):
            last = self._last.get(where)
            if last is not None and last.dtype == value.dtype and torch.equal(last, value):
                return last
            self._last[where] = value
            return value
        if isinstance(value, dict):
            return {name: self._shared(inner, f"{where}/{name}") for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._shared(inner, f"{where}/{place}") for place, inner in enumerate(value))
        return value

    def state_dict(self) -> State:
        """Every tensor once, and the states with the places of theirs."""
        tensors: list[Tensor] = []
        places: dict[int, int] = {}

        def placed(value: Any) -> Any:
            if isinstance(value, Tensor):
                if id(value) not in places:
                    places[id(value)] = len(tensors)
                    tensors.append(value)
                return {"tensor": places[id(value)]}
            if isinstance(value, dict):
                return {"mapping": [[name, placed(inner)] for name, inner in value.items()]}
            if isinstance(value, list | tuple):
                return {type(value).__name__: [placed(inner) for inner in value]}
            return {"value": value}

        states = {k: [placed(one.method), placed(one.optimizer)] for k, one in sorted(self._states.items())}
        return {"tensors": tensors, "states": states}

    def load_state_dict(self, state: State) -> None:
        tensors = state["tensors"]

        def read(value: Any) -> Any:
            ((kind, content),) = value.items()
            if kind == "tensor":
                return tensors[content]
            if kind == "mapping":
                return {name: read(inner) for name, inner in content}
            if kind in ("list", "tuple"):
                return (list if kind == "list" else tuple)(map(read, content))
            return content

        self._states = {k: ClientState(*map(read, one)) for k, one in state["states"].items()}
        self._last = {}
