"""This project's folders and packages, found by their place: others on the path may have the same names."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

HOME = Path(__file__).parent.parent
"""The folder in which `harness`, `baselines` and `conf` lie."""
CONF = HOME / "conf"
METHODS = "baselines"


@cache
def installed(name: str) -> str:
    """The version of an installed package, which is read once; PackageNotFoundError where there is none."""
    return version(name)


def pin_methods() -> None:
    """Have `baselines` stand for this project's in this process, whatever else on the path is called so.

    One that was imported before stays what it is: `other_methods` tells.
    """
    if METHODS not in sys.modules:
        folder = HOME / METHODS
        spec = importlib.util.spec_from_file_location(
            METHODS, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        sys.modules[METHODS] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


def other_methods() -> str | None:
    """What stands for `baselines` in this process where that is not this project's."""
    file = getattr(sys.modules[METHODS], "__file__", None)
    own = file is not None and Path(file).parent.samefile(HOME / METHODS)
    return None if own else file or str(sys.modules[METHODS])
