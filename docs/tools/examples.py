"""The examples as pages: every cell is run, and what it prints and draws stands below it.

    python docs/tools/examples.py [NAME ...]

Writes docs/examples/NAME.md with its pictures. Run it when a script of examples/ was changed; a test compares the code.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

ROOT = Path(__file__).parents[2]
EXAMPLES, PAGES = ROOT / "examples", ROOT / "docs" / "examples"


SOURCE = (
    "The script is `examples/{name}.py`; its cells run in any editor that knows `# %%`, and as a whole with Python."
)


class Cell(NamedTuple):
    """A part of a script: text, or code."""

    is_text: bool
    content: str


def cells(script: str) -> Iterator[Cell]:
    """The parts of a script in percent format."""
    for part in re.split(r"^# %%", script, flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        if "[markdown]" in head:
            yield Cell(True, "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines()))
        else:
            yield Cell(False, body.strip())


def code_of(page: str) -> list[str]:
    """The code that a page shows."""
    return re.findall(r"^```python\n(.*?)\n```$", page, flags=re.MULTILINE | re.DOTALL)


def rendered(name: str, out: Path) -> None:
    """Run a script, and write its page."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    parts: list[str] = []
    space = {"__name__": "__main__"}
    for cell in cells((EXAMPLES / f"{name}.py").read_text(encoding="utf-8")):
        if cell.is_text:
            parts.append(cell.content)
            continue
        said = io.StringIO()
        with contextlib.redirect_stdout(said), mock.patch.object(plt, "show"):
            exec(compile(cell.content, f"{name}.py", "exec"), space)
        parts.append(f"```python\n{cell.content}\n```")
        if said.getvalue().strip():
            parts.append(f"```text\n{said.getvalue().rstrip()}\n```")
        for number in plt.get_fignums():
            picture = f"{name}-{sum('](' + name in part for part in parts) + 1}.svg"
            with mpl.rc_context({"svg.hashsalt": "traindyn"}):
                plt.figure(number).savefig(out / picture, metadata={"Date": None})
            parts.append(f"![what the code above draws]({picture})")
        plt.close("all")
    parts.insert(1, SOURCE.format(name=name))
    (out / f"{name}.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=sorted(path.stem for path in EXAMPLES.glob("*.py")))
    PAGES.mkdir(exist_ok=True)
    for chosen in parser.parse_args().names:
        rendered(chosen, PAGES)
