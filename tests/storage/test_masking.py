"""What is masked, and that nothing else is."""

import json

import pytest

from harness.storage.masking import ASKED, masked, masked_text, note_asked, secret_values
from harness.storage.store import Store

KEY = "0123456789abcdef" * 2 + "01234567"

HASHES = [
    f"/home/me/.cache/huggingface/hub/models--timm--x/snapshots/{KEY}/model.safetensors",
    f"dataset.image_folder.root=/cache/{KEY}",
    f"token of nobody: /cache/{KEY}/x and snapshots/{KEY}",
    f"/cache/token-{KEY}/x",
    f"C:\\keys\\{KEY}",
    f"model.vit_tiny.kwargs.revision={KEY}",
    f"monkey {KEY}",
    f"commit {KEY}",
    KEY,
    "model.vit_tiny.kwargs.class_token=false",
]
"""names of commits, of folders in caches, and what a secret's name is only a part of"""


@pytest.fixture(autouse=True)
def variables(monkeypatch, tmp_path):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb"))
    monkeypatch.setenv("WANDB_API_KEY", "wandb-of-mine-0123")
    monkeypatch.setenv("DB_PASSWORD", "correct horse battery")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "parallelism-is-no-secret")
    monkeypatch.setenv("SORT_KEY", "short")
    monkeypatch.setenv("DB_PASS", "hunter2x")
    monkeypatch.setenv("PGPASSWORD", "Swordfish1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("key wandb-of-mine-0123 refused", "key *** refused"),
        ("(correct horse battery)", "(***)"),
        (f"machine x password {KEY}", "machine x password ***"),
        (f"local-{KEY}", "***"),
        (f"WANDB_API_KEY={KEY}, 'api-key': '{KEY}'", "WANDB_API_KEY=***, 'api-key': '***'"),
        (f"API key must have 41 characters, got {KEY} or {KEY}", "API key must have 41 characters, got *** or ***"),
        (f"Authorization: Bearer {KEY}.", "Authorization: Bearer ***."),
        (f"wandb login --relogin {KEY}", "wandb login --relogin ***"),
        (f"wandb_v1_{KEY}", "***"),
        ("x.password='a b' y", "x.password=*** y"),
        ("at https://me:hidden@host:8080/x?a=b", "at https://***@host:8080/x?a=b"),
        ("--x.api_key=abc y=1", "--x.api_key=*** y=1"),
        ("postgresql://me:p@ss@host/db, it", "postgresql://***@host/db, it"),
        ("postgresql://me:pa/ss@host/db", "postgresql://***@host/db"),
        ("mysql+pymysql://root:p#w?@host:3306/x", "mysql+pymysql://***@host:3306/x"),
        ("redis://:hidden@host:1/0", "redis://***@host:1/0"),
        (
            "tune.storage=postgresql://host/db?user=me&password=abc&x=1",
            "tune.storage=postgresql://host/db?user=me&password=***&x=1",
        ),
        ("Swordfish1 and hunter2x", "*** and ***"),
        ("DB_PASS=xx PATH=/a:/b", "DB_PASS=*** PATH=/a:/b"),
        ("Authorization: Bearer abc.def-123.", "Authorization: Bearer ***."),
        ("Authorization: Basic bWU6cHc", "Authorization: Basic ***"),
        ("ghp_" + "a1" * 18, "***"),
        ("{'db_password': 'a b', 'x': 1}", "{'db_password': '***', 'x': 1}"),
        ("tracker.api_key must be text, got 'abc'", "tracker.api_key must be text, got ***"),
        # and these stay
        ("https://host:8080/a@b", "https://host:8080/a@b"),
        ("sqlite:////a/b:c@d file:///home/a:b@c git@host:x", "sqlite:////a/b:c@d file:///home/a:b@c git@host:x"),
        ("the bearer of news", "the bearer of news"),
        ("model.x.kwargs.forward_pass=0.5 bypass=3", "model.x.kwargs.forward_pass=0.5 bypass=3"),
        ("parallelism-is-no-secret, short", "parallelism-is-no-secret, short"),
        ("a" * 64, "a" * 64),
        *((text, text) for text in HASHES),
        ("https://host/a@b", "https://host/a@b"),
        ("epochs=3 method.cmd_online.modes=20", "epochs=3 method.cmd_online.modes=20"),
    ],
)
def test_texts(text, expected):
    assert masked_text(text) == expected


def test_what_a_configuration_took_from_the_environment(monkeypatch):
    """A path and a name are no secrets, wherever they came from."""
    values = {"MINE": "Tr0ub4dor&3", "PLACE": "/scratch/of-me/today", "NET": "resnet18"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(ASKED, "")
    text = " ".join(values.values())
    assert masked_text(text) == text
    for name in values:
        note_asked(name)
    assert masked_text(text) == "*** /scratch/of-me/today resnet18"


def test_nested_values():
    value = {
        "api_key": "x",
        "hub": {"token": "y", "num_tokens": 3, "class_token": True, "password": None},
        "cell_key": "0123456789abcdef0123",
        "base_key": "0123",
        "key": "kept",
        "revision": KEY,
        "list": [f"key {KEY}", 1.5, ("correct horse battery", None)],
        "my_keys": [KEY],
        "secret": ["x", "y"],
    }
    assert masked(value) == {
        "api_key": "***",
        "hub": {"token": "***", "num_tokens": 3, "class_token": True, "password": None},
        "cell_key": "0123456789abcdef0123",
        "base_key": "0123",
        "key": "kept",
        "revision": KEY,
        "list": ["key ***", 1.5, ["***", None]],
        "my_keys": ["***"],
        "secret": ["***", "***"],
    }


def test_keys_that_are_stored_for_wandb_are_known(tmp_path):
    """Wherever they stand, even as a part of a path: what netrc and W&B's settings file hold is read as W&B does."""
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {KEY}\n")
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb/settings").write_text(f"[default]\napi_key = local-{KEY[::-1]}\nproject = a project of mine\n")
    assert masked_text(f"ValueError: {KEY}, /x/local-{KEY[::-1]}/y, a project of mine") == (
        "ValueError: ***, /x/***/y, a project of mine"
    )
    (tmp_path / "netrc").write_text("machine torn login")
    (tmp_path / "wandb/settings").write_bytes(b"no \xff section")
    assert KEY not in secret_values()


def test_the_path_in_a_variable_is_no_secret(tmp_path, monkeypatch):
    """The value of a variable such as SIGNING_KEY may name a file or a folder, which has to be found again."""
    monkeypatch.setenv("SIGNING_KEY", str(tmp_path))
    assert masked_text(f"{tmp_path}/results") == f"{tmp_path}/results"


def test_records_and_plans_hold_none(tmp_path):
    """A record is sealed over what it says, so it reads back."""
    store = Store(tmp_path)
    record = {"cell_key": "c0", "status": "failed", "reason": f"ValueError: key {KEY}", "config": {"token": "abc"}}
    store.write_record(record, [])
    store.write_plan({"suite": "mine", "command": "traindyn run 'x=https://me:hidden@host'"})
    assert store.record("c0")["reason"] == "ValueError: key ***"
    assert store.record("c0")["config"] == {"token": "***"}
    plan = json.loads((tmp_path / "suites/mine/plan.json").read_text())
    assert plan["command"] == "traindyn run 'x=https://***@host'"
