"""Commands in processes of their own that need not import the libraries: one server has, and forks them.

A command and the server of its jobs import torch, timm and wandb anew, which costs about eight CPU seconds, more than
what most tests have it do. `python command_server.py SOCKET` imports them once. For each request it forks a process
that has the given arguments, environment, working folder and a session of its own, and runs the installed console
script in it. Also the server of the command's jobs is forked from the command where a new interpreter would be started
for it. Signals, exit codes and the tree of processes are what they would be; what is imported when is not, so tests of
that start the console script themselves.
"""

import atexit
import contextlib
import fcntl
import json
import logging
import os
import runpy
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import weakref
from multiprocessing import util
from pathlib import Path

COMMAND = Path(sys.executable).parent / "traindyn"
PRELOAD = ("harness.cli", "harness.running.jobs", "harness.problem.models", "harness.report.command", "harness.tune")
PRELOAD += (
    "baselines.cmd",
    "baselines.dmd",
    "scipy.cluster.hierarchy",
    "scipy.stats",
    "optuna",
    "wandb",
    "torchvision",
)
LENGTH = struct.Struct("!I")
ADDRESS = "TRAINDYN_TEST_COMMAND_SERVER"


def _received(connection, count):
    parts = b""
    while len(parts) < count:
        if not (part := connection.recv(count - len(parts))):
            raise EOFError
        parts += part
    return parts


# in the server


def _forked_server_of_jobs(spawn):
    """What starts new interpreters for multiprocessing: a server of jobs is forked instead."""

    def spawn_or_fork(path, args, passed):
        args = [os.fsdecode(arg) for arg in args]
        if "multiprocessing.forkserver" not in args[-1]:
            return spawn(path, args, passed)
        if child := os.fork():
            return child
        try:
            kept = sorted({0, 1, 2, *passed})
            for low, high in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
                os.closerange(low + 1, high)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            exec(args[-1], {"__name__": "__server_of_jobs__"})
        except SystemExit:
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        os._exit(1)

    return spawn_or_fork


def _forget_endings():
    """What the server does at its end, such as removing wandb's temporary folder, is not for a forked process to do."""
    atexit._clear()
    weakref.finalize._registry.clear()
    weakref.finalize._registered_with_atexit = False
    atexit.register(logging.shutdown)
    atexit.register(util._exit_function)


def _become(request, streams):
    """In the forked process: what a new interpreter would find."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    if os.isatty(0):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _forget_endings()
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    util.spawnv_passfds = _forked_server_of_jobs(util.spawnv_passfds)
    sys.argv = [str(COMMAND), *request["arguments"]]
    shims = [Path(folder) / "sitecustomize.py" for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    for shim in shims:
        if shim.exists():
            runpy.run_path(str(shim))


def _serve(address):
    """Fork a process for each connection, and tell its pid and its exit code. Comes back in a forked process: True."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    waiting = {}
    while True:
        ready, _, _ = select.select([listener, woken, sys.stdin], [], [])
        if sys.stdin in ready:  # closed: nobody is left to ask
            return False
        if woken in ready:
            os.read(woken, 4096)
            for pid in list(waiting):
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    with waiting.pop(pid) as asked, contextlib.suppress(OSError):
                        asked.sendall(LENGTH.pack(os.waitstatus_to_exitcode(status) & 0xFFFFFFFF))
        if listener in ready:
            asked, _ = listener.accept()
            head, streams, _, _ = socket.recv_fds(asked, LENGTH.size, 3)
            request = json.loads(_received(asked, LENGTH.unpack(head)[0]))
            if not (pid := os.fork()):
                signal.set_wakeup_fd(-1)
                _become(request, streams)
                return True
            for stream in streams:
                os.close(stream)
            waiting[pid] = asked
            asked.sendall(LENGTH.pack(pid))


def _run_and_end():
    """The console script and then the end of its process, as an interpreter ends: threads, handlers, streams. Taking
    apart all that the server has imported, two seconds of CPU for each command, is left out."""
    code = 0
    try:
        runpy.run_path(str(COMMAND), run_name="__main__")
    except SystemExit as end:
        code = 0 if end.code is None else end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except OSError:
        code = 120
    os._exit(code)


def main(address):
    for name in PRELOAD:
        __import__(name)
    if _serve(address):
        _run_and_end()


# in the tests


class Forked:
    """A command of the server's, used like a `subprocess.Popen` with text pipes; or on the terminal of a descriptor."""

    def __init__(self, arguments, folder, environment, terminal=None):
        self.args = [str(COMMAND), *arguments]
        request = json.dumps({"arguments": arguments, "folder": str(folder), "environment": environment}).encode()
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(_address())
        if terminal is not None:
            socket.send_fds(self._connection, [LENGTH.pack(len(request))], [terminal] * 3)
        else:
            self.stdout, out = _pipe()
            self.stderr, err = _pipe()
            with open(os.devnull) as nothing:
                socket.send_fds(self._connection, [LENGTH.pack(len(request))], [nothing.fileno(), out, err])
            os.close(out)
            os.close(err)
        self._connection.sendall(request)
        (self.pid,) = LENGTH.unpack(_received(self._connection, LENGTH.size))
        self.returncode = None

    def poll(self):
        """Its exit code, minus a signal's number where one ended it; None while it runs."""
        return self._ended(0)

    def _ended(self, seconds):
        if self.returncode is None and select.select([self._connection], [], [], seconds)[0]:
            (code,) = struct.unpack("!i", _received(self._connection, LENGTH.size))
            self.returncode = code
            self._connection.close()
        return self.returncode

    def wait(self, timeout=None):
        """Its exit code, once it has ended."""
        if self._ended(timeout) is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def communicate(self, timeout=None):
        """All that it prints, and wait for its end."""
        deadline = None if timeout is None else time.monotonic() + timeout
        said = {}

        def read(stream):
            with stream:
                said[stream] = stream.read()

        readers = [threading.Thread(target=read, args=(stream,), daemon=True) for stream in (self.stdout, self.stderr)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout)
        self.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return said[self.stdout], said[self.stderr]


def _pipe():
    read, write = os.pipe()
    return os.fdopen(read, encoding="utf-8"), write


def start_server():
    """Start the server for this process and those that it starts; what is returned ends it."""
    folder = tempfile.mkdtemp(prefix="traindyn-")
    address = os.environ[ADDRESS] = os.path.join(folder, "commands")
    server = subprocess.Popen([sys.executable, __file__, address], stdin=subprocess.PIPE, start_new_session=True)

    def end():
        server.stdin.close()
        server.wait()
        shutil.rmtree(folder)

    return end


def _address():
    """The socket of the server, which listens once it has imported everything."""
    address = os.environ[ADDRESS]
    while not os.path.exists(address):
        time.sleep(0.05)
    return address


if __name__ == "__main__":
    main(sys.argv[1])
