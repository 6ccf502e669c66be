"""Clients in processes beside this one: orders out, answers back in the order of the clients, whoever is done first.

Processes are forked, so that each has the images and the libraries at once, and end with this one. A client that fails
or whose process is lost is asked once more, since what it does follows from its order alone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import torch

from harness.federated.client import Answer, ClientSide, Order
from harness.validation import reason

if TYPE_CHECKING:
    from multiprocessing.context import ForkProcess

Say = Callable[[str], object]


class ClientFailed(Exception):
    """A client failed twice in one round."""


class Lost(Exception):
    """The process of a client ended before its answer."""


def may_fork() -> bool:
    """Whether clients may have processes of their own: torch's threads and a GPU's driver do not outlive a fork."""
    forks = "fork" in multiprocessing.get_all_start_methods()
    return forks and torch.get_num_threads() == 1 and not torch.cuda.is_initialized()  # type: ignore[no-untyped-call]


class Here:
    """Clients one after the other in this process."""

    def __init__(self, side: ClientSide, say: Say) -> None:
        self._side = side
        self._say = say

    def answers(self, orders: Iterable[Order]) -> Iterator[Answer]:
        for order in orders:
            try:
                yield self._side.train(order)
            except Exception as error:
                self._say(asked_again(order, error))
                try:
                    answer = self._side.train(order)
                except Exception as again:
                    raise failed(order, again) from again
                yield answer

    def close(self) -> None:
        pass


def asked_again(order: Order, error: BaseException) -> str:
    return f"client {order.k} failed in round {order.t + 1} and is asked again: {reason(error)}"


def failed(order: Order, error: BaseException) -> ClientFailed:
    return ClientFailed(f"client {order.k} failed twice in round {order.t + 1}: {reason(error)}")


@dataclass
class _Process:
    """One that trains clients."""

    process: ForkProcess
    pipe: Connection
    order: Order | None = None

    def ask(self, order: Order) -> None:
        self.order = order
        with contextlib.suppress(OSError):  # a process that is gone is found so when its answer is asked for
            self.pipe.send_bytes(pickle.dumps(order))

    def answer(self) -> Answer:
        """The client's; what it raised is raised here, and `Lost` where there is none."""
        self.order = None
        try:
            found = pickle.loads(self.pipe.recv_bytes())
        except (EOFError, OSError) as error:
            raise Lost("its process is gone") from error
        if isinstance(found, BaseException):
            raise found
        answer: Answer = found
        return answer


class Beside:
    """Clients in so many processes beside this one, at work at once."""

    def __init__(self, side: ClientSide, count: int, say: Say) -> None:
        self._side = side
        self._say = say
        self._processes: list[_Process] = []
        for _ in range(count):
            self._processes.append(self._start())

    def _start(self) -> _Process:
        context = multiprocessing.get_context("fork")
        here, there = context.Pipe()
        others = [one.pipe for one in self._processes] + [here]
        process = context.Process(target=_serve, args=(self._side, there, others), daemon=True)
        process.start()
        there.close()
        return _Process(process, here)

    def answers(self, orders: Iterable[Order]) -> Iterator[Answer]:
        """In the order of `orders`, of which as many are under way as there are processes."""
        idle, busy = deque(self._processes), deque[_Process]()
        for order in orders:
            if not idle:
                yield self._answer(one := busy.popleft())
                idle.append(one)
            idle[0].ask(order)
            busy.append(idle.popleft())
        while busy:
            yield self._answer(busy.popleft())

    def _answer(self, process: _Process) -> Answer:
        order = process.order
        assert order is not None
        try:
            return process.answer()
        except Exception as error:
            self._say(asked_again(order, error))
            if isinstance(error, Lost):
                self._replace(process)
            process.ask(order)
            try:
                return process.answer()
            except Exception as again:
                raise failed(order, again) from again

    def _replace(self, process: _Process) -> None:
        """Another one in the place of a process that is gone."""
        process.pipe.close()
        process.process.join()
        self._processes.remove(process)
        started = self._start()
        process.process, process.pipe = started.process, started.pipe
        self._processes.append(process)

    def close(self) -> None:
        for one in self._processes:
            one.pipe.close()
        for one in self._processes:
            one.process.join()
        self._processes.clear()


def _serve(side: ClientSide, pipe: Connection, others: list[Connection]) -> None:
    """A process of clients, until the one that asks is gone; an interrupt is that one's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in others:  # held open here, they would keep a sibling from seeing its end
        other.close()
    orders = deque[Order]()
    come = threading.Semaphore(0)
    threading.Thread(target=_listen, args=(pipe, orders, come), daemon=True).start()
    while True:
        come.acquire()
        order = orders.popleft()
        try:
            answer: Answer | Exception = side.train(order)
        except Exception as error:
            answer = RuntimeError(reason(error))
        pipe.send_bytes(pickle.dumps(answer))


def _listen(pipe: Connection, orders: deque[Order], come: threading.Semaphore) -> None:
    """Take orders; the process ends at once where nobody is left to ask."""
    while True:
        try:
            orders.append(pickle.loads(pipe.recv_bytes()))
        except (EOFError, OSError):
            os._exit(0)
        come.release()
