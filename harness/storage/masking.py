"""Secrets are masked before anything is stored, said or sent: API keys, tokens, passwords, credentials in addresses.

A text is masked where it holds the value of an environment variable that is named like a secret, the shape of a W&B
key, or `user:password@` in an address; a value of a mapping where its key is named like a secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

MASK = "***"
_WORDS = r"(?:^|[_.-])(?:api_?key|access_?key|secret_?key|private_?key|token|secret|password|passwd|credentials?)$"
NAMES = re.compile(_WORDS, re.I)
"""of configuration keys whose values are secrets"""
VARIABLES = re.compile(_WORDS + r"|_KEY$", re.I)
"""of environment variables whose values are"""
LEAST_CHARACTERS = 16
"""shorter values of the environment are words, such as `false`"""
_WANDB_KEY = re.compile(r"(?<![0-9A-Za-z])(?:wandb_v\d_[0-9A-Za-z_]{20,}|(?:local-)?[0-9a-f]{40})(?![0-9A-Za-z])")
_ADDRESS = re.compile(r"(?<=://)[^/@\s\"']+@")
_ASSIGNED = re.compile(r"(?i)((?:api_?key|access_?key|token|secret|password|passwd)=)[^\s,;&'\"]+")


def secret_values() -> list[str]:
    """Values of this process's environment that must not be shown, the longest first."""
    found = {value for name, value in os.environ.items() if VARIABLES.search(name) and len(value) >= LEAST_CHARACTERS}
    return sorted(found, key=len, reverse=True)


def masked_text(text: str, values: list[str] | None = None) -> str:
    """`text` with every secret in it replaced."""
    for value in secret_values() if values is None else values:
        text = text.replace(value, MASK)
    text = _ASSIGNED.sub(rf"\1{MASK}", text)
    return _WANDB_KEY.sub(MASK, _ADDRESS.sub(f"{MASK}@", text))


def masked(value: Any) -> Any:
    """A nested value of dicts, lists and texts with every secret replaced; all else as it is."""
    values = secret_values()

    def walk(value: Any, name: str) -> Any:
        if isinstance(value, str):
            return MASK if value and NAMES.search(name) else masked_text(value, values)
        if isinstance(value, Mapping):
            return {k: walk(v, str(k)) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [walk(v, "") for v in value]
        return value

    return walk(value, "")
