"""A fault at a chosen moment of a command, whichever of its processes it falls into.

On the command's PYTHONPATH, with FAULT="<what> <at> <k> <counter file>": `at` is `write` (a call of os.fsync or
os.replace below the results folder), `step` (an optimizer step) or `second` (k tenths of a second after the start);
the k-th of all its processes suffers `what`: `kill` (all of the process group), `full` (no space left), `failing` (an
input/output error), `partial` (no space left, with half of the file written) or `hold` (a step waits while there is a
file `<counter file>.held`, which it makes).

With HOLD_IMPORT="<module> <file>" the first process that imports the module waits there while there is `<file>`, which
it makes.

With CONSTANT="<module> <name> <number>" a module's constant has that value in all processes of the command.
"""

import errno
import fcntl
import importlib.abc
import importlib.machinery
import os
import signal
import sys
import threading
import time

ERRORS = {"full": errno.ENOSPC, "failing": errno.EIO, "partial": errno.ENOSPC}


def install(what, at, k, counter):
    def count():
        """How many there were, this one included."""
        with open(counter, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(b".")
            file.flush()
            return os.fstat(file.fileno()).st_size

    def happen(path=None):
        if what == "hold":
            held = counter + ".held"
            open(held, "x").close()
            while os.path.exists(held):
                time.sleep(0.01)
            return
        if what == "kill":
            os.killpg(os.getpgid(0), signal.SIGKILL)
        if what == "partial" and path is not None and os.path.isfile(path):  # not the folder, which is flushed too
            os.truncate(path, os.stat(path).st_size // 2)
        raise OSError(ERRORS[what], os.strerror(ERRORS[what]))

    if at == "second":
        if not os.path.exists(counter):
            open(counter, "ab").close()
            timer = threading.Timer(k / 10, happen)
            timer.daemon = True
            timer.start()
    elif at == "write":
        fsync, replace = os.fsync, os.replace

        def counted_fsync(descriptor):
            if "results" in os.readlink(f"/proc/self/fd/{descriptor}") and count() == k:
                happen(f"/proc/self/fd/{descriptor}" if what == "partial" else None)
            fsync(descriptor)

        def counted_replace(source, target, **more):
            if "results" in str(target) and count() == k:
                happen(source if what == "partial" else None)
            replace(source, target, **more)

        os.fsync, os.replace = counted_fsync, counted_replace
    else:

        def count_steps(optimizer):
            optimizer.register_optimizer_step_post_hook(lambda *_: happen() if count() == k else None)

        when_imported("torch.optim.optimizer", count_steps)


def when_imported(name, after):
    """Have a function called with a module, now or once that is imported."""
    if name in sys.modules:
        after(sys.modules[name])
    else:
        sys.meta_path.insert(0, Finder(name, after))


class Finder(importlib.abc.MetaPathFinder):
    def __init__(self, name, after):
        self.name, self.after = name, after

    def find_spec(self, name, path, target=None):
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            self.after(module)

        spec.loader.exec_module = exec_module
        return spec


if "FAULT" in os.environ:
    given = os.environ["FAULT"].split()
    install(given[0], given[1], int(given[2]), given[3])
if "HOLD_IMPORT" in os.environ:
    held_module, mark = os.environ.pop("HOLD_IMPORT").split()

    def hold_import(_):
        open(mark, "x").close()
        while os.path.exists(mark):
            time.sleep(0.01)

    when_imported(held_module, hold_import)
if "CONSTANT" in os.environ:
    module_name, constant, number = os.environ["CONSTANT"].split()
    when_imported(module_name, lambda module: setattr(module, constant, float(number)))
