"""Secrets are masked before anything is stored, said or sent: API keys, tokens, passwords, credentials in addresses.

A text is masked where it holds a secret that is known (of an environment variable that is named like one, of netrc or
of W&B's settings), a key that says itself that it is one, 40 hex digits after a word such as key or token, a value that
is assigned to such a name, or `user:password@` in an address; a value of a mapping where its key is named like a
secret. Hex digits alone are no secret: folders of caches, commits and digests are named by them.
"""

from __future__ import annotations

import configparser
import contextlib
import netrc
import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

MASK = "***"
_WORDS = r"(?:^|[_.-])(?:api_?key|access_?key|secret_?key|private_?key|token|secret|password|passwd|credentials?)$"
NAMES = re.compile(_WORDS, re.I)
"""of configuration keys whose values are secrets"""
VARIABLES = re.compile(_WORDS + r"|_KEY$", re.I)
"""of environment variables whose values are"""
LEAST_CHARACTERS = 16
"""shorter values of the environment are words, such as `false`"""
_ALONE = r"(?<![0-9A-Za-z/\\.])", r"(?![0-9A-Za-z/\\])"
"""around what is no part of a longer word or of a path"""
_HEX_KEY = r"(?:[A-Za-z]\w*-)?[0-9a-f]{40}"
"""a W&B key of the older kind, with the prefix that a server of one's own gives it"""
_WANDB_KEY = re.compile(r"(?:wandb_v\d_[0-9A-Za-z_]{20,}|local-[0-9a-f]{40})".join(_ALONE))
_SAYS_SECRET = r"(?:(?<![a-z])(?:key|token|secret|password|passwd|credential|bearer|login)s?|api_?keys?|authorization)"
_AFTER_A_WORD = re.compile(rf"(?i)({_SAYS_SECRET}(?![a-z])[^\n/\\]{{1,40}}?)" + _HEX_KEY.join(_ALONE))
_NAMED_SECRET = re.compile(rf"(?i){_SAYS_SECRET}$")
_ADDRESS = re.compile(r"(?<=://)[^/@\s\"']+@")
_ASSIGNED = re.compile(
    r"(?i)((?:api_?key|access_?key|token|secret|password|passwd)=)(?!(?:true|false|null|none)\b)"
    r"(?:\"[^\"]*\"|'[^']*'|[^\s,;&'\"]+)"
)


def secret_values() -> list[str]:
    """Values that must not be shown, the longest first: of this process's environment, of netrc, of W&B's settings.

    A variable that holds the path of a file or a folder holds no secret.
    """
    known = (value for name, value in os.environ.items() if VARIABLES.search(name) and not os.path.exists(value))
    found = {value for value in (*known, *_stored_secrets()) if len(value) >= LEAST_CHARACTERS}
    return sorted(found, key=len, reverse=True)


def _stored_secrets() -> Iterator[str]:
    """Passwords of netrc and keys in W&B's settings files, where W&B would read them."""
    home = os.path.expanduser("~")
    files = {
        _passwords: [os.environ.get("NETRC") or f"{home}/.netrc", f"{home}/_netrc"],
        _settings_keys: [
            f"{os.environ.get('WANDB_CONFIG_DIR', f'{home}/.config/wandb')}/settings",
            f"{os.environ.get('WANDB_DIR', '.')}/wandb/settings",
        ],
    }
    for read, paths in files.items():
        for path in map(os.path.expanduser, paths):
            with contextlib.suppress(OSError, ValueError):  # ValueError: a path that is none
                yield from read(path, os.stat(path).st_mtime_ns)


@lru_cache(maxsize=8)
def _passwords(path: str, changed_ns: int) -> list[str]:
    try:
        return [password for _, _, password in netrc.netrc(path).hosts.values() if password]
    except netrc.NetrcParseError:
        return []


@lru_cache(maxsize=8)
def _settings_keys(path: str, changed_ns: int) -> list[str]:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(Path(path).read_text(encoding="utf-8", errors="replace"))
    except configparser.Error:
        return []
    return [value for section in parser.values() for name, value in section.items() if NAMES.search(name)]


def masked_text(text: str, values: list[str] | None = None) -> str:
    """`text` with every secret in it replaced."""
    for value in secret_values() if values is None else values:
        text = text.replace(value, MASK)
    text = _ASSIGNED.sub(rf"\1{MASK}", text)
    text, before = _ADDRESS.sub(f"{MASK}@", _WANDB_KEY.sub(MASK, text)), ""
    while text != before:  # a word may be said of several
        text, before = _AFTER_A_WORD.sub(rf"\1{MASK}", text), text
    return text


def masked(value: Any) -> Any:
    """A nested value of dicts, lists and texts with every secret replaced; all else as it is."""
    values = secret_values()

    def walk(value: Any, name: str) -> Any:
        if isinstance(value, str):
            named = NAMES.search(name) or (_NAMED_SECRET.search(name) and re.fullmatch(_HEX_KEY, value))
            return MASK if value and named else masked_text(value, values)
        if isinstance(value, Mapping):
            return {k: walk(v, str(k)) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [walk(v, name) for v in value]
        return value

    return walk(value, "")
