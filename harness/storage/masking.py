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
_WORDS = (
    r"(?:^|[_.-])(?:api_?key|access_?key|secret_?key|private_?key|token|secret|pass|credentials?)$"
    r"|(?:password|passwd|passphrase)$"
)
NAMES = re.compile(_WORDS, re.I)
"""of configuration keys whose values are secrets"""
VARIABLES = re.compile(_WORDS + r"|(?:token|secret)$|_(?:KEY|PAT|PWD|PW|AUTH|DSN)$", re.I)
"""of environment variables whose values are"""
LEAST_CHARACTERS = 16
"""shorter values of the environment are words, such as `false`, unless they are passwords"""
LEAST_OF_PASSWORDS = 6
"""and of two kinds: small letters, capitals, digits and others"""
ASKED = "TRAINDYN_ASKED"
"""the variable with the names of those that a configuration took (`oc.env`), whose values are not shown either"""
_ALONE = r"(?<![0-9A-Za-z/\\.])", r"(?![0-9A-Za-z/\\])"
"""around what is no part of a longer word or of a path"""
_HEX_KEY = r"(?:[A-Za-z]\w*-)?[0-9a-f]{40}"
"""a W&B key of the older kind, with the prefix that a server of one's own gives it"""
_WANDB_KEY = re.compile(r"(?:wandb_v\d_[0-9A-Za-z_]{20,}|local-[0-9a-f]{40})".join(_ALONE))
_SAYS_SECRET = r"(?:(?<![a-z])(?:key|token|secret|password|passwd|credential|bearer|login)s?|api_?keys?|authorization)"
_AFTER_A_WORD = re.compile(rf"(?i)({_SAYS_SECRET}(?![a-z])[^\n/\\]{{1,40}}?)" + _HEX_KEY.join(_ALONE))
_NAMED_SECRET = re.compile(rf"(?i){_SAYS_SECRET}$")
_ADDRESS = re.compile(r"(?i)(?<![a-z0-9+.-])([a-z][a-z0-9+.-]*)://((?:(?!://)[^\s\"'])*)@")
"""an address up to its last @"""
_WITH_PORTS = ("http", "https", "ws", "wss", "ray", "tcp", "grpc")
"""the addresses in which digits and a slash are a port and a path, and no password"""
_BEARER = re.compile(
    r"(?i)(\bauthorization\b['\"]?\s*[:=]\s*['\"]?(?:basic|bearer|token)\s+|\bbearer\s+(?=[\w.~+/=-]*\d|[\w.~+/=-]{16}))"
    r"[\w.~+/=-]*[\w~+/=-]"
)
_SAYS_ITSELF = re.compile(
    r"(?:gh[opusr]_[0-9A-Za-z]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|hf_[0-9A-Za-z]{20,}|sk-[\w-]{20,}|AKIA[0-9A-Z]{16})".join(
        _ALONE
    )
)
"""keys of other services that say what they are"""
_ENTRY = re.compile(
    r"(?i)(['\"][\w.-]*(?:api[_-]?key|access_?key|token|secret|password|passwd|passphrase)['\"]\s*:\s*)(['\"])(?:(?!\2).)+\2"
)
"""of a mapping in quotes, as errors show them"""
_GOT = re.compile(
    r"(?i)((?:^|[\s.])[\w.]*(?:api_?key|token|secret|password|passwd|passphrase|credentials?) must \b[^\n]*?, got )"
    r"(?:'[^']*'|\"[^\"]*\"|[^\s;]+)"
)
"""what an error says was refused"""
_VALUE = r"(?:\"[^\"]*\"|'[^']*'|[^\s,;&'\"]+)"
_ASSIGNED_VARIABLE = re.compile(rf"((?<![0-9A-Za-z])[A-Z0-9_]*(?:PASS|_PAT|_PWD|_DSN|_KEY|TOKEN|SECRET)=){_VALUE}")
_ASSIGNED = re.compile(
    r"(?i)((?:api_?key|access_?key|token|secret|password|passwd|passphrase|(?<![a-z_])(?:pass|pwd))=)"
    rf"(?!(?:true|false|null|none)\b){_VALUE}"
)


def secret_values() -> list[str]:
    """Values that must not be shown, the longest first: of this process's environment, of netrc, of W&B's settings.

    A variable that holds the path of a file or a folder holds no secret.
    """
    named = {name: value for name, value in os.environ.items() if VARIABLES.search(name) and not os.path.exists(value)}
    asked = (os.environ.get(name, "") for name in os.environ.get(ASKED, "").split())
    found = {value for value in (*named.values(), *_stored_secrets()) if len(value) >= LEAST_CHARACTERS}
    found |= {value for name, value in named.items() if _is_password(name, value)}
    found |= {value for value in asked if _is_no_word(value)}
    return sorted(found, key=len, reverse=True)


def note_asked(name: str) -> None:
    """A configuration took the value of this variable: it is shown neither here nor by processes started from now."""
    os.environ[ASKED] = " ".join(dict.fromkeys([*os.environ.get(ASKED, "").split(), name]))


def _kinds(value: str) -> int:
    """How many kinds of characters a value has: small letters, capitals, digits and others."""
    return len({"a" if c.islower() else "A" if c.isupper() else "0" if c.isdigit() else "-" for c in value})


def _is_password(name: str, value: str) -> bool:
    """Whether the value of a variable that is named like a secret is none of the words that a key may be."""
    long = len(value) >= (2 if re.fullmatch("[0-9a-f]+", value) else 1) * LEAST_OF_PASSWORDS
    return long and _kinds(value) > 1 and not name.upper().endswith("_KEY")


def _is_no_word(value: str) -> bool:
    """Whether a value that a configuration took may be a secret: a path is none, nor a name such as `resnet18`."""
    path = value.startswith(("/", "~", "./", "../")) or os.path.exists(value)
    return not path and _kinds(value) >= (2 if len(value) >= LEAST_CHARACTERS else 3) and len(value) >= 8


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


def _masked_address(found: re.Match[str]) -> str:
    """An address without what stands before its host; as it is where its @ belongs to a path."""
    scheme, before = found[1], found[2]
    head = re.split(r"[/?#]", before, maxsplit=1)[0]
    name, colon, rest = head.partition(":")
    whole = f"{scheme}://{MASK}@"
    if head == before or (colon and "@" not in name and "@" in rest):
        return whole
    if "@" in head:
        place = before.index("@")
        return f"{whole}{before[place + 1 :]}@"
    port = not colon or (rest.isdecimal() and scheme.lower() in _WITH_PORTS)
    return found[0] if port else whole


def masked_text(text: str, values: list[str] | None = None) -> str:
    """`text` with every secret in it replaced."""
    for value in secret_values() if values is None else values:
        text = text.replace(value, MASK)
    text = _ADDRESS.sub(_masked_address, text)
    for pattern in (_ASSIGNED, _ASSIGNED_VARIABLE, _BEARER, _GOT):
        text = pattern.sub(rf"\1{MASK}", text)
    text = _ENTRY.sub(rf"\1\2{MASK}\2", text)
    text, before = _SAYS_ITSELF.sub(MASK, _WANDB_KEY.sub(MASK, text)), ""
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
