"""The reference of commands: what `--help` says of each."""

from __future__ import annotations

import contextlib
import io
import os
from unittest import mock

from harness.cli import main
from harness.verbs.words import SUMMARIES


def commands_page() -> str:
    """One section per verb."""
    text = ["# Commands", "", "What `traindyn --help` and `traindyn VERB --help` say.", "", _block(), ""]
    for verb, summary in SUMMARIES.items():
        text += [f"## {verb}", "", f"{summary[0].upper()}{summary[1:]}.", "", _block(verb), ""]
    text += [
        "## Exit codes",
        "",
        "| code | meaning |",
        "| --- | --- |",
        "| 0 | all is done |",
        "| 1 | some cell failed, or the disk is full; what is done stays |",
        "| 2 | bad input, said in one line that names key, bound and value, before anything trains |",
        "| 130 | interrupted; the same command goes on |",
    ]
    return "\n".join(text)


def _block(*verb: str) -> str:
    said = io.StringIO()
    with (
        mock.patch.dict(os.environ, {"COLUMNS": "100"}),
        contextlib.redirect_stdout(said),
        contextlib.suppress(SystemExit),
    ):
        main([*verb, "--help"])
    return f"```text\n{said.getvalue().rstrip()}\n```"
