"""Operations of a GPU that have no form that repeats itself, said by name instead of in warnings of torch's."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

SAID = re.compile(
    r"(?P<operation>[\w ]+) (?:does not have a deterministic implementation|defaults to a non-deterministic algorithm)"
    r"|not deterministic because it uses (?P<library>\w+)"
)
"""what torch warns of where deterministic algorithms are asked for and there is none"""


@contextlib.contextmanager
def told_kernels(say: Callable[[str], None]) -> Iterator[None]:
    """Says of every operation in the block that has no deterministic form that it has none, once."""
    told: set[str] = set()
    with warnings.catch_warnings():
        warnings.filterwarnings("default", message=f"(?s).*(?:{SAID.pattern})")
        shown = warnings.showwarning

        def show(message: Warning | str, *arguments: Any, **more: Any) -> None:
            found = SAID.search(str(message))
            if found is None:
                shown(message, *arguments, **more)
                return
            operation = (found["operation"] or found["library"]).strip()
            if operation not in told:
                told.add(operation)
                say(f"{operation} has no deterministic form on this device: another run may differ in the last bits")

        warnings.showwarning = show
        yield
