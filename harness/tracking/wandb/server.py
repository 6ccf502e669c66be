"""What a W&B server holds, asked directly: whether it answers at all, and how far it has which runs.

wandb itself goes on trying for minutes where a server is away. These requests end after seconds, so that no command
hangs, and one of them asks about a hundred runs.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from harness.tracking.tracker import RunState

SECONDS = 10
"""that one request may take"""
PAUSES = (0.5, 2.0, 5.0)
"""seconds between the attempts of a request that may be repeated"""
PAGE = 100

VIEWER = "query TraindynViewer { viewer { entity username } }"
RUNS = """query TraindynRuns($entity: String, $project: String!, $filters: JSONString!, $first: Int!) {
  project(name: $project, entityName: $entity) {
    runs(filters: $filters, first: $first) {
      edges { node { name historyLineCount historyTail summaryMetrics tags } }
    }
  }
}"""


class Unavailable(Exception):
    """The server did not answer, or refused."""


@dataclass(frozen=True)
class Server:
    """A W&B server with credentials; `key` None: only wandb itself knows how to log in, so nothing is asked."""

    url: str
    key: str | None

    def ask(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL answer; Unavailable of one line without any secret."""
        token = base64.b64encode(f"api:{self.key}".encode()).decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {token}"}
        body = json.dumps({"query": query, "variables": variables}).encode()
        try:
            with urlopen(Request(f"{self.url}/graphql", body, headers), timeout=SECONDS) as answer:
                found = json.loads(answer.read())
        except HTTPError as error:
            raise Unavailable(f"it answers {error.code} {error.reason}") from error
        except (OSError, ValueError) as error:
            raise Unavailable(f"it does not answer ({getattr(error, 'reason', None) or error})") from error
        if not isinstance(found, dict) or found.get("errors") or not isinstance(found.get("data"), dict):
            raise Unavailable("it answers without data")
        data: dict[str, Any] = found["data"]
        return data

    def default_entity(self) -> str | None:
        """The key's own entity, and thereby whether the server answers and knows the key; Unavailable."""
        if self.key is None:
            return None
        viewer = self.ask(VIEWER, {}).get("viewer")
        if not viewer:
            raise Unavailable("it does not know the API key")
        entity: str | None = viewer.get("entity")
        return entity

    def states(self, entity: str | None, project: str, run_ids: Iterable[str]) -> dict[str, RunState]:
        """What it holds of these runs; Unavailable after several attempts."""
        wanted, found = list(run_ids), {}
        if self.key is None:
            return {}
        for start in range(0, len(wanted), PAGE):
            filters = json.dumps({"name": {"$in": wanted[start : start + PAGE]}})
            variables = {"entity": entity, "project": project, "filters": filters, "first": PAGE}
            answer = self._ask_again(RUNS, variables).get("project")
            for edge in answer["runs"]["edges"] if answer else ():
                found[edge["node"]["name"]] = _state(edge["node"])
        return found

    def _ask_again(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        for pause in PAUSES:
            try:
                return self.ask(query, variables)
            except Unavailable:
                time.sleep(pause)
        return self.ask(query, variables)


def _state(node: Mapping[str, Any]) -> RunState:
    summary = json.loads(node.get("summaryMetrics") or "{}")
    tail = json.loads(node.get("historyTail") or "[]")
    last = json.loads(tail[-1]) if tail else None
    count = int(node.get("historyLineCount") or 0)
    if last is not None and "epoch" not in last:
        last["epoch"] = last.get("_step", count - 1)
    return RunState(count, last, summary.get("record"), tuple(node.get("tags") or ()))
