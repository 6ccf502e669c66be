"""What is masked, and that nothing else is."""

import json

import pytest

from harness.storage.masking import masked, masked_text
from harness.storage.store import Store

KEY = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture(autouse=True)
def variables(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "wandb-of-mine-0123")
    monkeypatch.setenv("DB_PASSWORD", "correct horse battery")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "parallelism-is-no-secret")
    monkeypatch.setenv("SORT_KEY", "short")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("key wandb-of-mine-0123 refused", "key *** refused"),
        ("(correct horse battery)", "(***)"),
        (f"machine x password {KEY}", "machine x password ***"),
        (f"local-{KEY}", "***"),
        ("at https://me:hidden@host:8080/x?a=b", "at https://***@host:8080/x?a=b"),
        ("--x.api_key=abc y=1", "--x.api_key=*** y=1"),
        # and these stay
        ("parallelism-is-no-secret, short", "parallelism-is-no-secret, short"),
        ("a" * 64, "a" * 64),
        ("https://host/a@b", "https://host/a@b"),
        ("epochs=3 method.cmd_online.modes=20", "epochs=3 method.cmd_online.modes=20"),
    ],
)
def test_texts(text, expected):
    assert masked_text(text) == expected


def test_nested_values():
    value = {
        "api_key": "x",
        "hub": {"token": "y", "num_tokens": 3, "class_token": True, "password": None},
        "cell_key": "0123456789abcdef0123",
        "base_key": "0123",
        "key": "kept",
        "list": [KEY, 1.5, ("correct horse battery", None)],
    }
    assert masked(value) == {
        "api_key": "***",
        "hub": {"token": "***", "num_tokens": 3, "class_token": True, "password": None},
        "cell_key": "0123456789abcdef0123",
        "base_key": "0123",
        "key": "kept",
        "list": ["***", 1.5, ["***", None]],
    }


def test_records_and_plans_hold_none(tmp_path):
    """A record is sealed over what it says, so it reads back."""
    store = Store(tmp_path)
    record = {"cell_key": "c0", "status": "failed", "reason": f"ValueError: {KEY}", "config": {"token": "abc"}}
    store.write_record(record, [])
    store.write_plan({"suite": "mine", "command": "traindyn run 'x=https://me:hidden@host'"})
    assert store.record("c0")["reason"] == "ValueError: ***"
    assert store.record("c0")["config"] == {"token": "***"}
    plan = json.loads((tmp_path / "suites/mine/plan.json").read_text())
    assert plan["command"] == "traindyn run 'x=https://***@host'"
