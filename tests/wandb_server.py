"""A W&B server on loopback, as far as runs need one: GraphQL, file stream, file upload, and faults on demand.

It answers what wandb 0.31 asks, and keeps what it is sent as the real one does: history by line number, so that a
line sent twice at the same place is one line, and one sent at another place is two.
"""

import base64
import json
import re
import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

ENTITY = "a-team"
KEY = "0123456789abcdef" * 2 + "01234567"
FAULTS = ("500", "429", "hang", "drip", "reset")


@dataclass
class ServerRun:
    """A run as the server holds it."""

    name: str
    project: str
    display: str = ""
    group: str = ""
    job_type: str = ""
    tags: list = field(default_factory=list)
    notes: str = ""
    config: dict = field(default_factory=dict)
    summary: dict = field(default_factory=dict)
    lines: list = field(default_factory=list)
    """of wandb-history.jsonl, as sent"""
    files: dict = field(default_factory=dict)
    state: str = "running"
    exit_code: int | None = None

    @property
    def rows(self):
        """History without W&B's own columns."""
        rows = [json.loads(line) for line in self.lines]
        return [{k: v for k, v in row.items() if not k.startswith("_")} for row in rows]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, value, code=200):
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _faulty(self, kind):
        """Whether this request was answered by a fault."""
        backend = self.server.backend
        fault = "reset" if backend.gone else backend.next_fault(kind)
        if fault is None:
            return False
        if fault in ("500", "429"):
            self._answer({"error": "on demand"}, int(fault))
            return True
        if fault == "drip":
            # an answer without end, so that nobody who waits for the next byte gives up
            with suppress(OSError):
                self.send_response(200)
                self.send_header("Content-Length", "1000000")
                self.end_headers()
                while not backend.released.wait(0.2):
                    self.wfile.write(b" ")
        if fault == "hang":
            backend.released.wait()
        # an abortive close: the client sees its connection reset
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()
        return True

    def do_POST(self):
        backend, body = self.server.backend, self._body()
        path = urlsplit(self.path).path
        stream = re.fullmatch(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream", path)
        if self._faulty("file_stream" if stream else "graphql"):
            return
        if backend.key_of(self.headers) != KEY:
            self._answer({"errors": [{"message": "invalid API key"}]}, 401)
        elif stream:
            with backend.lock:
                backend.stream(stream[3], json.loads(body))
            self._answer({"exitcode": None, "limits": {}})
        elif path == "/graphql":
            request = json.loads(body)
            with backend.lock:
                self._answer(backend.graphql(request["query"], request.get("variables") or {}))
        else:
            self._answer({"error": path}, 404)

    def do_PUT(self):
        body = self._body()
        if self._faulty("upload"):
            return
        with self.server.backend.lock:
            self.server.backend.uploaded(urlsplit(self.path).path.removeprefix("/storage/"), body)
        self._answer({})

    def do_GET(self):
        path = urlsplit(self.path).path.removeprefix("/storage/")
        data = self.server.backend.storage.get(path)
        self.send_response(200 if data is not None else 404)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        """Clients that go away in mid-request are part of the game."""


class WandbServer:
    """Use as a context manager; `url` is where it listens."""

    def __init__(self):
        self.lock = threading.RLock()
        self.runs = {}
        self.deleted = set()
        self.storage = {}
        self.artifacts = []
        self.operations = []
        """names of GraphQL operations and `file_stream`, in order"""
        self.released = threading.Event()
        self.gone = False
        self._faults = []
        self._http = None
        self._port = 0
        self.start()

    def start(self):
        """Listen, after `stop` again on the same port with all that was there."""
        self.gone = False
        self._http = _Http(("127.0.0.1", self._port), _Handler)
        self._port = self._http.server_address[1]
        self._http.backend = self
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self):
        """Go away: from now on connections are refused, and those that are open are reset at the next request."""
        self.gone = True
        self.released.set()
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def environment(self):
        """What a client's environment must say."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY}

    @staticmethod
    def key_of(headers):
        given = headers.get("Authorization", "")
        return base64.b64decode(given.removeprefix("Basic ")).decode().partition(":")[2]

    # Faults

    def fail(self, fault, where=("graphql", "file_stream", "upload"), times=None):
        """Answer so from now on, the next so many requests (None: until `recover`)."""
        assert fault in FAULTS
        self.released.clear()
        self._faults.append([fault, where, times])

    def recover(self):
        self._faults.clear()
        self.released.set()

    def next_fault(self, kind):
        with self.lock:
            for entry in self._faults:
                fault, where, times = entry
                if kind in where and times != 0:
                    entry[2] = None if times is None else times - 1
                    return fault
        return None

    # File stream and uploads

    def stream(self, name, request):
        self.operations.append("file_stream")
        run = self.runs[name]
        for file, chunk in (request.get("files") or {}).items():
            offset, content = chunk.get("offset", 0), chunk["content"]
            if file == "wandb-history.jsonl":
                assert offset <= len(run.lines), f"a gap in the history of {name}"
                run.lines[offset : offset + len(content)] = content
            elif file == "wandb-summary.json":
                run.summary = json.loads(content[-1])
        if request.get("complete"):
            run.exit_code = request.get("exitcode")
            run.state = "finished" if run.exit_code == 0 else "failed"

    def uploaded(self, path, body):
        self.storage[path] = body
        kind, _, rest = path.partition("/")
        if kind == "runs":
            name, _, file = rest.partition("/")
            self.runs[name].files[file] = body

    # GraphQL

    def graphql(self, query, variables):
        name = re.search(r"(?:query|mutation)\s+(\w+)", query)
        operation = name[1] if name else "?"
        self.operations.append(operation)
        answer = getattr(self, f"_{operation}", None)
        if answer is None:
            return {"errors": [{"message": f"no operation {operation}"}]}
        try:
            return {"data": answer(variables)}
        except LookupError as error:
            return {"errors": [{"message": str(error)}]}

    def _ServerFeaturesQuery(self, _):
        return {"serverInfo": {"features": []}}

    def _Viewer(self, _):
        viewer = {"id": "u1", "entity": ENTITY, "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": viewer}

    _TraindynViewer = _Viewer

    def _node(self, run):
        return {
            "id": f"id-{run.name}",
            "name": run.name,
            "summaryMetrics": json.dumps(run.summary),
            "displayName": run.display,
            "state": run.state,
            "logLineCount": 0,
            "historyLineCount": len(run.lines),
            "eventsLineCount": 0,
            "historyTail": json.dumps(run.lines[-1:]),
            "eventsTail": "[]",
            "config": json.dumps(run.config),
            "tags": run.tags,
            "notes": run.notes,
            "wandbConfig": json.dumps({"t": 1}),
        }

    def _RunResumeStatus(self, v):
        run = self.runs.get(v["name"])
        model = {"id": "p1", "name": v["project"], "entity": {"id": "e1", "name": v["entity"] or ENTITY}}
        return {"model": model | {"bucket": None if run is None else self._node(run)}}

    def _TraindynRuns(self, v):
        wanted = json.loads(v["filters"])["name"]["$in"]
        found = [run for run in self.runs.values() if run.name in wanted and run.project == v["project"]]
        if not any(run.project == v["project"] for run in self.runs.values()):
            return {"project": None}
        return {"project": {"runs": {"edges": [{"node": self._node(run)} for run in found[: v["first"]]]}}}

    def _UpsertBucket(self, v):
        name = v["name"] or v["id"].removeprefix("id-")
        if name in self.deleted:
            raise LookupError(f"run {name} was previously created and deleted")
        inserted = name not in self.runs
        run = self.runs.setdefault(name, ServerRun(name, v["project"]))
        if v.get("state"):
            run.state = v["state"]
        elif not inserted:
            run.state = "running"
        texts = {"display": "displayName", "group": "groupName", "job_type": "jobType", "notes": "notes"}
        for attribute, key in texts.items():
            if v.get(key) is not None:
                setattr(run, attribute, v[key])
        if v.get("tags") is not None:
            run.tags = list(v["tags"])
        if v.get("config"):
            run.config = json.loads(v["config"])
        if v.get("summaryMetrics"):
            run.summary = json.loads(v["summaryMetrics"])
        project = {"id": "p1", "name": run.project, "entity": {"id": "e1", "name": v["entity"] or ENTITY}}
        node = self._node(run) | {"project": project, "sweepName": None, "description": None}
        return {"upsertBucket": {"bucket": node, "inserted": inserted}}

    def _CreateRunFiles(self, v):
        files = [{"name": f, "uploadUrl": f"{self.url}/storage/runs/{v['run']}/{f}"} for f in v["files"]]
        return {"createRunFiles": {"runID": f"id-{v['run']}", "uploadHeaders": [], "files": files}}

    def _MarkRunFilesUploaded(self, _):
        return {"markRunFilesUploaded": {"success": True}}

    def _RunStoppedStatus(self, v):
        return {"project": {"run": {"stopped": False}}}

    # Artifacts

    def _CreateArtifact(self, v):
        given = v["input"]
        same = [a for a in self.artifacts if a["digest"] == given["digest"] and a["name"] == _collection(given)]
        if same:
            state, artifact = "COMMITTED", same[0]
        else:
            state = "PENDING"
            artifact = {
                "id": f"artifact-{len(self.artifacts)}",
                "name": _collection(given),
                "digest": given["digest"],
                "run": given.get("runName"),
                "committed": False,
                "files": {},
                "type": given.get("artifactTypeName"),
            }
            self.artifacts.append(artifact)
        node = {"id": artifact["id"], "state": state, "artifactSequence": {"id": "s", "latestArtifact": None}}
        return {"createArtifact": {"artifact": node | {"digest": given["digest"]}}}

    def _CreateArtifactManifest(self, v):
        file = {"id": "f", "uploadUrl": f"{self.url}/storage/manifests/{v['artifactID']}", "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": f"manifest-{v['artifactID']}", "file": file}}}

    def _UpdateArtifactManifest(self, v):
        artifact = v["artifactManifestID"].removeprefix("manifest-")
        file = {"id": "f", "uploadUrl": f"{self.url}/storage/manifests/{artifact}", "uploadHeaders": []}
        return {"updateArtifactManifest": {"artifactManifest": {"id": v["artifactManifestID"], "file": file}}}

    def _CreateArtifactFiles(self, v):
        edges = []
        for file in v["input"]["artifactFiles"]:
            where = f"artifacts/{file['artifactID']}/{file['name']}"
            node = {
                "storagePath": where,
                "uploadUrl": f"{self.url}/storage/{where}",
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": file["artifactID"]},
            }
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _CommitArtifact(self, v):
        artifact = next(a for a in self.artifacts if a["id"] == v["artifactID"])
        artifact["committed"] = True
        return {"commitArtifact": {"artifact": {"id": artifact["id"], "digest": artifact["digest"]}}}

    def _UseArtifact(self, v):
        return {"useArtifact": {"artifact": {"id": "a"}}}

    def until(self, condition, seconds=600):
        """Wait until a condition on what was sent holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s; operations: {self.operations[-20:]}"
            time.sleep(0.01)


def _collection(given):
    return given["artifactCollectionName"]
