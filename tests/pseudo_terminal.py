"""A terminal for a command under test: what a person sees of it at a width, after a window was resized, after Ctrl-C.

`Screen` wraps lines that have become too long, as most terminals do where a window is made narrower.
"""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

from command import SECONDS, environment
from command_server import COMMAND, Forked

CONTROL = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|([\r\n\x07])|([^\x1b\r\n\x07]+)")


class Screen:
    """What stands on a terminal of so many columns and rows, from the text that was sent to it."""

    def __init__(self, width, height=40):
        self.width, self.height = width, height
        self.above, self.rows, self.x, self.y = [], [["", False]], 0, 0
        """rows scrolled off and on the screen, each its text and whether the next one goes on with it"""
        self._rest = ""

    def feed(self, text):
        text, self._rest = self._rest + text, ""
        if (begun := text.rfind("\x1b")) >= 0 and not CONTROL.match(text, begun):
            text, self._rest = text[:begun], text[begun:]
        for found in CONTROL.finditer(text):
            numbers, command, sign, plain = found.groups()
            if plain:
                for character in plain:
                    self._put(character)
            elif sign == "\r":
                self.x = 0
            elif sign == "\n":
                self._down()
            elif command == "A":
                self.y = max(0, self.y - int(numbers or 1))
            elif command == "K":
                self.rows[self.y] = ["", False]
            elif command == "J":
                self.rows, self.y = [["", False]], 0
            elif command == "H":
                self.x = self.y = 0

    def _put(self, character):
        if self.x == self.width:
            self.rows[self.y][1] = True
            self._down()
            self.x = 0
        text = self.rows[self.y][0].ljust(self.x)
        self.rows[self.y][0] = text[: self.x] + character + text[self.x + 1 :]
        self.x += 1

    def _down(self):
        self.y += 1
        if self.y == len(self.rows):
            self.rows.append(["", False])
        if self.y == self.height:
            self.above.append(self.rows.pop(0))
            self.y -= 1

    def resize(self, width):
        """Wrap every line anew; the cursor stays in its line."""
        lines, at = [""], (0, 0)
        for index, (text, goes_on) in enumerate([*self.above, *self.rows]):
            if index == len(self.above) + self.y:
                at = len(lines) - 1, len(lines[-1]) + self.x
            lines[-1] += text
            if not goes_on:
                lines.append("")
        rows, cursor = [], 0
        for index, line in enumerate(lines[:-1]):
            parts = [line[start : start + width] for start in range(0, max(len(line), 1), width)]
            if index == at[0]:
                cursor, self.x = len(rows) + min(at[1] // width, len(parts) - 1), at[1] % width
            rows += [[part, place < len(parts) - 1] for place, part in enumerate(parts)]
        cut = max(0, len(rows) - self.height)
        self.above, self.rows, self.y, self.width = rows[:cut], rows[cut:], cursor - cut, width

    @property
    def lines(self):
        """What is visible."""
        return [text.rstrip() for text, _ in self.rows]


class Terminal:
    """A command on a pseudo-terminal of its own; Ctrl-C reaches all its processes, as from a keyboard.

    `fresh`: in a new interpreter, which has imported nothing; otherwise forked from the server of commands.
    """

    def __init__(self, *arguments, folder, width=80, variables=None, fresh=False):
        self.screen, self.text = Screen(width), ""
        self._here, there = pty.openpty()
        self._size(width)
        words = [str(COMMAND), *map(str, arguments)]
        variables = environment() | {"TERM": "xterm"} | (variables or {})
        variables.pop("COLUMNS", None)
        if fresh:
            self.process = subprocess.Popen(
                words, cwd=folder, env=variables, stdin=there, stdout=there, stderr=there, start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            )  # fmt: skip
        else:
            self.process = Forked(words[1:], folder, variables, there)
        os.close(there)

    def _size(self, width):
        fcntl.ioctl(self._here, termios.TIOCSWINSZ, struct.pack("HHHH", self.screen.height, width, 0, 0))

    def resize(self, width):
        self._look(0)
        self.screen.resize(width)
        self._size(width)

    def press(self, key):
        os.write(self._here, key)

    def _look(self, seconds):
        """Read what there is; False where the command has closed its terminal."""
        while select.select([self._here], [], [], seconds)[0]:
            try:
                data = os.read(self._here, 65536).decode("utf-8", "replace")
            except OSError:
                return False
            if not data:
                return False
            self.text += data
            self.screen.feed(data)
            seconds = 0
        return True

    def wait(self, condition):
        """Until `condition` of the terminal holds."""
        deadline = time.monotonic() + SECONDS
        while not condition(self):
            assert self._look(0.02), f"ended on its own:\n{self.text}"
            assert time.monotonic() < deadline, self.text

    def shows(self, text):
        """Until a text stands on the screen."""
        self.wait(lambda terminal: any(text in line for line in terminal.screen.lines))

    def end(self):
        """Its exit code, once it has ended and all that it printed is read."""
        deadline = time.monotonic() + SECONDS
        while self._look(0.05):
            assert time.monotonic() < deadline, self.text
        os.close(self._here)
        return self.process.wait(timeout=SECONDS)
