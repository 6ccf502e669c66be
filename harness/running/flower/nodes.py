"""Flower's nodes as clients: which one is which, orders out, and answers back in the order of the clients."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Iterable, Iterator

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from harness.federated.client import Answer, Order
from harness.federated.elsewhere import Work
from harness.federated.processes import Lost, Say, asked_again, failed
from harness.running.flower.wire import order_records, read_answer

PARTITION = "partition-id"
"""the key of a node's configuration that says which client it is"""
LOOK_SECONDS = 0.05
"""between looks for answers"""
NODES_SECONDS = 0.5
"""between looks for nodes"""


class NodesDiffer(Exception):
    """The nodes that are connected are not the clients."""


class Nodes:
    """The nodes of a Flower grid, one for each of so many clients, waited for `seconds` where some are not there.

    `simulated`: they share processes, and Flower goes on to use one of these that is gone: then this process ends too,
    and its job goes on from the round's start on a simulation with whole ones.
    """

    def __init__(self, grid: Grid, clients: int, seconds: float, simulated: bool) -> None:
        self.simulated = simulated
        self._grid = grid
        self._clients = clients
        self._seconds = seconds
        self._known: dict[int, object] = {}
        """what nodes said they are, by their ids"""
        self.of: dict[int, int] = {}
        """the id of every client's node"""

    def find(self) -> None:
        """Learn which node is which client; NodesDiffer where they are others than 0 to clients - 1, each once."""
        deadline = time.monotonic() + self._seconds
        while True:
            ids = list(self._grid.get_node_ids())
            if new := [node for node in ids if node not in self._known]:
                self._ask(new)
            found = {node: self._known[node] for node in ids if node in self._known}
            if sorted(map(str, found.values())) == sorted(map(str, range(self._clients))):
                self.of = {int(str(client)): node for node, client in found.items()}
                return
            if time.monotonic() >= deadline:
                raise NodesDiffer(self._differ(list(found.values())))
            time.sleep(NODES_SECONDS)

    def _differ(self, found: list[object]) -> str:
        said = ", ".join(sorted(map(str, found))) or "none"
        return f"nodes must be clients 0 to {self._clients - 1} by their {PARTITION}, each once, got {said}"

    def _ask(self, ids: list[int]) -> None:
        messages = [Message(RecordDict(), dst_node_id=node, message_type=MessageType.QUERY) for node in ids]
        for reply in self._grid.send_and_receive(messages, timeout=max(self._seconds, 1.0)):
            if not reply.has_error():
                self._known[reply.metadata.src_node_id] = reply.content["node"][PARTITION]

    def push(self, k: int, records: RecordDict) -> str:
        """Hand records to client k; what its answer is known by. Lost where they could not be handed over."""
        message = Message(records, dst_node_id=self.of[k], message_type=MessageType.TRAIN)
        (pushed,) = self._grid.push_messages([message]) or (None,)
        if pushed is None:
            raise Lost("Flower did not take its order")
        return str(pushed)

    def pull(self, waiting: Iterable[str]) -> Iterable[Message]:
        """The answers that have come of those that are waited for."""
        return list(self._grid.pull_messages(list(waiting)))


class Across:
    """The clients of a base on nodes of Flower's, at work at once as far as Flower has room."""

    def __init__(self, nodes: Nodes, work: Work, say: Say) -> None:
        self._nodes = nodes
        self._work = pickle.dumps(work)
        self._say = say

    def answers(self, orders: Iterable[Order]) -> Iterator[Answer]:
        """In the order of `orders`; a client that fails or whose node is lost is asked once more."""
        waiting: dict[str, Order] = {}
        again: set[int] = set()
        come: dict[int, Answer] = {}
        clients = []
        for order in orders:
            clients.append(order.k)
            self._push(order, waiting, again)
        for k in clients:
            while k not in come:
                replies = self._nodes.pull(waiting)
                for reply in replies:
                    order = waiting.pop(reply.metadata.reply_to_message_id)
                    try:
                        come[order.k] = self._read(reply)
                    except Exception as error:
                        self._ask_again(order, error, waiting, again)
                if not replies:
                    time.sleep(LOOK_SECONDS)
            yield come.pop(k)

    def _push(self, order: Order, waiting: dict[str, Order], again: set[int]) -> None:
        try:
            waiting[self._nodes.push(order.k, order_records(order, self._work))] = order
        except Lost as error:
            self._ask_again(order, error, waiting, again)

    def _ask_again(self, order: Order, error: Exception, waiting: dict[str, Order], again: set[int]) -> None:
        """Of whatever node is this client by now; ClientFailed where it was asked again already, or none is."""
        if order.k in again:
            raise failed(order, error) from error
        again.add(order.k)
        self._say(asked_again(order, error))
        if self._nodes.simulated and isinstance(error, Lost):
            os._exit(1)
        try:
            self._nodes.find()
        except NodesDiffer as differ:
            raise failed(order, differ) from error
        self._push(order, waiting, again)

    def _read(self, reply: Message) -> Answer:
        if reply.has_error():
            gone = "its process is gone"
            raise Lost(gone if self._nodes.simulated else str(reply.error.reason or gone))
        return read_answer(reply.content)

    def close(self) -> None:
        pass
