"""What Flower's processes run: `server` takes jobs and runs them, `client` trains the clients that it is sent."""

from __future__ import annotations

import os
import pickle
import threading
import time
from functools import lru_cache
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from harness.federated.client import ClientSide
from harness.federated.elsewhere import Work
from harness.federated.processes import Say
from harness.running.flower.desk import Desk
from harness.running.flower.nodes import PARTITION, Across, Nodes, NodesDiffer
from harness.running.flower.wire import answer_records, failure_records, read_order
from harness.storage.leases import lease_name
from harness.storage.store import Store
from harness.validation import reason

WATCH_SECONDS = 2.0
"""between two looks at whether the command is still there"""

server = ServerApp()
client = ClientApp()


def _serve(grid: Grid, context: Context) -> None:
    """Run jobs, one after the other, until the command that hands them over has no more, or is gone."""
    config = context.run_config
    desk = Desk(Path(str(config["desk"])))
    threading.Thread(target=_leave_with, args=(Path(str(config["results"])), desk), daemon=True).start()
    nodes = Nodes(grid, int(config["clients"]), float(config["seconds"]), bool(config["simulated"]))
    try:
        nodes.find()
    except NodesDiffer as error:
        desk.refuse(str(error))
        return

    def connect(work: Work, say: Say) -> Across:
        return Across(nodes, work, say)

    desk.say_ready()
    while (task := desk.take()) is not None:
        task(connect)


def _leave_with(results: Path, desk: Desk) -> None:
    """End this process, whatever it does, where it is told to or the command that it works for is gone."""
    store, events = Store(results), desk.folder.parents[1]
    while not desk.stopped and store.leases.holder(lease_name(store.root, events)) is not None:
        time.sleep(WATCH_SECONDS)
    os._exit(1)


@lru_cache(maxsize=1)
def _side(work: bytes) -> ClientSide:
    """Clients of a base or a cell; kept, for a process that lives on, until those of another one are asked for."""
    found: Work = pickle.loads(work)
    return found.side()


def _train(message: Message, context: Context) -> Message:
    """The round of one client; in place of its answer what it failed with."""
    try:
        order, work = read_order(message.content)
        records = answer_records(_side(work).train(order))
    except Exception as error:
        records = failure_records(reason(error))
    return Message(records, reply_to=message)


def _say_which(message: Message, context: Context) -> Message:
    """Which client this node is."""
    node = ConfigRecord({PARTITION: context.node_config.get(PARTITION, "none")})
    return Message(RecordDict({"node": node}), reply_to=message)


server.main()(_serve)
client.train()(_train)
client.query()(_say_which)
