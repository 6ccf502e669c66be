"""Orders and answers as records of Flower's: tensors by their bytes, all else as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from harness.federated.client import Answer, ClientState, Order
from harness.storage.tensors import pack, unpack

BYTES = "bytes"
"""how an array's bytes hold a tensor: in C order"""


def _arrays(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    return ArrayRecord({name: _array(tensor) for name, tensor in tensors.items()})


def _array(tensor: Tensor) -> Array:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    data = flat.view(torch.uint8).numpy().tobytes()
    return Array(dtype=str(tensor.dtype).removeprefix("torch."), shape=tuple(tensor.shape), stype=BYTES, data=data)


def _tensors(record: ArrayRecord) -> dict[str, Tensor]:
    return {name: _tensor(array) for name, array in record.items()}


def _tensor(array: Array) -> Tensor:
    kind = getattr(torch, array.dtype, None)
    if array.stype != BYTES or not isinstance(kind, torch.dtype):
        raise ValueError(f"an array must hold a tensor's bytes, got {array.stype} of {array.dtype}")
    raw = torch.frombuffer(bytearray(array.data), dtype=torch.uint8) if array.data else torch.empty(0).byte()
    return raw.view(kind).reshape(tuple(array.shape))


def _records(payload: Mapping[str, Tensor], state: ClientState, said: dict[str, Any]) -> RecordDict:
    tensors, text = pack({"method": state.method, "optimizer": state.optimizer})
    said = {**said, "state": text}
    return RecordDict(
        {"payload": _arrays(payload), "state": _arrays(tensors), "said": ConfigRecord({"json": json.dumps(said)})}
    )


def _parts(records: RecordDict) -> tuple[dict[str, Tensor], ClientState, dict[str, Any]]:
    said = json.loads(records["said"]["json"])
    state = unpack(_tensors(records["state"]), said.pop("state"))
    return _tensors(records["payload"]), ClientState(state["method"], state["optimizer"]), said


def order_records(order: Order, work: bytes) -> RecordDict:
    """An order, with what its client must know beside."""
    records = _records(order.payload, order.state, {"k": order.k, "t": order.t})
    records["work"] = ConfigRecord({"pickle": work})
    return records


def read_order(records: RecordDict) -> tuple[Order, bytes]:
    """The inverse of `order_records`."""
    payload, state, said = _parts(records)
    return Order(said["k"], said["t"], payload, state), records["work"]["pickle"]


def answer_records(answer: Answer) -> RecordDict:
    """A client's answer."""
    said = {name: getattr(answer, name) for name in ("k", "row", "counts", "seconds", "diverged")}
    return _records(answer.payload, answer.state, said)


def failure_records(text: str) -> RecordDict:
    """In place of an answer: what a client failed with."""
    return RecordDict({"said": ConfigRecord({"json": json.dumps({"failed": text})})})


def read_answer(records: RecordDict) -> Answer:
    """The inverse of `answer_records`; RuntimeError, with what the client failed with, where there is no answer."""
    if "payload" not in records:
        raise RuntimeError(json.loads(records["said"]["json"])["failed"])
    payload, state, said = _parts(records)
    return Answer(payload=payload, state=state, **said)
