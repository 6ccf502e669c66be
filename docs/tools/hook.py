"""What mkdocs builds beside the pages in docs/: pages made from the code, tables made from published results, formulas.

A hook of mkdocs (`hooks` in mkdocs.yml). Generated pages are never written to the disk. A folder in the navigation,
such as `methods/`, stands for all pages below it, generated or written, so that a new method, key, command or example
appears by itself.
"""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS, ROOT = Path(__file__).parents[1], Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # the package of this checkout, wherever mkdocs was started

from api_pages import api_pages  # noqa: E402
from commands_page import commands_page  # noqa: E402
from configuration_page import configuration_page  # noqa: E402
from methods_pages import methods_pages  # noqa: E402
from results_tables import TABLES  # noqa: E402
from root_pages import root_pages  # noqa: E402

FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\s*(?:\\\((?P<inline>.*?)\\\)|\\\[(?P<block>.*?)\\\])\s*</\1>', re.DOTALL
)
TABLE = re.compile(r"<!-- table: (?P<name>[a-z_]+)(?P<arguments>( [a-z0-9_]+)*) -->")


def generated_files() -> dict[str, str | bytes]:
    """Every generated file by its path below docs/, in the order of the navigation."""
    return {
        **methods_pages(),
        "reference/commands.md": commands_page(),
        "reference/configuration.md": configuration_page(),
        **api_pages(),
        **root_pages(),
    }


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make what is generated, and put it where the navigation names its folder."""
    config["made"] = generated_files()
    written = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
    config.nav = _filled(config.nav, [*(path for path in config["made"] if path.endswith(".md")), *written])
    return config


def _filled(nav: Any, pages: list[str]) -> Any:
    if isinstance(nav, list):
        return [_filled(entry, pages) for entry in nav]
    if isinstance(nav, dict):
        return {title: _filled(entry, pages) for title, entry in nav.items()}
    return [page for page in pages if page.startswith(nav)] if nav.endswith("/") else nav


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated files."""
    for path, content in config["made"].items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Tables of published results stand where a page names them: `<!-- table: main quick -->`."""
    return TABLE.sub(lambda found: TABLES[found["name"]](*found["arguments"].split()), markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Formulas become MathML, which browsers draw by themselves."""
    return FORMULA.sub(_formula, content)


def _formula(found: re.Match[str]) -> str:
    kind = "inline" if found["block"] is None else "block"
    return convert(html.unescape(found[kind]).strip(), display=kind)
