"""Captures of a real terminal and of a report's page, for README.md and these pages.

    python docs/tools/captures.py --results DIR [--run "suite=quick"] [--out docs/captures]

DIR is a results folder in which `traindyn run` of what is given has come to its end; it is shown and reported on. The
plan and the live display are those of a fresh folder: the run there is interrupted after some epochs. The terminal is a
pseudo-terminal, its screen is kept by pyte and drawn by rich; the page is Chromium's.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import io
import os
import pty
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte
from PIL import Image
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import MONOKAI
from rich.text import Text
from selenium import webdriver

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).parent / "traindyn"
COLUMNS, LINES = 112, 60
PAGE, NARROW = (1280, 860), (390, 844)
FRAME = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-family: system-ui, sans-serif; font-size: 18px; font-weight: 600; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""
"""rich's own without the font that it would fetch"""


class Terminal:
    """A command on a pseudo-terminal, and what stands on its screen; Ctrl-C reaches all its processes."""

    def __init__(self, words: list[str], folder: Path) -> None:
        self.screen = pyte.HistoryScreen(COLUMNS, LINES, history=1000)
        self._stream = pyte.Stream(self.screen)
        self._here, there = pty.openpty()
        fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "COLUMNS"))}
        variables = {**kept, "TERM": "xterm-256color", "WANDB_MODE": "offline", "NETRC": os.devnull}
        self.process = subprocess.Popen(
            [str(COMMAND), *words], cwd=folder, env=variables, stdin=there, stdout=there, stderr=there,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(there)

    def read(self, until: Callable[[str], bool] = lambda _: False) -> bool:
        """Read on until the screen is as asked, or the command has ended; whether it came to be so."""
        while select.select([self._here], [], [], 600)[0]:
            try:
                data = os.read(self._here, 65536)
            except OSError:
                return False
            if not data:
                return False
            self._stream.feed(data.decode("utf-8", "replace"))
            if until("\n".join(self.screen.display)):
                return True
        raise TimeoutError(f"{self.process.args} said nothing for ten minutes")

    def interrupt(self) -> None:
        """Press Ctrl-C, and read to the end."""
        os.write(self._here, b"\x03")
        self.read()
        self.process.wait()

    def text(self) -> list[Text]:
        """The lines that were written, in their colours."""
        rows = [*self.screen.history.top, *(self.screen.buffer[y] for y in range(LINES))]
        lines = [_line(row) for row in rows]
        while lines and not lines[-1].plain.strip():
            lines.pop()
        return lines


def _line(row: dict[int, pyte.screens.Char]) -> Text:
    line = Text()
    for column in range(COLUMNS):
        char = row[column]
        style = Style(color=_colour(char.fg), bgcolor=_colour(char.bg), bold=char.bold, italic=char.italics)
        line.append(char.data, style)
    line.rstrip()
    return line


def _colour(name: str) -> str | None:
    if name == "default":
        return None
    if re.fullmatch(r"[0-9a-f]{6}", name):
        return f"#{name}"
    return {"brown": "yellow"}.get(name, name).replace("bright", "bright_")


def write_svg(lines: list[Text], title: str, path: Path) -> None:
    """Draw lines of a terminal; the same lines give the same file."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), legacy_windows=False)
    for line in lines:
        console.print(line, soft_wrap=True)
    path.write_text(
        console.export_svg(title=title, theme=MONOKAI, code_format=FRAME, unique_id=path.stem), encoding="utf-8"
    )


def capture_run(out: Path) -> None:
    """The plan, and the live display with its end by Ctrl-C."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = Terminal(["plan", "suite=quick"], folder)
        plan.read()
        write_svg(_named(plan.text(), folder), "traindyn plan suite=quick", out / "plan.svg")
        live = Terminal(["run", "suite=quick"], folder)
        if not live.read(lambda shown: len(re.findall(r"(?:2[4-9]|[34]\d)/45", shown)) >= 2):
            raise RuntimeError("\n".join(live.screen.display))
        shown = live.text()
        live.interrupt()
        write_svg(_named([*shown, *_end(live.text())], folder), "traindyn run suite=quick", out / "live.svg")


def capture_table(results: Path, asked: list[str], out: Path) -> str:
    """The table of a finished run, with the closing lines; the name of its view."""
    table = Terminal(["run", *asked], results.parent)
    table.read()
    lines = table.text()
    if not any("nothing is left" in line.plain for line in lines):
        raise RuntimeError(f"traindyn run {' '.join(asked)} was not at its end in {results}: it is now")
    write_svg(_named(lines, results.parent), f"traindyn run {' '.join(asked)}", out / "table.svg")
    return lines[-1].plain.rpartition("name=")[2].split()[0]


def _end(lines: list[Text]) -> list[Text]:
    """What a command says when it was interrupted."""
    return [Text("^C"), *(line for line in lines if "interrupted" in line.plain)]


def _named(lines: list[Text], folder: Path) -> list[Text]:
    """Lines in which the working folder is not named."""
    found = []
    for line in lines:
        for place in (f"{folder}/", str(folder)):
            parts = line.split(place, include_separator=False, allow_blank=True)
            line = Text.assemble(*parts) if len(parts) > 1 else line
        found.append(line)
    return found


@contextlib.contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """Chromium without a screen."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(shutil.which("chromedriver"))))
    yield driver
    driver.quit()


def capture_page(results: Path, view: str, out: Path) -> None:
    """The top of the report's page, and the same at the width of a telephone."""
    subprocess.run([COMMAND, "report", f"name={view}"], cwd=results.parent, check=True, stdout=subprocess.DEVNULL)
    page = results / "suites" / view / "report" / "index.html"
    with browser() as driver:
        for name, (width, height) in {"report": PAGE, "report-narrow": NARROW}.items():
            driver.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
            )
            driver.get(page.as_uri())
            deadline = time.monotonic() + 60
            while not driver.execute_script(
                "return document.querySelectorAll('#plot .scatterlayer .trace').length > 0"
            ):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{page} draws no curve")
                time.sleep(0.05)
            picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
            picture.quantize(128, dither=Image.Dither.NONE).save(out / f"{name}.png", optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="the results folder of a finished run")
    parser.add_argument("--run", default="suite=quick", help="what was run there, as on the command line")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "captures")
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    given.out.mkdir(parents=True, exist_ok=True)
    capture_run(given.out)
    view = capture_table(given.results.resolve(), shlex.split(given.run), given.out)
    capture_page(given.results.resolve(), view, given.out)
