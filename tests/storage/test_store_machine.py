"""The store against a dictionary, under writes, re-reads, damage and folders that come and go (hypothesis)."""

import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from harness.storage.store import Store

KEYS = st.sampled_from(["0a", "1b", "2c"])
VALUES = st.floats(0, 100, width=32)


def record(key, value, generation):
    return {
        "cell_key": key,
        "status": "done",
        "summary": {"val_accuracy": value},
        "generation": generation,
    }


class StoreMachine(RuleBasedStateMachine):
    """`known` is what must be found by any process that looks."""

    @initialize()
    def begin(self):
        self.root = Path(tempfile.mkdtemp())
        self.known = {}
        self.said = []
        self.aside = 0

    def store(self):
        return Store(self.root, self.said.append)

    @rule(key=KEYS, value=VALUES, epochs=st.integers(0, 3))
    def write(self, key, value, epochs):
        rows = [{"epoch": t, "val_accuracy": value / (t + 1)} for t in range(epochs)]
        self.store().write_record(record(key, value, epochs), rows)
        self.known[key] = value, rows

    @rule(key=KEYS, name=st.sampled_from(["record.json", "history.parquet"]), place=st.integers(0, 10_000))
    def damage_one_bit(self, key, name, place):
        """Whatever the bit, the record is set aside, and another write of the key is as good as ever."""
        path = self.root / "cells" / key / name
        if key not in self.known:
            return
        data = bytearray(path.read_bytes())
        data[place % len(data)] ^= 1 << (place % 8)
        path.write_bytes(data)
        before = len(self.said)
        assert self.store().record(key) is None
        assert len(self.said) == before + 1
        assert self.store().record(key) is None
        assert len(self.said) == before + 1
        del self.known[key]
        self.aside += 1

    @rule(key=KEYS, name=st.sampled_from(["record.json", "history.parquet"]), share=st.floats(0, 0.99))
    def cut_off(self, key, name, share):
        path = self.root / "cells" / key / name
        if key not in self.known:
            return
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])
        assert self.store().record(key) is None
        del self.known[key]
        self.aside += 1

    @rule(key=KEYS)
    def half_a_write(self, key):
        """A killed process's history without its record's replacement: the old pair is no pair any more."""
        if key not in self.known:
            return
        (self.root / "cells" / key / "history.parquet").unlink()
        assert self.store().record(key) is None
        del self.known[key]
        self.aside += 1

    @invariant()
    def everyone_finds_what_was_written(self):
        store = self.store()
        for key in ("0a", "1b", "2c"):
            found = store.record(key)
            if key not in self.known:
                assert found is None
                continue
            value, rows = self.known[key]
            assert found["summary"] == {"val_accuracy": value}
            history = store.history(key)
            assert list(history["epoch"]) == [row["epoch"] for row in rows]
            if rows:
                assert list(history["val_accuracy"]) == [row["val_accuracy"] for row in rows]

    @invariant()
    def nothing_is_lost_and_nothing_half_is_left(self):
        assert len(list(self.root.rglob("record.json.corrupt-*"))) == self.aside
        assert not list(self.root.rglob("*.tmp"))

    def teardown(self):
        shutil.rmtree(self.root)


StoreMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
TestStore = StoreMachine.TestCase
