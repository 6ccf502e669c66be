"""What the script needs beside Python, and what of it is missing. Needs nothing beside Python itself."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

BESIDE = ("pytest>=9",)
"""what the conformance suite asks for beyond the project's own dependencies"""
OF_THE_MACHINE = ("torch", "triton", "nvidia", "cuda")
"""beginnings of the names of what comes with torch, for the machine's own driver"""
TORCHVISION_BEHIND = 15
"""torchvision 0.(15 + n) goes with torch 2.n"""


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _name(requirement: str) -> str:
    return _plain(re.split(r"[\s<>=!~;\[(]", requirement, maxsplit=1)[0])


def needed(root: Path) -> list[str]:
    """The requirements, as pyproject.toml has them."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *BESIDE]


def missing(root: Path) -> list[str]:
    """The requirements that are not installed, or not in these versions: `timm>=1.0.20 (found 0.9)`."""
    found = {requirement: _version(_name(requirement)) for requirement in needed(root)}
    lacking = [requirement for requirement, version in found.items() if version is None]
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return lacking
    for requirement, version in found.items():
        if version is not None and not Requirement(requirement).specifier.contains(version, prereleases=True):
            lacking.append(f"{requirement} (found {version})")
    return lacking


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def wheels(root: Path) -> Iterator[str]:
    """Requirements, one a line, that a machine lacks which has torch alone, in the tested versions.

    What they need themselves is among them. That is known where they are installed; elsewhere all tested packages are
    listed, with the tools of development.
    """
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {_name(line): line.strip() for line in lines if "==" in line and not line.startswith("#")}
    closure, whole = _closure([_name(requirement) for requirement in needed(root)])
    wanted = {name: pins.get(name, name) for name in closure} if whole else pins
    torch = pins.get("torch", "torch")
    yield f"# beside {torch}, which the machine has: torchvision 0.{TORCHVISION_BEHIND}+n goes with torch 2.n"
    if not whole:
        yield "# all tested packages, since not all are installed here that would tell which are needed"
    for name in sorted(wanted):
        if name == "torchvision" or not name.startswith(OF_THE_MACHINE):
            yield wanted[name]


def _closure(names: list[str]) -> tuple[set[str], bool]:
    """These and all that they require here, and whether all of them are installed, so that this is known."""
    found: set[str] = set()
    queue, whole = list(names), True
    while queue:
        name = queue.pop()
        if name in found or (name.startswith(("torch", "triton")) and name != "torchvision"):
            continue
        found.add(name)
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            whole = False
            continue
        queue += [_name(one) for one in requires if _applies(one)]
    return found, whole


def _applies(requirement: str) -> bool:
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return "extra ==" not in requirement
    marker = Requirement(requirement).marker
    return marker is None or marker.evaluate({"extra": ""})
