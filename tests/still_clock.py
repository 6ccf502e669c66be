"""A clock of a test's own, for a module that asks for the time."""


class Clock:
    """Stands still unless told otherwise."""

    now = 100.0

    def monotonic(self):
        return self.now


def still_clock(monkeypatch, module):
    """The clock that `module` asks from now on, in place of `time`."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock
