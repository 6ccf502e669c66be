"""Texts of strangers in Markdown, in LaTeX and on the terminal: they stay in their cell, and can be seen as a whole."""

import pandas as pd
from command import here
from rich.text import Text

from harness.cli import _console
from harness.report.tables.latex import latex
from harness.report.tables.printed import Printed

TEXT = "a|b\nc \u202ed\x1b[2J <script>"
TABLE = Printed("A caption.", pd.DataFrame({"method": [TEXT], "p|q": ["< 0.001"]}), notes=[TEXT], title="A title")


def test_markdown_keeps_a_row_of_two_cells():
    lines = TABLE.markdown().splitlines()
    assert all(line.isprintable() for line in lines)
    (row,) = [line for line in lines if line.startswith("| a")]
    assert row.replace(r"\|", "").count("|") == 3
    assert r"\<script>" in row
    assert "< 0.001" in row
    assert "<script>" not in TABLE.markdown().replace(r"\<script>", "")


def test_latex_has_no_character_that_cannot_be_seen():
    text = latex([TABLE])
    assert all(line.isprintable() for line in text.splitlines())
    assert "[U+202E]" in text


def test_the_terminal_shows_no_escape_of_a_text(capsys):
    console = _console()
    console.print("a\x1b[2Jb\u202ec\nd", soft_wrap=True)
    console.print(Text("plain"))
    assert capsys.readouterr().out == "a\\x1b[2Jb\\u202ec\nd\nplain\n"


def test_an_error_is_one_line_without_secrets(tmp_path):
    done = here("report", "suite=\x1b[2J", results=tmp_path, code=2)
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr
    done = here("report", "suite=x", "password=of-mine", results=tmp_path, code=2)
    assert "of-mine" not in done.stderr
